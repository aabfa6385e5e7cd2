"""From rows of topic values to named fields: `FieldPlan` for a whole log, `Frame` for a tick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.contracts.paths import component_labels
from iql_ros.features import FEATURES, Feature

Array = NDArray[np.float64]


class FieldPlan:
    """Which paths are read from which topic, and how the wanted fields come from them.

    Attributes:
        contract: the contract it was made for.
        names: the wanted fields in order, memory fields (history, previous action) included.
        paths: by topic alias, the paths whose components make up that topic's row.
        widths: by topic alias, how many values that row has.
        parts: by name of a message field, the alias of its topic and its place in that row.
        derived: name, feature and operands of each derived field, after its operands.
    """

    def __init__(self, contract: Contract, names: Sequence[str]) -> None:
        """Plans the fields `names` of `contract`."""
        self.contract = contract
        self.names = tuple(names)
        self.paths: dict[str, list[str]] = {}
        self.parts: dict[str, tuple[str, slice]] = {}
        self.derived: list[tuple[str, Feature, Sequence[str]]] = []
        self.widths: dict[str, int] = {}
        for name in contract.closure(self.names):
            field = contract.fields[name]
            if field.topic is not None and field.path is not None:
                start = self.widths.get(field.topic, 0)
                stop = start + len(component_labels(field.path))
                self.widths[field.topic] = stop
                self.paths.setdefault(field.topic, []).append(field.path)
                self.parts[name] = (field.topic, slice(start, stop))
            elif field.derive is not None:
                self.derived.append((name, FEATURES[field.derive], field.of))

    def compute(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Message and derived fields of N instants.

        Args:
            rows: by topic alias, what its message held, shape (N, width of its paths).

        Returns:
            By field name, shape (N, components); memory fields are not among them.
        """
        values = {name: rows[alias][:, part] for name, (alias, part) in self.parts.items()}
        for name, feature, operands in self.derived:
            values[name] = feature(*[values[operand] for operand in operands])
        return values


class Frame:
    """The fields of one instant in one row of memory: as `FieldPlan.compute` gives them, faster.

    Attributes:
        values: of all message and derived fields, shape (V,).
        rows: by topic alias, where the values of its message belong, shape (width of its paths,).
        fields: by name, the values of a message or derived field, shape (components,).
    """

    def __init__(self, plan: FieldPlan) -> None:
        """Lays out the fields of `plan`; all are NaN."""
        self._plan = plan
        widths = [*plan.widths.values()]
        widths += [len(plan.contract.components(name)) for name, _, _ in plan.derived]
        self._ends = list(accumulate(widths))
        self.values = np.full(sum(widths), np.nan)
        self.rows, self.fields = self._parts(self.values)
        self._derived = [
            (self.fields[name], feature.compute, [self.fields[operand][None] for operand in of])
            for name, feature, of in plan.derived
        ]

    def derive(self) -> None:
        """Computes the derived fields; numpy's warnings are the caller's to silence."""
        for field, compute, operands in self._derived:
            field[:] = compute(*operands)[0]

    def places(self, names: Sequence[str]) -> NDArray[np.intp]:
        """Where in `values` those of some fields are, one field after the other."""
        _, places = self._parts(np.arange(len(self.values)))
        return np.concatenate([np.zeros(0, np.intp), *(places[name] for name in names)])

    def _parts(self, row: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """The parts of a row, shape (V,), that are a topic's, by alias, and a field's, by name."""
        plan, pieces = self._plan, iter(np.split(row, self._ends))
        rows = {alias: next(pieces) for alias in plan.paths}
        fields = {name: rows[alias][part] for name, (alias, part) in plan.parts.items()}
        return rows, fields | {name: next(pieces) for name, _, _ in plan.derived}
