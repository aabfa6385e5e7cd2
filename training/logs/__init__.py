"""Robot logs of every storage, read as rows of raw payloads per topic."""

from training.logs.log import Block, Log, Topic
from training.logs.opening import find_logs, open_log

__all__ = ["Block", "Log", "Topic", "find_logs", "open_log"]
