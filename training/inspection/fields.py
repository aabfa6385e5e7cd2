"""From the values of a topic to the fields of a contract: which vary, their range and unit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from iql_ros.wire import Encoding, Reader, make_types
from training.inspection.choice import wanted
from training.inspection.facts import TopicFacts
from training.inspection.payloads import Numbers
from training.inspection.proposal import Part
from training.logs import Log

Array = NDArray[np.float64]
Times = NDArray[np.int64]

MOST_ELEMENTS = 36
"""Of a scan or a map so many elements are observed, evenly spread."""
WIDEN = 0.1
QUANTILES = (0.001, 0.999)

_KINDS = (
    ("velocity", re.compile(r"velocit|vel$|speed|linear|angular|twist")),
    ("effort", re.compile(r"effort|torque|force|thrust|wrench")),
    ("position", re.compile(r"position")),
)
_UNITS = (
    (re.compile(r"acceleration"), "m/s^2"),
    (re.compile(r"angular"), "rad/s"),
    (re.compile(r"linear|speed"), "m/s"),
    (re.compile(r"torque"), "N m"),
    (re.compile(r"force"), "N"),
    (re.compile(r"theta|yaw|heading|steering_angle$"), "rad"),
    (re.compile(r"position|translation|point|ranges|^range$|altitude"), "m"),
    (re.compile(r"latitude|longitude"), "deg"),
    (re.compile(r"voltage"), "V"),
    (re.compile(r"current"), "A"),
)
_JOINT_UNITS = {"position": ("rad", "m"), "velocity": ("rad/s", "m/s"), "effort": ("N m", "N")}
"""Of a joint that turns, and of one that slides."""
_ANGLES = {"theta", "yaw", "heading"}


@dataclass(frozen=True)
class Values:
    """Numbers of one topic in all its messages: times (N,), ascending, and rows (N, F)."""

    numbers: Numbers
    t_ns: Times
    rows: Array


def read_values(log: Log, topic: TopicFacts, given: Mapping[str, str]) -> list[Values]:
    """All values of a topic, of long sequences every n-th element; (N, F) in all is held."""
    numbers = [_thinned(part) for part in wanted(topic)]
    found = log.topics[topic.name]
    embedded = {found.msgtype: found.definition} if found.definition else {}
    types = make_types({**given, **embedded}, ros1=found.encoding == "ros1")
    paths = [part.path() for part in numbers]
    reader = Reader(types, found.msgtype, paths, cast(Encoding, found.encoding))
    times, rows = [np.zeros(0, np.int64)], [np.zeros((0, reader.width))]
    for block in log.blocks([topic.name]):
        values, present = reader.read_many(block.payloads)
        times.append(block.t_ns[present])
        rows.append(values[present])
    t_ns = np.concatenate(times)
    order = np.argsort(t_ns, kind="stable")
    t_ns, everything = t_ns[order], np.concatenate(rows)[order]
    borders = np.cumsum([len(part.parts) for part in numbers])[:-1]
    split = np.split(everything, borders, axis=1)
    return [Values(part, t_ns, own) for part, own in zip(numbers, split, strict=True)]


def _thinned(numbers: Numbers) -> Numbers:
    step = -(-len(numbers.parts) // MOST_ELEMENTS)
    return Numbers(numbers.where, numbers.owner, numbers.parts[::step], numbers.is_sequence)


def varies(values: Values) -> bool:
    """Whether any of the finite numbers changes."""
    return bool(_varying(values).any())


def _finite(values: Values) -> NDArray[np.bool_]:
    finite = np.asarray(np.isfinite(values.rows).all(axis=0))
    return finite if len(values.rows) else np.zeros_like(finite)


def _varying(values: Values) -> NDArray[np.bool_]:
    first = values.rows[:1]
    return _finite(values) & np.asarray((values.rows != first).any(axis=0))


def make_part(values: Values, period_s: float, *, constant_too: bool) -> Part | None:
    """The field of these numbers, without those that never change or are not finite.

    Args:
        values: of one topic.
        period_s: of a tick; a change is taken to last at least so long.
        constant_too: keep what never changes, as nothing in the log does.
    """
    numbers = values.numbers
    finite, varying = _finite(values), _varying(values)
    keep = finite if constant_too or (numbers.is_quaternion and varying.any()) else varying
    if not keep.any() or (numbers.is_quaternion and not keep.all()):
        return None
    chosen = np.flatnonzero(keep).tolist()
    rows = values.rows[:, keep]
    low, high = _range(rows)
    if numbers.is_sequence and all(part.isdigit() for part in numbers.parts):
        # The beams of a scan are alike; a pair for each would bury the contract.
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    unit, unit_sliding = _units(numbers, chosen)
    return Part(
        name=_name(numbers, chosen),
        path=numbers.path(chosen),
        unit=unit,
        unit_sliding=unit_sliding,
        kind=_kind(numbers, chosen),
        low=low,
        high=high,
        slew=_slew(values.t_ns, rows, period_s),
        middle=np.median(rows, axis=0),
        derive=_derivation(numbers, chosen, rows),
        notes=tuple(_notes(numbers, finite, varying, keep)),
    )


def constants_of(values: Values) -> dict[str, float]:
    """Paths of numbers that never change and are not zero, with their value."""
    still = _finite(values) & ~_varying(values)
    return {
        values.numbers.path([i]): float(values.rows[0, i])
        for i in np.flatnonzero(still).tolist()
        if values.rows[0, i] != 0
    }


def _notes(
    numbers: Numbers,
    finite: NDArray[np.bool_],
    varying: NDArray[np.bool_],
    keep: NDArray[np.bool_],
) -> Iterator[str]:
    """What a person must know of the numbers kept, and of those left out."""
    texts = (
        (keep & ~varying & (not numbers.is_quaternion), "never changes, nor does anything else"),
        (finite & ~keep, "never changes in this log: left out"),
        (~finite, "is NaN or infinite at times: left out"),
    )
    for which, why in texts:
        if which.any():
            yield f"{numbers.path(np.flatnonzero(which).tolist())} {why}"
    if "[0]." in numbers.where:
        yield f"{numbers.where}: only the first point of each trajectory"


def _range(rows: Array) -> tuple[Array, Array]:
    """0.1 % and 99.9 % quantiles, widened and rounded outward to three digits of the span."""
    low, high = np.quantile(rows, QUANTILES, axis=0)
    low = np.where(low == high, rows.min(axis=0), low)
    high = np.where(low == high, rows.max(axis=0), high)
    span = high - low
    span = np.where(span > 0, span, np.maximum(np.abs(high), 1.0))
    grain = 10.0 ** (np.floor(np.log10(span)) - 2)
    low = np.floor((low - WIDEN * span) / grain) * grain
    return low, np.ceil((high + WIDEN * span) / grain) * grain


def _slew(t_ns: Times, rows: Array, period_s: float) -> Array:
    if len(rows) < 2:
        return np.zeros(rows.shape[1])
    lasted_s = np.maximum(np.diff(t_ns) / 1e9, period_s)
    rates = np.abs(np.diff(rows, axis=0)) / lasted_s[:, None]
    largest: Array = np.quantile(rates, QUANTILES[1], axis=0)
    return largest


def _derivation(numbers: Numbers, chosen: Sequence[int], rows: Array) -> str:
    if numbers.is_quaternion:
        is_flat = np.abs(rows[:, :2]).max(initial=0.0) < 1e-6
        return "yaw" if is_flat else "rot6d"
    return "sincos" if {numbers.parts[i] for i in chosen} <= _ANGLES else ""


def _words(numbers: Numbers, chosen: Sequence[int]) -> str:
    parts = [] if numbers.is_sequence else [numbers.parts[i] for i in chosen]
    return ".".join([numbers.where, *parts]).lower()


def _name(numbers: Numbers, chosen: Sequence[int]) -> str:
    """The last word of the way, with the part's where there is but one; "" at the root."""
    last = re.sub(r"\W+", "_", re.sub(r"\[.*?\]", "", numbers.where).rpartition(".")[2])
    if numbers.is_sequence or len(chosen) > 1:
        return last
    return f"{last}_{numbers.parts[chosen[0]]}".strip("_")


def _units(numbers: Numbers, chosen: Sequence[int]) -> tuple[str, str]:
    """The unit; and of joints, the one that it is if they slide. "" where nothing tells."""
    words = _words(numbers, chosen)
    if numbers.is_quaternion:
        return "", ""
    if numbers.is_sequence and numbers.owner.rpartition("/")[2].startswith("Joint"):
        return _JOINT_UNITS.get(_kind(numbers, chosen), ("", ""))
    if "angular_acceleration" in words or ("Accel" in numbers.owner and "angular" in words):
        return "rad/s^2", ""
    return next((unit for pattern, unit in _UNITS if pattern.search(words)), ""), ""


def _kind(numbers: Numbers, chosen: Sequence[int]) -> str:
    words = _words(numbers, chosen)
    return next((kind for kind, pattern in _KINDS if pattern.search(words)), "")


def rounded_up(value: float) -> float:
    """The next number of two digits: 0.0333 becomes 0.034."""
    grain = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return float(f"{math.ceil(value / grain - 1e-9) * grain:.12g}")
