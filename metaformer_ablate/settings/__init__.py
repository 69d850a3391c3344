"""Strict settings in layers: field types, YAML, overrides. Loads no torch."""
