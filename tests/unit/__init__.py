"""Fast tests that start no engine."""
