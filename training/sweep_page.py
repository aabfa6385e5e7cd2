"""What a sweep found, as facts and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from iql_ros.pages.parts import frame, short, table, tiles
from iql_ros.pages.plots import intervals
from training.evaluation.page import interval_text
from training.evaluation.verdict import CAVEAT
from training.report.numbers import plain
from training.sweep import Outcome
from training.trial import RUN, Task, TrialResult

SCORE = "fitted Q evaluation at the first steps of all episodes"


def sweep_facts(tasks: Sequence[Task], outcomes: Sequence[Outcome], out: Path) -> dict[str, Any]:
    """Trials by score, settings by the mean score of their seeds, and what failed."""
    trials: list[dict[str, Any]] = [
        {
            "name": task.name,
            "run": str(out / "trials" / task.name / RUN),
            "changes": task.changes,
            "score": asdict(outcome.score),
            "held_out": outcome.held_out,
            "seconds": outcome.seconds,
        }
        for task, outcome in zip(tasks, outcomes, strict=True)
        if isinstance(outcome, TrialResult)
    ]
    failed = [
        {"name": task.name, "changes": task.changes, "reason": outcome.reason}
        for task, outcome in zip(tasks, outcomes, strict=True)
        if not isinstance(outcome, TrialResult)
    ]
    trials.sort(key=lambda trial: -trial["score"]["mean"])
    return plain(
        {
            "format": 1,
            "ranked_by": SCORE,
            "discount": tasks[0].discount,
            "dataset": tasks[0].dataset,
            "dataset_digest": tasks[0].dataset_digest,
            "trials": trials,
            "settings": _settings(trials),
            "failed": failed,
            "caveat": CAVEAT,
        }
    )


def _settings(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Trials that differ by their seed alone, as one: mean, lowest and highest score."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for trial in trials:
        groups.setdefault(setting_name(trial["changes"], but="seed"), []).append(trial)
    scores = {name: [t["score"]["mean"] for t in group] for name, group in groups.items()}
    found = [
        {
            "setting": name or "as configured",
            "seeds": len(of),
            "mean": float(np.mean(of)),
            "low": min(of),
            "high": max(of),
        }
        for name, of in scores.items()
    ]
    return sorted(found, key=lambda setting: -setting["mean"])


def setting_name(changes: Mapping[str, str], but: str = "") -> str:
    """The changes as one line, without that of one key."""
    return ", ".join(f"{key}={value}" for key, value in changes.items() if key != but)


def render_sweep(facts: Mapping[str, Any]) -> str:
    """The page of a sweep."""
    trials, settings, failed = facts["trials"], facts["settings"], facts["failed"]
    parts = [
        f"<h1>Sweep on {escape(Path(facts['dataset']).name)}</h1>",
        f'<p class="note">Ranked by {facts["ranked_by"]}, discount {facts["discount"]:g}. '
        f"{escape(facts['caveat'])}</p>",
        tiles({"trials": str(len(trials)), "failed": str(len(failed))}),
    ]
    if len(settings) < len(trials):
        shown = [(f"{s['setting']} ({s['seeds']} seeds)", s) for s in settings]
        parts.append(
            '<h2>Settings</h2><p class="note">Mean score over seeds; bars from the lowest to the '
            f"highest.</p><figure>{intervals(shown, best=0)}</figure>"
        )
    if trials:
        shown = [(setting_name(t["changes"]), t["score"]) for t in trials]
        losses = sorted({name for trial in trials for name in trial["held_out"]})
        rows = [
            [
                escape(setting_name(trial["changes"])),
                interval_text(trial["score"]),
                *(short(trial["held_out"].get(name)) for name in losses),
                short(trial["seconds"]),
            ]
            for trial in trials
        ]
        heads = ["trial", "score", *map(escape, losses), "seconds"]
        parts += [
            '<h2>Trials</h2><p class="note">Bars are 95 % intervals from drawing episodes again.'
            f"</p><figure>{intervals(shown, best=0)}</figure>",
            table(heads, rows, numeric=range(1, len(heads))),
        ]
    rows = [[escape(setting_name(f["changes"])), escape(f["reason"])] for f in failed]
    if rows:
        parts.append("<h2>Failed</h2>" + table(["trial", "reason"], rows))
    return frame("Sweep", parts)
