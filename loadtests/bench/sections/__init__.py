"""The benchmarks of a run. Each is a coroutine from its `Setup` to the rows that it measured."""
