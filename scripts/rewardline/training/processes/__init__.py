"""How the processes of a training run start, work together and end."""
