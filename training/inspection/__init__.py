"""What is in a log, and a first contract for it."""
