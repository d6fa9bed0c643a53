"""Scores of texts: the one scorer, for files, benchmarks and the server."""
