"""What is made of several models: a folder with all of them, or one with the mean of their weights."""
