"""Message types of the contract's topics, as the ROS installation on this machine has them."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from rosbags.typesys.store import Typestore

from iql_ros.contract import Contract
from iql_ros.contracts.definitions import read_definitions
from iql_ros.errors import ContractError
from iql_ros.wire import make_types


def message_class(msgtype: str) -> Any:
    """The Python class of `package/msg/Name`.

    Raises:
        ContractError: the package is not installed, or has no such message.
    """
    package, _, name = msgtype.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ContractError(
            f"message type {msgtype} is not installed here ({error}): "
            f"install its package and source its setup file"
        ) from None


def installed_types(contract: Contract) -> Typestore:
    """Definitions of the contract's message types, those installed here first.

    What the middleware sends is what is installed, so that outranks both the contract's own
    definitions and the standard ones.
    """
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    wanted = [topic.type for topic in contract.topics.values()]
    packages = {msgtype.split("/")[0] for msgtype in wanted}
    folders = [
        folder
        for prefix in reversed(prefixes)  # a later one overlays an earlier one in a lookup
        for package in sorted(packages)
        if any((folder := prefix / "share" / package).glob("msg/*.msg"))
    ]
    return make_types({**contract.definitions, **read_definitions(folders, wanted)})
