"""Stand-ins for real processes."""
