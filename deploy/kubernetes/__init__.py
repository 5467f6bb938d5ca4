"""Kubernetes: the chart, and what is generated from it."""
