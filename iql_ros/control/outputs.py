"""From an action to the messages of the command topics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from iql_ros.contract import Contract
from iql_ros.contracts.choices import ROUNDING, tolerance
from iql_ros.errors import ContractError
from iql_ros.wire import Reader, Writer

Array = NDArray[np.float64]


class Output:
    """Writes the messages of one command topic."""

    def __init__(self, contract: Contract, types: Typestore, alias: str) -> None:
        """Compiles the writer of topic `alias`.

        Raises:
            ContractError: a path does not fit the message type, or a choice its number.
        """
        topic = contract.topics[alias]
        actions = [action for action in contract.actions if action.topic == alias]
        names = [name for action in actions for name in contract.components(action.name)]
        self._columns = np.array([contract.action_names.index(name) for name in names])
        paths = [action.path for action in actions]
        self._writer = Writer(types, topic.type, paths, topic.constants)
        if contract.choices is not None:
            self._check_choices(contract.choices, Reader(types, topic.type, paths[:1]), names[0])
        else:
            self._check_limits(contract, Reader(types, topic.type, paths), names)

    def _check_choices(self, choices: Array, reader: Reader, name: str) -> None:
        """Refuses choices that the message turns into other values, as an integer does 0.5."""
        for choice in choices:
            written = reader.read(self.write(0, choice[None]))
            if written is None or not abs(written[0] - choice) <= tolerance(choices):
                raise ContractError(
                    f"action {name!r}: choice {choice:g} reads {written} in its message: "
                    f"declare only choices that the message's type can hold"
                )

    def _check_limits(self, contract: Contract, reader: Reader, names: list[str]) -> None:
        """Refuses limits and safe actions that the message turns into other values."""
        for what, action in (
            ("the limit", contract.action_low),
            ("the limit", contract.action_high),
            ("safe", contract.action_safe),
        ):
            wanted, written = action[self._columns], reader.read(self.write(0, action))
            assert written is not None  # the message was made for these paths
            for name, value, becomes in zip(names, wanted, written, strict=True):
                if not abs(becomes - value) <= ROUNDING * abs(value):
                    raise ContractError(
                        f"action {name!r}: {what} {value:g} becomes {becomes:g} in its message: "
                        f"declare what the message's type can hold, so that nothing beyond the "
                        f"limits is published"
                    )

    def write(self, t_ns: int, action: Array) -> bytes:
        """The message for an action of shape (A,), stamped with t if its type has a header."""
        return self._writer.write(action[self._columns], t_ns)
