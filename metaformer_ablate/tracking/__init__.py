"""Weights & Biases: logged runs, sweeps and trials."""
