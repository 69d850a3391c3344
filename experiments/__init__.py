"""Ablation tables as YAML, one file each; `recipes/` says where they are measured."""
