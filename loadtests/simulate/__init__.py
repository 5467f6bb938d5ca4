"""Up to 1,000 replicas, simulated with the router's own queue: see docs/SCALE.md."""
