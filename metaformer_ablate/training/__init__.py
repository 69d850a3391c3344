"""How a training step is taken: optimiser, schedule, precision, micro-batches."""
