"""From conversations to tokenized comparisons."""
