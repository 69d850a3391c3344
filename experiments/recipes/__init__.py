"""Recipes as YAML: data, model size and training."""
