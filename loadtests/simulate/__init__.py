"""Simulation of up to 1,000 replicas. docs/SCALE.md has the results."""
