"""Short scripts for single measurements. The figures are in docs."""
