"""The version of this code, which the package, the command and the report tell."""

__version__ = "0.1.0"
