"""What Python programs and notebooks call; `import metaformer_ablate as ma` has it. The commands call it too."""
