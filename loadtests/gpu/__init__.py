"""Everything that is measured on a GPU, by one command. docs/BENCHMARKS.md says how to run it."""
