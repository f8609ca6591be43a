"""Benchmarks of docs/performance.md: ratios to a plain implementation measured in the same run."""
