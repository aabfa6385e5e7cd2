"""Robot logs to datasets of transitions, by a contract."""
