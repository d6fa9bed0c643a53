"""Helpers of the tests: projects, data, models, training runs, a Slurm cluster."""
