"""The HTTP API in front of the pools; imports no torch, vllm or ray."""
