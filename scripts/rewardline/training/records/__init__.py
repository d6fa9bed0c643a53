"""What a training run leaves for people: its log, its facts and its model card."""
