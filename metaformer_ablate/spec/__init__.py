"""From experiment files and overrides to resolved specs. Loads no torch."""
