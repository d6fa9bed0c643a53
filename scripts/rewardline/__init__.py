"""What the stages of the pipeline share."""
