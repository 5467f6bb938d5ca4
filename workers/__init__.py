"""One process, one vLLM engine, one merged checkpoint."""
