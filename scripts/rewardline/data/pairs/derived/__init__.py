"""Mixtures that are made of the pairs of another one: folds, mended labels, probes, further pairs."""
