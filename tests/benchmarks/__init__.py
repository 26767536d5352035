"""The figures of docs/benchmarks.md. `python -m tests.benchmarks` measures and prints them."""
