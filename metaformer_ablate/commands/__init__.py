"""The commands of `ablate`: each module is loaded when one of its commands is called, and parses, calls, prints."""
