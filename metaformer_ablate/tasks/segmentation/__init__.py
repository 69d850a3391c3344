"""Semantic segmentation: a class for each pixel, by Semantic FPN on any backbone."""
