"""How every figure looks and is written."""
