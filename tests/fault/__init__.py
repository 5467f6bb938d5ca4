"""The whole router on real sockets, in front of workers that misbehave."""
