"""Server processes: uvicorn, HTTP protocol limits, sockets."""
