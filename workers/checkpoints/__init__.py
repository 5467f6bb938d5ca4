"""Making, merging and checking the checkpoints that workers load."""
