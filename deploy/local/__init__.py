"""One machine: workers and router as child processes."""
