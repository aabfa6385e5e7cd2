"""From rows of topic values to named fields, for a whole log and for one tick alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        places: where all wanted fields are message fields, the place of each of their values in
            the topics' rows put end to end; None where one is derived or remembered.
    """

    def __init__(self, contract: Contract, names: Sequence[str]) -> None:
        """Plans the fields `names` of `contract`."""
        self.contract = contract
        self.names = tuple(names)
        self.paths: dict[str, list[str]] = {}
        self._slices: dict[str, tuple[str, slice]] = {}
        self._derived: list[tuple[str, Feature, Sequence[str]]] = []
        widths: dict[str, int] = {}
        for name in contract.closure(self.names):
            field = contract.fields[name]
            if field.topic is not None and field.path is not None:
                start = widths.get(field.topic, 0)
                stop = start + len(component_labels(field.path))
                widths[field.topic] = stop
                self.paths.setdefault(field.topic, []).append(field.path)
                self._slices[name] = (field.topic, slice(start, stop))
            elif field.derive is not None:
                self._derived.append((name, FEATURES[field.derive], field.of))
        self.places = self._find_places()

    def _find_places(self) -> NDArray[np.intp] | None:
        if any(name not in self._slices for name in self.names):
            return None
        starts, total = {}, 0
        for alias, paths in self.paths.items():
            starts[alias] = total
            total += sum(len(component_labels(path)) for path in paths)
        parts = [self._slices[name] for name in self.names]
        return np.concatenate([starts[a] + np.arange(p.start, p.stop) for a, p in parts])

    def compute(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Message and derived fields of N instants.

        Args:
            rows: by topic alias, what its message held, shape (N, width of its paths).

        Returns:
            By field name, shape (N, components); memory fields are not among them.
        """
        values = {name: rows[alias][:, part] for name, (alias, part) in self._slices.items()}
        for name, feature, operands in self._derived:
            values[name] = feature(*[values[operand] for operand in operands])
        return values
