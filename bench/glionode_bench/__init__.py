"""Benchmarks of docs/performance.md: ratios against a plain form in the same run."""
