"""The results folder: records, checkpoints, claims."""
