"""Attention over packed rows that share prefixes."""
