"""What the router and the workers share. It imports no torch, vLLM or Ray."""
