"""The page of one run's evaluation: HTML that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from iql_ros.pages.parts import frame, short, table, tiles
from iql_ros.pages.plots import curves, intervals

Facts = Mapping[str, Any]

CURVES = {
    "actor_loss": "How well the policy fits the (weighted) actions. Rising held-out loss with "
    "falling training loss: overfitting.",
    "critic_loss": "Squared temporal-difference error. High in training: underfitting.",
    "value_loss": "How far V is from its expectile.",
    "value": "Mean V on held-out states. Rising and then falling: overfitting.",
}


def render_evaluation(facts: Facts) -> str:
    """The page of facts, as `evaluate` returns them or as they were read from their JSON."""
    return frame(
        f"{facts['run']}: evaluation",
        [
            _head(facts),
            _verdict(facts),
            _value(facts),
            _calibration(facts),
            _training(facts),
            _actions(facts),
            _settings(facts),
        ],
    )


def interval_text(interval: Mapping[str, float] | None) -> str:
    """`mean (low to high)`."""
    if interval is None:
        return "-"
    return f"{short(interval['mean'])} ({short(interval['low'])} to {short(interval['high'])})"


def _head(facts: Facts) -> str:
    value = facts["value"]
    return (
        f"<h1>{escape(facts['run'])}</h1>"
        f'<p class="note">{escape(facts["algorithm"])}, step {facts["step"]:,} of '
        f"{facts['steps']:,}, judged on {escape(facts['judged_on'])}; discount "
        f"{facts['discount']:g}; dataset <code>{escape(facts['dataset_digest'][:16])}</code></p>"
        + tiles(
            {
                "estimated value": short(value["policy"]["mean"]),
                "of what was recorded": short(value["behaviour"]["mean"]),
                "episodes": f"{facts['episodes']:,}",
                "from recorded action": f"{facts['actions']['to_recorded']:.1%} of range",
                "policy outside support": f"{facts['outside']['policy_pairs']:.1%} of steps",
            }
        )
    )


def _verdict(facts: Facts) -> str:
    is_veto = facts["verdict"] == "veto"
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in facts["reasons"])
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in facts["remarks"])
    looks = f'<p class="soft">To look at:</p><ol>{remarks}</ol>' if remarks else ""
    kind = "veto" if is_veto else ("look" if remarks else "")
    return (
        f'<div class="verdict {kind}"><h2>{"Veto" if is_veto else "No objection"}</h2>'
        + (f"<ol>{reasons}</ol>" if is_veto else "")
        + f'{looks}<p class="soft">{escape(facts["caveat"])}</p></div>'
    )


def _value(facts: Facts) -> str:
    value = facts["value"]
    rows = [
        ("policy, fitted Q evaluation", value["policy"]),
        ("recorded behaviour, fitted Q evaluation", value["behaviour"]),
        ("recorded behaviour, its returns", value["recorded_return"]),
        ("policy less behaviour", value["gain"]),
    ]
    robust = value["doubly_robust"]
    if robust is None:
        note = f"No doubly robust estimate: {escape(value['doubly_robust_missing'])}."
    else:
        rows.insert(1, ("policy with its noise, doubly robust", robust["value"]))
        use = "" if value["doubly_robust_usable"] else ": too few, disregard it"
        note = (
            f"The doubly robust estimate rests in effect on "
            f"{robust['effective_episodes']:.0f} of {facts['episodes']} episodes{use}."
        )
    return (
        '<h2>Value</h2><p class="note">Discounted return from the first step of an episode, with '
        f"intervals from drawing the episodes again. {note} Of a recorded return "
        f"{value['cut_off']:.0%} lies after its episode's end. Where estimate and returns of the "
        "recorded behaviour disagree, distrust the policy's estimate too.</p>"
        f"<figure>{intervals(rows, best=0)}</figure>"
    )


def _calibration(facts: Facts) -> str:
    if not facts["calibration"]:
        return '<h2>Predicted values</h2><p class="note">This algorithm learns none.</p>'
    figures = []
    for name, found in facts["calibration"].items():
        tenths = list(range(1, len(found["predicted"]) + 1))
        series = {"predicted": (tenths, found["predicted"]), "earned": (tenths, found["returned"])}
        figures.append(
            f"<figure><header><b>{name}</b></header>"
            f"{curves(series, 'tenth of steps, by prediction')}"
            f"<figcaption>bias at first steps {interval_text(found['bias'])} · rank correlation "
            f"{found['rank_correlation']:.2f}</figcaption></figure>"
        )
    return (
        '<h2>Predicted values and what was earned</h2><p class="note">Returns are the '
        "behaviour's, in the training's units, with the prediction in place of what lies beyond a "
        "cut. Values of a policy better than the behaviour, and V as an upper expectile, belong "
        "above them; the order should agree.</p>"
        f'<div class="pair">{"".join(figures)}</div>'
    )


def _training(facts: Facts) -> str:
    known, figures = facts["curves"], []
    for name, meaning in CURVES.items():
        series = {
            part: (curve["steps"], curve["values"])
            for part in ("train", "held_out")
            if (curve := known.get(f"{part}/{name}")) is not None
        }
        if series:
            figures.append(
                f"<figure><header><b>{name}</b></header>{curves(series, 'step')}"
                f"<figcaption>{meaning}</figcaption></figure>"
            )
    trained = {name: pair[0] for name, pair in facts["gaps"].items() if pair is not None}
    losses = [
        [escape(name), short(trained.get(name)), short(value)]
        for name, value in facts["held_out_losses"].items()
    ]
    said = "; ".join(f"{s['word']}: {s['text']}" for s in facts["signs"])
    return (
        f'<h2>Training</h2><p class="note">{escape(said) or "Nothing amiss in these curves."}</p>'
        f'<div class="pair">{"".join(figures)}</div>'
        + table(["newest", "training", "held out"], losses, numeric=(1, 2))
    )


def _actions(facts: Facts) -> str:
    actions, outside = facts["actions"], facts["outside"]
    rows = [[escape(name), f"{value:.1%}"] for name, value in actions["components"].items()]
    summary = [
        ["to the nearest action of similar states", f"{actions['to_nearest']:.1%}",
         f"{actions['recorded_to_nearest']:.1%}"],
        ["components at a limit", f"{actions['at_limit']:.1%}",
         f"{actions['recorded_at_limit']:.1%}"],
        ["state and action outside support", f"{outside['policy_pairs']:.1%}",
         f"{outside['recorded_pairs']:.1%}"],
        ["state outside support", f"{outside['states']:.1%}", f"{outside['states']:.1%}"],
    ]  # fmt: skip
    return (
        '<h2>Actions and support</h2><p class="note">Distances in units of the action\'s range. '
        "What is usual stands in the last column.</p>"
        + table(["", "policy", "recorded"], summary, numeric=(1, 2))
        + table(["component", "mean distance to the recorded action"], rows, numeric=(1,))
    )


def _settings(facts: Facts) -> str:
    rows = [[escape(k), escape(str(v))] for k, v in facts["config"].items()]
    return f"<details><summary>configuration</summary>{table(['key', 'value'], rows)}</details>"
