"""Statistics of paired runs: pure functions on numbers."""
