"""What every page of HTML is made of: its frame, tables, tiles, numbers.

A page needs nothing but itself. Texts that come from files pass through `escape`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from iql_ros.pages.style import STYLE


def frame(title: str, body: Sequence[str]) -> str:
    """A whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def tiles(figures: Mapping[str, str]) -> str:
    """Large figures in a row."""
    inside = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span class="soft">{escape(name)}</span></div>'
        for name, value in figures.items()
    )
    return f'<div class="tiles">{inside}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already; empty without rows.

    Args:
        heads: one text for each column.
        rows: cells, escaped by the caller.
        numeric: columns to set flush right.
    """
    if not rows:
        return ""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="n">{cell}</{tag}>' if i in numeric else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{cells("th", heads)}</tr>{body}</table></div>'


def short(value: float | None) -> str:
    """Four significant digits, as short as they go."""
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3g}"
