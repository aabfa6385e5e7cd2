"""Measurements that anyone can repeat.

`python -m benchmarks.NAME [--quick]`: quick takes less than a minute, progress
goes to stderr, and the last line on stdout is one JSON object.
"""
