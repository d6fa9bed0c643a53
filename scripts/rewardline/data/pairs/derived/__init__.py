"""Mixtures that are made of the pairs of another one: folds, corrected labels, probes, further pairs."""
