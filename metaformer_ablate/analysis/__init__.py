"""From records to tables. Everything here reads records only and trains nothing."""
