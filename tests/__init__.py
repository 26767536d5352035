"""Tests mirror src; benchmarks are the figures of docs/benchmarks.md."""
