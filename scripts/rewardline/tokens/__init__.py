"""From conversations to tokenised comparisons."""
