"""The process and the machine: console, signals, devices, memory, versions."""
