"""Published benchmarks: how each computes its figures from the scores of its answers."""
