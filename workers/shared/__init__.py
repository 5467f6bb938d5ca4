"""What router and workers share: wire contract, logging, settings base, process helpers. No torch."""
