"""How the warnings say names, shares and numbers."""

from __future__ import annotations

from collections.abc import Iterable

NAMED = 6
"""More names than this are counted."""


def some(names: Iterable[object]) -> str:
    """The names, or the first of them and how many more."""
    listed = [str(name) for name in names]
    rest = len(listed) - NAMED
    return ", ".join(listed[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def share(count: int, of: int) -> str:
    """A count as a percentage."""
    percent = 100 * count / max(of, 1)
    return f"{percent:.1f} %" if percent >= 0.1 else f"{percent:.1g} %"


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def times(count: int) -> str:
    """How often."""
    return "once" if count == 1 else f"{count} times"
