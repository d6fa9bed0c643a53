"""Shapes of rows, and how each becomes pairs."""
