"""Rows of datasets, as files and the hub hold them."""
