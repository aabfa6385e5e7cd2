"""Two policies in the same suite on the same seeds: facts with paired intervals, and their page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.bundle import Bundle
from iql_ros.bundles.gate_record import GateRecord
from iql_ros.files import write_text
from iql_ros.pages.parts import frame, short, table, tiles
from iql_ros.pages.plots import intervals
from iql_ros.statistics import paired_interval
from sim.gate import Run
from sim.loop import Episode

Facts = Mapping[str, Any]
DRAWS = 2000
POOLED = "all that ask for success"


def compare(
    first: tuple[Bundle, GateRecord, Run], second: tuple[Bundle, GateRecord, Run]
) -> dict[str, Any]:
    """Sets two runs of one suite beside each other.

    Returns:
        Facts as JSON has them: `names`, `verdicts`, and `rows`, one for each scenario and one for
        all scenarios that ask for success together; differences are first less second.
    """
    (bundle, record, run), (other_bundle, other_record, other_run) = first, second
    if (run.suite.digest, run.seed) != (other_run.suite.digest, other_run.seed):
        raise ValueError("only runs of the same suite with the same seed can be paired")
    rows = []
    pooled: list[tuple[Episode, Episode]] = []
    for name, scenario in run.suite.scenarios.items():
        pairs = list(zip(run.episodes[name], other_run.episodes[name], strict=True))
        rows.append(_row(name, pairs))
        if scenario.must.success is not None:
            pooled += pairs
    if pooled:
        rows.append(_row(POOLED, pooled))
    return {
        "names": _names(bundle, other_bundle),
        "digests": [bundle.digest, other_bundle.digest],
        "verdicts": [record.verdict, other_record.verdict],
        "suite": run.suite.suite,
        "seed": run.seed,
        "rows": rows,
    }


def write_comparison(out: Path, facts: Facts) -> None:
    """Writes the page."""
    write_text(out, render_comparison(facts))


def render_comparison(facts: Facts) -> str:
    """The page of facts, as `compare` returns them."""
    ours, theirs = map(escape, facts["names"])
    total = next((row for row in facts["rows"] if row["name"] == POOLED), facts["rows"][0])
    return frame(
        f"{facts['names'][0]} and {facts['names'][1]}: gate",
        [
            f"<h1>{ours} and {theirs}</h1>",
            f'<p class="note">Both in suite <b>{escape(facts["suite"])}</b> with seed '
            f"{facts['seed']}: the same starts, noise, faults and machines, so that differences "
            f"are paired. {ours} is <code>{facts['digests'][0][:16]}</code> and "
            f"{facts['verdicts'][0]}, {theirs} is <code>{facts['digests'][1][:16]}</code> and "
            f"{facts['verdicts'][1]}.</p>",
            tiles(
                {
                    f"{facts['names'][0]} succeeds": f"{total['successes'][0]} of {total['n']}",
                    f"{facts['names'][1]} succeeds": f"{total['successes'][1]} of {total['n']}",
                    "difference": f"{total['success']['mean']:+.1%}",
                    "95 % interval": f"{total['success']['low']:+.1%} to "
                    f"{total['success']['high']:+.1%}",
                }
            ),
            _verdict(facts, total),
            _plot(facts, "success", f"Success rate, {ours} less {theirs}", _SUCCESS),
            _plot(facts, "return", f"Return of an episode, {ours} less {theirs}", _RETURN),
            _plot(facts, "interventions", f"Interventions, {ours} less {theirs}", _INTERVENTIONS),
            _counts(facts),
        ],
    )


_SUCCESS = (
    "Share of episodes; intervals for paired shares (Newcombe 1998, method 10). An episode has the "
    "same start in every scenario, so all together count as only so many pairs as there are starts."
)
_RETURN = (
    "Mean of the differences; intervals from drawing the episodes again, all of a start together."
)
_INTERVENTIONS = (
    "Share of ticks in which the policy's action was changed or replaced; less is better."
)


def _verdict(facts: Facts, total: Facts) -> str:
    ours, theirs = map(escape, facts["names"])
    low, high = total["success"]["low"], total["success"]["high"]
    if low > 0:
        text, kind = f"{ours} succeeds more often than {theirs}.", ""
    elif high < 0:
        text, kind = f"{theirs} succeeds more often than {ours}.", "look"
    else:
        text, kind = "In success, these episodes do not tell them apart.", "look"
    where = f"in {total['name']}, {total['n']} pairs of episodes"
    return f'<div class="verdict {kind}"><h2>{text}</h2><p class="soft">{escape(where)}</p></div>'


def _plot(facts: Facts, key: str, title: str, note: str) -> str:
    rows = [(row["name"], row[key]) for row in facts["rows"]]
    drawn = intervals(rows, best=len(rows) - 1)
    return f'<h2>{title}</h2><p class="note">{note}</p><figure>{drawn}</figure>'


def _counts(facts: Facts) -> str:
    ours, theirs = map(escape, facts["names"])
    rows = [
        [
            escape(row["name"]),
            str(row["n"]),
            *(str(row[key]) for key in ("both", "first", "second", "neither")),
            _text(row["success"], percent=True),
            _text(row["return"], percent=False),
        ]
        for row in facts["rows"]
    ]
    heads = ["scenario", "episodes", "both succeed", f"only {ours}", f"only {theirs}", "neither"]
    heads += ["success", "return"]
    return "<h2>Figures</h2>" + table(heads, rows, numeric=range(1, len(heads)))


def _text(interval: Mapping[str, float], *, percent: bool) -> str:
    if percent:
        return f"{interval['mean']:+.1%} ({interval['low']:+.1%} to {interval['high']:+.1%})"
    return f"{short(interval['mean'])} ({short(interval['low'])} to {short(interval['high'])})"


def _row(name: str, pairs: Sequence[tuple[Episode, Episode]]) -> dict[str, Any]:
    won = np.array([[e.outcome.success for e in pair] for pair in pairs])
    starts = np.array([ours.outcome.episode for ours, _ in pairs])
    counts = {
        "both": int((won[:, 0] & won[:, 1]).sum()),
        "first": int((won[:, 0] & ~won[:, 1]).sum()),
        "second": int((~won[:, 0] & won[:, 1]).sum()),
        "neither": int((~won[:, 0] & ~won[:, 1]).sum()),
    }
    returns = [ours.outcome.total_reward - theirs.outcome.total_reward for ours, theirs in pairs]
    share = len(set(starts.tolist())) / len(pairs)
    low, high = paired_interval(**{key: share * count for key, count in counts.items()})
    return {
        "name": name,
        "n": len(pairs),
        "successes": won.sum(axis=0).tolist(),
        **counts,
        "success": {
            "mean": (counts["first"] - counts["second"]) / len(pairs),
            "low": low,
            "high": high,
        },
        "return": _mean(returns, starts),
        "interventions": _mean([a.interventions - b.interventions for a, b in pairs], starts),
    }


def _mean(differences: Sequence[float], starts: NDArray[np.int64]) -> dict[str, float]:
    """Mean and 95 % interval, from drawing the starts again with all their episodes."""
    _, of = np.unique(starts, return_inverse=True)
    sums, counts = np.bincount(of, differences), np.bincount(of)
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return {"mean": float(np.mean(differences)), "low": low, "high": high}


def _names(first: Bundle, second: Bundle) -> list[str]:
    """Folder names, or as much more of the paths as it takes to tell them apart."""
    ours, theirs = first.path.absolute().parts, second.path.absolute().parts
    for depth in range(1, max(len(ours), len(theirs)) + 1):
        names = ["/".join(ours[-depth:]), "/".join(theirs[-depth:])]
        if names[0] != names[1]:
            return names
    return [str(first.path), str(second.path)]
