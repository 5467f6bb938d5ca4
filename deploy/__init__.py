"""Ways to run the workers and the router together."""
