"""The report of a gate as one page of HTML that needs nothing but itself, its films included."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from iql_ros.bundle import Bundle
from iql_ros.bundles.gate_record import Criterion, GateRecord
from iql_ros.files import write_text
from iql_ros.pages.parts import frame, short, table, tiles
from sim.film import Filmed, film_apart
from sim.gate import MakeController, Run
from sim.report_facts import facts_of, failed_criteria
from sim.report_figures import distributions, trajectories
from sim.report_plots import Rate, rates

Facts = Mapping[str, Any]


def write_report(
    out: Path,
    bundle: Bundle,
    record: GateRecord,
    run: Run,
    make_controller: MakeController,
    *,
    command: str,
    films: bool = True,
) -> str | None:
    """Writes the page of a gate; films the usual and the worst episode if rendering is there.

    Args:
        out: the HTML file.
        command: runs this suite with this seed; `--scenario X --episode N` is added to it.
        films: whether to film.

    Returns:
        Why a film is missing; None if none is.
    """
    facts = facts_of(bundle, record, run, make_controller, command=command)
    shown: dict[str, Facts] = {"usual": facts["usual"]} if films else {}
    if films and facts["worst"]:
        shown["worst"] = facts["worst"][0]
    filmed = {
        kind: film_apart(bundle.path, run.suite, run.seed, of["scenario"], of["episode"])
        for kind, of in shown.items()
    }
    write_text(out, render_gate(facts, filmed))
    return next((film.missing for film in filmed.values() if film.missing is not None), None)


def render_gate(facts: Facts, films: Mapping[str, Filmed]) -> str:
    """The page.

    Args:
        facts: of `report_facts.facts_of`.
        films: of the episodes `usual` and `worst`.
    """
    record = GateRecord.model_validate(facts["record"], strict=False)
    return frame(
        f"{facts['bundle']}: gate",
        [
            _head(facts, record),
            _verdict(record),
            _success(record),
            _films(facts, films),
            _worst(facts),
            _criteria(facts, record),
            trajectories(facts),
            distributions(facts),
            _bindings(record),
        ],
    )


def _head(facts: Facts, record: GateRecord) -> str:
    bound = record.bound_to
    passed = sum(scenario.passed for scenario in record.scenarios)
    criteria = [c for scenario in record.scenarios for c in scenario.criteria]
    return (
        f"<h1>{escape(facts['bundle'])}: the gate</h1>"
        f'<p class="note">policy <code>{bound.policy[:16]}</code> '
        f"({escape(facts['provenance']['algorithm'])}) for robot <b>{escape(facts['robot'])}</b>, "
        f"suite <b>{escape(bound.suite.name)}</b>, world <b>{escape(bound.world.name)}</b>, seed "
        f"{record.seed}, iql_ros {escape(bound.software['iql_ros'])}. "
        f"{escape(facts['suite_description'])}</p>"
        + tiles(
            {
                "verdict": record.verdict,
                "scenarios passed": f"{passed} of {len(record.scenarios)}",
                "criteria that hold": f"{sum(c.passed for c in criteria)} of {len(criteria)}",
                "episodes": f"{record.episodes:,}",
            }
        )
    )


def _verdict(record: GateRecord) -> str:
    caveat = (
        '<p class="soft">This verdict is of this policy, contract, envelope, suite, world and '
        "version of iql_ros, in a model of the robot. The model may be wrong, and a suite asks "
        "only what it asks.</p>"
    )
    if record.verdict == "passed":
        return f'<div class="verdict"><h2>Passed: every criterion holds.</h2>{caveat}</div>'
    failed = failed_criteria(record.scenarios)
    items = "".join(f"<li>{escape(text)}</li>" for text in failed)
    count = "one criterion does" if len(failed) == 1 else f"{len(failed)} criteria do"
    return (
        f'<div class="verdict veto"><h2>Failed: {count} not hold.</h2>'
        f"<ol>{items}</ol>{caveat}</div>"
    )


def _success(record: GateRecord) -> str:
    rows = [
        Rate(
            scenario.name,
            criterion.count / criterion.of,
            *criterion.interval,
            criterion.bound,
            criterion.passed,
            f"{criterion.count} of {criterion.of}",
        )
        for scenario in record.scenarios
        for criterion in scenario.criteria
        if criterion.count is not None and criterion.of and criterion.interval
    ]
    if not rows:
        return ""
    return (
        '<h2>Success</h2><p class="note">Share of episodes that succeeded, its 95 % interval, and '
        "the bound (dashed) that the interval's lower end has to keep. Scenarios that ask for no "
        f"success are left out.</p><figure>{rates(rows)}</figure>"
    )


def _criteria(facts: Facts, record: GateRecord) -> str:
    described = {scenario["name"]: scenario["description"] for scenario in facts["scenarios"]}
    rows = [
        [
            f'<b class="nw">{escape(scenario.name)}</b><br>'
            f'<span class="soft">{escape(described[scenario.name])}</span>',
            str(scenario.episodes),
            '<b class="good">passed</b>' if scenario.passed else '<b class="bad">failed</b>',
            "".join(map(_chip, scenario.criteria)),
        ]
        for scenario in record.scenarios
    ]
    return "<h2>Scenarios</h2>" + table(
        ["scenario", "episodes", "", "criteria: what was judged, and its bound"], rows, numeric=(1,)
    )


def _chip(criterion: Criterion) -> str:
    judged = f"<b>{short(criterion.judged)}</b>"
    if criterion.interval is not None:
        low, high = criterion.interval
        judged = f"<b>{low:.3f}</b> to {high:.3f}"
    if criterion.count is not None:
        of = f" of {criterion.of:,}" if criterion.of else ""
        judged += f" ({criterion.count:,}{of})"
    sign = "≥" if criterion.rule == "at_least" else "≤"
    unit = f" {escape(criterion.unit)}" if criterion.unit else ""
    return (
        f'<span class="chip {"holds" if criterion.passed else "breaks"}">'
        f"{escape(criterion.name)} {judged}, {sign} {short(criterion.bound)}{unit}</span>"
    )


def _films(facts: Facts, films: Mapping[str, Filmed]) -> str:
    if not films:
        return ""
    figures = []
    for kind, film in films.items():
        of = facts["usual"] if kind == "usual" else facts["worst"][0]
        what = f"{kind}: {escape(of['scenario'])}, episode {of['episode']}"
        why = f" · {escape(of['why'])}" if "why" in of else " · median return"
        if film.mp4 is None:
            figures.append(
                f'<figure><header><b>{what}</b></header><p class="note">No film: '
                f"{escape(film.missing or '')}</p></figure>"
            )
            continue
        data = base64.b64encode(film.mp4).decode()
        figures.append(
            f"<figure><header><b>{what}</b></header>"
            '<video class="film" autoplay loop muted playsinline controls '
            f'src="data:video/mp4;base64,{data}"></video>'
            f"<figcaption>{why.removeprefix(' · ')}</figcaption></figure>"
        )
    return f'<h2>Films</h2><div class="pair">{"".join(figures)}</div>'


def _worst(facts: Facts) -> str:
    rows = [
        [
            f'<span class="nw">{escape(one["scenario"])}</span>',
            str(one["episode"]),
            escape(one["why"]),
            f"<code>{escape(one['command'])}</code>",
        ]
        for one in facts["worst"]
    ]
    return (
        '<h2>Worst episodes</h2><p class="note">Each command plays its episode alone, to the bit; '
        "with <code>--viewer</code> in MuJoCo's viewer.</p>"
        + table(["scenario", "episode", "what", "replay"], rows, numeric=(1,))
    )


def _bindings(record: GateRecord) -> str:
    bound = record.bound_to
    rows = [
        ["policy.onnx", f"<code>{bound.policy}</code>"],
        ["contract", f"<code>{bound.contract}</code>"],
        ["envelope", f"<code>{bound.envelope}</code>"],
        ["bundle", f"<code>{record.bundle_digest}</code>"],
        [f"suite {escape(bound.suite.name)}", f"<code>{bound.suite.sha256}</code>"],
        [f"world {escape(bound.world.name)}", f"<code>{bound.world.sha256}</code>"],
        ["software", escape(", ".join(f"{k} {v}" for k, v in bound.software.items()))],
        ["backend", escape(bound.backend)],
    ]
    return "<h2>Bound to</h2>" + table(["what", "SHA-256"], rows)
