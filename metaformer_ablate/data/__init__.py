"""Images. Importing this package loads no torch."""
