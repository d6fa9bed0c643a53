"""What to label next: the pairs of answers whose label would teach a reward model most."""
