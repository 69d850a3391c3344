"""Where runs execute: this machine, Ray or Slurm."""
