"""The page of two policies in the same suite on the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from iql_ros.bundle import Bundle
from iql_ros.bundles.gate_record import GateRecord
from iql_ros.files import write_text
from iql_ros.pages.parts import frame, short, table, tiles
from iql_ros.pages.plots import intervals
from sim.compare import Gap, Paired


def write_comparison(
    out: Path, bundles: tuple[Bundle, Bundle], records: tuple[GateRecord, GateRecord],
    rows: Sequence[Paired],
) -> None:  # fmt: skip
    """Writes the page.

    Args:
        records: of the two runs that `rows` compare.
        rows: of `sim.compare.compare`.
    """
    write_text(out, render_comparison(bundles, records, rows))


def render_comparison(
    bundles: tuple[Bundle, Bundle], records: tuple[GateRecord, GateRecord], rows: Sequence[Paired]
) -> str:
    """The page, see `write_comparison`."""
    names = names_of(*bundles)
    ours, theirs = map(escape, names)
    total = rows[-1]
    gap, low, high = total.gap
    said = [
        f"{escape(name)} is <code>{bundle.digest[:16]}</code> and {record.verdict}"
        for name, bundle, record in zip(names, bundles, records, strict=True)
    ]
    return frame(
        f"{names[0]} and {names[1]}: gate",
        [
            f"<h1>{ours} and {theirs}</h1>",
            f'<p class="note">Both in suite <b>{escape(records[0].bound_to.suite.name)}</b> with '
            f"seed {records[0].seed}: the same starts, noise, faults and machines, so that "
            f"differences are paired. {said[0]}, {said[1]}.</p>",
            tiles(
                {
                    f"{names[0]} succeeds": f"{total.successes[0]} of {total.episodes}",
                    f"{names[1]} succeeds": f"{total.successes[1]} of {total.episodes}",
                    "difference": f"{gap:+.1%}",
                    "95 % interval": f"{low:+.1%} to {high:+.1%}",
                }
            ),
            _verdict(names, total),
            _plot(rows, f"Success rate, {ours} less {theirs}", _SUCCESS, lambda row: row.gap),
            _plot(rows, f"Return, {ours} less {theirs}", _RETURN, lambda row: row.return_gap),
            _plot(
                rows,
                f"Interventions, {ours} less {theirs}",
                _INTERVENTIONS,
                lambda row: row.interventions_gap,
            ),
            _figures(names, rows),
        ],
    )


_SUCCESS = (
    "Share of episodes; intervals for paired shares (Newcombe 1998, method 10). An episode has the "
    "same start in every scenario, so all together count as only so many pairs as there are starts."
)
_RETURN = "Mean over episodes; intervals from drawing them again, all of one start together."
_INTERVENTIONS = (
    "Share of ticks in which the policy's action was changed or replaced; less is better."
)


def _verdict(names: Sequence[str], total: Paired) -> str:
    _, low, high = total.gap
    ours, theirs = map(escape, names)
    if low > 0:
        text, kind = f"{ours} succeeds more often than {theirs}.", ""
    elif high < 0:
        text, kind = f"{theirs} succeeds more often than {ours}.", "look"
    else:
        text, kind = "In success, these episodes do not tell them apart.", "look"
    where = f"in {total.scenario}, {total.episodes} pairs of episodes"
    return f'<div class="verdict {kind}"><h2>{text}</h2><p class="soft">{escape(where)}</p></div>'


def _plot(rows: Sequence[Paired], title: str, note: str, gap: Callable[[Paired], Gap]) -> str:
    drawn = intervals(
        [(row.scenario, dict(zip(("mean", "low", "high"), gap(row), strict=True))) for row in rows],
        best=len(rows) - 1,
    )
    return f'<h2>{title}</h2><p class="note">{note}</p><figure>{drawn}</figure>'


def _figures(names: Sequence[str], rows: Sequence[Paired]) -> str:
    cells = []
    for row in rows:
        gap, low, high = row.gap
        mean, least, most = row.return_gap
        cells.append(
            [
                f'<span class="nw">{escape(row.scenario)}</span>',
                str(row.episodes),
                *map(str, row.successes),
                *map(str, row.only),
                f"{gap:+.1%} ({low:+.1%} to {high:+.1%})",
                f"{short(mean)} ({short(least)} to {short(most)})",
            ]
        )
    ours, theirs = map(escape, names)
    heads = ["scenario", "episodes", ours, theirs, f"only {ours}", f"only {theirs}"]
    heads += ["success, difference", "return, difference"]
    return "<h2>Figures</h2>" + table(heads, cells, numeric=range(1, len(heads)))


def names_of(first: Bundle, second: Bundle) -> tuple[str, str]:
    """Folder names, or as much more of the paths as it takes to tell them apart."""
    ours, theirs = first.path.absolute().parts, second.path.absolute().parts
    for depth in range(1, max(len(ours), len(theirs)) + 1):
        names = "/".join(ours[-depth:]), "/".join(theirs[-depth:])
        if names[0] != names[1]:
            return names
    return str(first.path), f"{second.path} again"
