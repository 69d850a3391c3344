"""What a classifier gets wrong, and why."""
