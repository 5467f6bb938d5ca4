"""A deployment on one machine: router and workers are child processes."""
