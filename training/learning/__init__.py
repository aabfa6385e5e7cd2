"""Offline learning: the algorithms, the loop, and what a run leaves."""
