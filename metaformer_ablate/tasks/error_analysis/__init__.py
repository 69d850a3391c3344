"""What the error analyses of all tasks share: which run it is, two runs beside each other, words and figures."""
