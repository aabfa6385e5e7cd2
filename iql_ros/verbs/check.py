"""`iql-ros check`: what a step is, by a contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.table import Table

from iql_ros.contract import Contract, load_contract
from iql_ros.contracts.schema import Action, Field
from iql_ros.verbs.resolve import resolve
from iql_ros.verbs.terminal import out_console

Row = tuple[str, str, str, str]
"""Component, unit, limits or choices, source."""


def check_command(
    contract: Annotated[str, typer.Argument(help="contract YAML, or a robot's name")],
) -> None:
    """Checks a contract and prints what a step is.

    Message types, paths in them and the names in the rules are looked up too.

    Example: `iql-ros check robot.yaml`
    """
    loaded = load_contract(contract)
    remarks = resolve(loaded, contract)
    table = Table("", "#", "component", "unit", "limits", "from or to", title=loaded.robot)
    parts = {
        "observation": _rows(loaded, loaded.observations),
        "signal": _rows(loaded, loaded.signals),
        "action": _rows(loaded, loaded.actions),
    }
    for part, rows in parts.items():
        for i, row in enumerate(rows):
            table.add_row(part, "" if part == "signal" else str(i), *row)
    out_console.print(table)
    for remark in remarks:
        out_console.print(remark)
    out_console.print(f"digest {loaded.digest()}")


def _rows(contract: Contract, items: Sequence[Field] | Sequence[Action]) -> Iterator[Row]:
    for item in items:
        source = contract.topics[item.topic].absolute if item.topic else _derivation(item)
        for i, component in enumerate(contract.components(item.name)):
            yield component, item.unit, _bounds(item, i), source


def _bounds(item: Field | Action, i: int) -> str:
    """What component i of a field or action may be, in words."""
    if isinstance(item, Action) and item.choices is not None:
        return f"one of {', '.join(f'{choice:g}' for choice in item.choices)}"
    if item.limits is None:
        return ""
    low, high = item.limits[i if len(item.limits) > 1 else 0]
    return f"({low:g}, {high:g})"


def _derivation(item: Field | Action) -> str:
    assert isinstance(item, Field)
    if item.derive:
        return f"{item.derive}({', '.join(item.of)})"
    return f"history of {item.history_of}" if item.history_of else "previous action"
