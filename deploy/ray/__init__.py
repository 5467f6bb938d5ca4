"""A deployment on a Ray cluster, with Ray Serve."""
