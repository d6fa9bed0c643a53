"""Scored pairs, their metrics, and comparisons of runs."""
