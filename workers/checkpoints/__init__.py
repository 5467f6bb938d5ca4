"""Makes, merges and verifies the checkpoints that workers load."""
