"""The records of a training run for people: its log, run.json and its model card."""
