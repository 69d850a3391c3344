"""An experiment to its missing runs, and those through a launcher to records."""
