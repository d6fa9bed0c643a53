"""Pairs of a mixture: compared, cleaned, split and stored."""
