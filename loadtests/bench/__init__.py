"""Benchmarks that compare systems side by side in one run. docs/BENCHMARKS.md has the results."""
