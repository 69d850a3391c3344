"""The weights of a finished run: load, check, export."""
