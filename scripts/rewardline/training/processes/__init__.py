"""The processes of a training run: start, collective operations, signals."""
