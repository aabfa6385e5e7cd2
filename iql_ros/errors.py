"""The errors a user can meet.

Every message names the thing, its value, the rule and the fix. They are raised
while loading and configuring, never inside a control tick.
"""

from __future__ import annotations


class IqlRosError(Exception):
    """Base of every error that iql_ros raises on purpose."""


class ContractError(IqlRosError):
    """A contract is malformed, or does not fit a log, a dataset or a bundle."""


class LogError(IqlRosError):
    """A robot log cannot be read, or holds nothing that can be used."""


class DatasetError(IqlRosError):
    """A dataset is malformed, empty, or unfit for training."""


class BundleError(IqlRosError):
    """A policy bundle is incomplete, altered, or fails its own verification."""
