"""The benchmarks. Each is a coroutine from a `Setup` to rows."""
