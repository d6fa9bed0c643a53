"""Metrics of scored pairs, with intervals."""
