"""A task of the tests' own: how grey an image of digits is. One number per image, one metric; lower is better."""
