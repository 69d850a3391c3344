"""The report: one page of everything in a results folder."""
