"""The router, without any worker."""
