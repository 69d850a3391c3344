"""Tables of an experiment, in six formats."""
