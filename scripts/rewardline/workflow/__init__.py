"""What the rules read: configuration, settings, runs, Slurm."""
