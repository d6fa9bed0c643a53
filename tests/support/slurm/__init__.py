"""A Slurm cluster in namespaces of this machine."""
