"""Parameters, MACs and speed of a model."""
