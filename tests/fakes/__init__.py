"""Fakes of real processes."""
