"""Image classification: top-1 and top-5 accuracy."""
