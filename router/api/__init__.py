"""The HTTP API: endpoints, request schema, planning, replies, OpenAPI."""
