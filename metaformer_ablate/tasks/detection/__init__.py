"""Detection and instance segmentation: RetinaNet and Mask R-CNN on the maps of any backbone."""
