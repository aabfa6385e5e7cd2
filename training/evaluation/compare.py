"""Ranks runs by estimated value; on the same episodes, so that differences are paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iql_ros.errors import DatasetError, IqlRosError
from iql_ros.pages.parts import frame, table, tiles
from iql_ros.pages.plots import intervals
from training.datasets.dataset import Dataset
from training.evaluation.bootstrap import bootstrap_mean
from training.evaluation.fqe import FqeSettings, fit_q
from training.evaluation.judged import Interface, Judged, judged_by, policy_transitions
from training.evaluation.outside import outside_support
from training.evaluation.page import interval_text
from training.evaluation.values import policy_values, recorded_values
from training.evaluation.verdict import CAVEAT, MOST_OUTSIDE
from training.learning.run import Run, load_run
from training.report.numbers import plain

Doubles = NDArray[np.float64]

FORMAT = 1


def compare(
    run_folders: Sequence[Path],
    *,
    discount: float | None = None,
    settings: FqeSettings | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Estimates the value of every run's policy on the same episodes, and ranks them.

    Where all runs hold out the same episodes, these count; otherwise (the seed decides
    which) the first steps of all episodes do.

    Args:
        run_folders: of training runs on one dataset.
        discount: gamma of the estimates; None for the runs' own, or the largest of them.
        settings: of the fitted Q evaluation; one seed for all makes the fits share their draws.
        say: hears what is being done.

    Raises:
        RunError: there is no run.
        DatasetError: they are of different contracts or datasets; names the first difference.
    """
    torch.set_num_threads(1)
    settings = settings or FqeSettings()
    runs = [load_run(folder) for folder in run_folders]
    _require_comparable(runs)
    if discount is None:
        discount = max(run.config.discount for run in runs)
    judged = [judged_by(run) for run in runs]
    starts_of, basis = _common_episodes(judged)
    fitted_on = judged[0].all_episodes
    say("the recorded behaviour")
    behaviour = recorded_values(runs[0], fitted_on, starts_of, discount, settings)
    values = []
    for one in judged:
        say(str(one.run.path))
        q = fit_q(policy_transitions(one.run, fitted_on), discount, settings)
        values.append(policy_values(q, one.run, starts_of))
    order = sorted(range(len(runs)), key=lambda i: -values[i].mean())
    best = values[order[0]]
    rows = [_row(judged[i], values[i], best, behaviour) for i in order]
    return plain(
        {
            "format": FORMAT,
            "ranked_by": "fitted Q evaluation",
            "dataset_digest": runs[0].dataset_digest,
            "judged_on": basis,
            "episodes": len(starts_of.episodes[0]),
            "discount": discount,
            "behaviour": asdict(bootstrap_mean(behaviour)),
            "runs": rows,
            "caveat": CAVEAT,
        }
    )


def _row(judged: Judged, values: Doubles, best: Doubles, behaviour: Doubles) -> dict[str, Any]:
    """One run's figures; values are (M, E), of the run, of the best run and of the behaviour."""
    run = judged.run
    to_best, gain = bootstrap_mean(values - best), bootstrap_mean(values - behaviour)
    outside = outside_support(judged)["policy_pairs"]
    objections = []
    if gain.is_negative:
        objections.append("is estimated to earn less than what was recorded")
    if outside > MOST_OUTSIDE:
        objections.append(f"has {outside:.0%} of its steps outside the data's support")
    return {
        "run": str(run.path),
        "algorithm": run.config.algorithm,
        "step": run.step,
        "seed": run.config.seed,
        "value": asdict(bootstrap_mean(values)),
        "gain": asdict(gain),
        "to_best": asdict(to_best),
        "as_good_as_best": not to_best.is_negative,
        "outside_support": outside,
        "objections": objections,
    }


def render_comparison(facts: dict[str, Any]) -> str:
    """The page of a comparison."""
    rows = facts["runs"]
    shown = [(row["run"], row["value"]) for row in rows]
    cells = [
        [
            str(i + 1),
            escape(row["run"]),
            escape(f"{row['algorithm']}, step {row['step']:,}, seed {row['seed']}"),
            interval_text(row["value"]),
            interval_text(row["to_best"]) if i else "-",
            interval_text(row["gain"]),
            f"{row['outside_support']:.1%}",
            escape("; ".join(row["objections"])),
        ]
        for i, row in enumerate(rows)
    ]
    heads = ["", "run", "", "value", "less the best", "less the behaviour", "outside", "objections"]
    level = sum(row["as_good_as_best"] for row in rows)
    return frame(
        "Comparison of runs",
        [
            "<h1>Comparison of runs</h1>",
            f'<p class="note">Ranked by {facts["ranked_by"]}, discount {facts["discount"]:g}, at '
            f"the first steps of {escape(facts['judged_on'])}. Differences are paired by episode; "
            "intervals cover which episodes were recorded, not the estimator's bias. "
            f"{escape(facts['caveat'])}</p>",
            tiles({"runs": str(len(rows)), "at the top, not told apart": str(level)}),
            f"<figure>{intervals([*shown, ('recorded behaviour', facts['behaviour'])], best=0)}"
            "</figure>",
            table(heads, cells, numeric=(3, 4, 5, 6)),
        ],
    )


def _require_comparable(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise IqlRosError(f"{len(runs)} run given, a comparison needs two or more")
    first = runs[0]
    for other in runs[1:]:
        difference = Interface.of_run(first).first_difference(Interface.of_run(other))
        if difference is None and first.dataset_digest != other.dataset_digest:
            difference = (
                f"dataset: {first.dataset_digest[:16]}… ({first.dataset_path}) against "
                f"{other.dataset_digest[:16]}… ({other.dataset_path})"
            )
        if difference is not None:
            raise DatasetError(
                f"runs {first.path} and {other.path} cannot be compared, they differ in "
                f"{difference}: train both on one dataset"
            )


def _common_episodes(judged: Sequence[Judged]) -> tuple[Dataset, str]:
    episodes = [one.episodes for one in judged]
    starts = [part.observations[part.episodes[0]] for part in episodes]
    if all(np.array_equal(starts[0], other) for other in starts[1:]):
        return episodes[0], judged[0].basis
    everything = judged[0].all_episodes
    count = len(everything.episodes[0])
    return everything, (
        f"all {count} episodes, of which each run was trained on most: the runs hold out different "
        f"ones"
    )
