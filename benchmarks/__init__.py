"""Every speed that the README claims, as a ratio measured side by side in one run: `python -m benchmarks`."""
