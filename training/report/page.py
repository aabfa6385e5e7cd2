"""A report as one page of HTML that needs nothing but itself.

Every text that comes from a log, a file name or a contract passes through `escape`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from iql_ros.pages.parts import frame, short, table
from iql_ros.pages.plots import histogram
from training.report.episodes import ENDS, SECOND_NS
from training.report.plots import Row, scatter, timeline
from training.report.tables import failed_table, sources_table

Report = Mapping[str, Any]

MOST_LOGS = 40
MOST_COMPONENTS = 300
FIRST_SOURCES = 6
WORTH_A_FLAG = 0.01
"""Of the samples at a limit."""


def render_report(report: Report) -> str:
    """The page of a report, as `build_report` returns it or as it was read from its JSON."""
    title = escape(report["dataset"] or report["contract"])
    sections = (
        _head(report, title),
        _coverage(report),
        _episodes(report),
        _components(report, "action", "Actions"),
        _components(report, "observation", "Observations"),
        _components(report, "signal", "Signals, unseen by the policy"),
        _repeated(report),
        _dropped(report),
        "<h2>Sources</h2>" + sources_table(report["logs"]),
        failed_table(report["failed"]),
    )
    return frame(f"{report['dataset'] or report['contract']}: dataset report", sections)


def _head(report: Report, title: str) -> str:
    ends, rate = report["episode_facts"]["ends"], report["timing"]["rate_hz"]
    returns = report["episode_facts"]["return"].get("quantiles", {})
    tiles = {
        "steps": f"{report['steps']:,}",
        "episodes": f"{report['episodes']:,}",
        "used": _hours(report["hours"]),
        "rate": f"{short(rate)} Hz" if rate else "-",
        "logs used": f"{len(report['logs'])} of {len(report['logs']) + len(report['failed'])}",
        "end terminal": f"{100 * ends['terminal'] / report['episodes']:.0f} %",
        "median return": short(returns.get("50%")),
    }
    seen = {role: sum(c["role"] == role for c in report["components"]) for role in _ROLES}
    sources = [
        [escape(str(log.get("name"))), f"<code>{escape(str(log.get('sha256', ''))[:16])}</code>"]
        for log in report["logs"][:FIRST_SOURCES]
    ]
    more = len(report["logs"]) - FIRST_SOURCES
    return (
        f'<h1>{title}</h1><p class="note">{seen["observation"]} observations and '
        f"{seen['action']} actions of contract <b>{escape(report['contract'])}</b> "
        f"<code>{escape(report['contract_digest'][:16])}</code>, "
        f"by {escape(report['created_by'])}</p>"
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{v}</b><span class="soft">{k}</span></div>'
            for k, v in tiles.items()
        )
        + f"</div>{_verdict(report['warnings'])}"
        + table(["source", "SHA-256 begins"], sources)
        + (f'<p class="note">and {more} more, listed below.</p>' if more > 0 else "")
    )


_ROLES = ("action", "observation", "signal")


def _verdict(warnings: Sequence[str]) -> str:
    if not warnings:
        return (
            '<div class="verdict"><h2>Nothing in these figures speaks against training '
            "on this dataset.</h2></div>"
        )
    things = "One thing" if len(warnings) == 1 else f"{len(warnings)} things"
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="verdict look"><h2>{things} to look at</h2><ol>{items}</ol></div>'


def _coverage(report: Report) -> str:
    """Per log, when there are steps, the episodes coloured by why they ended."""
    logs, each = report["logs"], report["episode_facts"]["each"]
    of_log: dict[int, list[int]] = {}
    for episode, source in enumerate(each["source"]):
        of_log.setdefault(source, []).append(episode)
    chosen, note = sorted(of_log), ""
    if len(chosen) > MOST_LOGS:
        chosen = sorted(sorted(chosen, key=lambda i: _kept(logs[i]))[:MOST_LOGS])
        note = f" Of {len(logs)} logs the {MOST_LOGS} that lost the largest share are shown."
    rows = []
    for i in chosen:
        start = [each["start_ns"][e] for e in of_log[i]]
        begin = logs[i].get("begin_ns") or min(start)
        spans = [
            (
                (t - begin) / SECOND_NS,
                (t - begin) / SECOND_NS + each["duration_s"][e],
                each["end"][e],
            )
            for t, e in zip(start, of_log[i], strict=True)
        ]
        last = max(stop for _, stop, _ in spans)
        end_ns = logs[i].get("end_ns")
        extent = max(last, (end_ns - begin) / SECOND_NS) if end_ns is not None else last
        rows.append(Row(str(logs[i].get("name", i)), extent, spans))
    legend = "".join(
        f'<span><i style="background:var(--{end})"></i>{end} '
        f"({report['episode_facts']['ends'][end]:,}): {meaning}</span>"
        for end, meaning in ENDS.items()
    )
    return (
        "<h2>Coverage</h2>"
        f'<p class="note">Each row is a log, each bar an episode in the colour of its end; a bare '
        f"line is time that gave no step.{note}</p>"
        f'<div class="legend">{legend}</div>{timeline(rows)}'
    )


def _kept(log: Mapping[str, Any]) -> float:
    facts = log.get("facts", {})
    return float(facts.get("steps", 0)) / max(facts.get("instants", 0), 1)


def _episodes(report: Report) -> str:
    facts = report["episode_facts"]
    each = facts["each"]
    numbers = list(range(len(each["return"])))
    finite = [i for i in numbers if each["return"][i] is not None]
    returns, ends = [each["return"][i] for i in finite], [each["end"][i] for i in finite]
    lengths = [each["length"][i] for i in finite]
    parts = ["<h2>Episodes, returns and rates</h2>", '<div class="grid">']
    parts += [
        _figure("return of an episode", "", facts["return"]),
        _figure("steps of an episode", "", facts["length"]),
        _figure("reward of a step", "", report["reward"]),
    ]
    if report["timing"]["interval_s"] is not None:
        parts.append(_figure("interval between steps", "s", report["timing"]["interval_s"]))
    parts.append('</div><p></p><div class="pair">')
    if finite:
        parts += [
            f"<figure>{scatter(finite, returns, ends, 'episode', 'return')}</figure>",
            f"<figure>{scatter(lengths, returns, ends, 'steps', 'return')}</figure>",
        ]
    return "".join([*parts, "</div>"])


def _components(report: Report, role: str, heading: str) -> str:
    own = [c for c in report["components"] if c["role"] == role]
    if not own:
        return ""
    note = "Heights are square roots of counts; dashed lines are the contract's limits."
    if len(own) > MOST_COMPONENTS:
        note += f" The first {MOST_COMPONENTS} of {len(own)}; the JSON has all."
    figures = "".join(
        _figure(c["name"], c["unit"], c, c["limits"], _flags(c, report["steps"]))
        for c in own[:MOST_COMPONENTS]
    )
    return f'<h2>{heading}</h2><p class="note">{note}</p><div class="grid">{figures}</div>'


def _flags(component: Mapping[str, Any], steps: int) -> list[str]:
    """What is odd about a component, in a few words each."""
    flags = []
    if component.get("distinct") == 1:
        flags.append("constant")
    if component["missing"]:
        flags.append(f"{component['missing']:,} missing")
    for key, words in (("outside", "outside limits"), ("at_low", "at low"), ("at_high", "at high")):
        if component.get(key, 0) > (0 if key == "outside" else WORTH_A_FLAG * steps):
            flags.append(f"{100 * component[key] / steps:.2g} % {words}")
    if component["frozen"]:
        flags.append(f"frozen {component['frozen']['stretches']} x")
    if component["jumps"]:
        flags.append(f"{component['jumps']['count']} {component['jumps']['kind']}s")
    return flags


def _figure(
    name: str,
    unit: str,
    facts: Mapping[str, Any],
    limits: Sequence[float] | None = None,
    flags: Sequence[str] = (),
) -> str:
    if "histogram" not in facts:
        return f"<figure><header><b>{escape(name)}</b></header>no finite value</figure>"
    q = facts["quantiles"]
    bounds = f" · limits [{short(limits[0])}, {short(limits[1])}]" if limits else ""
    return (
        f'<figure><header><b>{escape(name)}</b><span class="soft">{escape(unit)}</span></header>'
        f"{histogram(facts, limits)}<figcaption>median {short(q['50%'])} · 90 % in "
        f"[{short(q['5%'])}, {short(q['95%'])}] · mean {short(facts['mean'])} ± "
        f"{short(facts['std'])}{bounds}"
        + (f'<br><span class="flag">{escape(" · ".join(flags))}</span>' if flags else "")
        + "</figcaption></figure>"
    )


def _repeated(report: Report) -> str:
    found, each = report["duplicates"], report["episode_facts"]["each"]

    def name(episode: int) -> str:
        log = report["logs"][each["source"][episode]].get("name", "")
        return f"episode {episode} of {escape(str(log))}"

    rows = [["equal", "<br>".join(map(name, group[:10]))] for group in found["equal"][:20]]
    rows += [[short(d), f"{name(a)}<br>{name(b)}"] for a, b, d in found["near"][:20]]
    if not rows and not found["near_skipped"]:
        return ""
    skipped = found["near_skipped"]
    note = f" Near ones were not sought: {escape(skipped)}." if skipped else ""
    return (
        '<h2>Repeated episodes</h2><p class="note">Distance in standard deviations of the signals; '
        f"the first 20 of each kind.{note}</p>" + table(["distance", "episodes"], rows)
    )


def _dropped(report: Report) -> str:
    if not report["dropped"]:
        return '<h2>Dropped</h2><p class="note">No step was dropped.</p>'
    instants = sum(log.get("facts", {}).get("instants", 0) for log in report["logs"])
    rows = [
        [escape(reason.replace("_", " ")), f"{count:,}", f"{100 * count / max(instants, 1):.2g} %"]
        for reason, count in report["dropped"].items()
    ]
    return "<h2>Dropped</h2>" + table(["why", "steps", "of all"], rows, numeric=(1, 2))


def _hours(hours: float) -> str:
    return f"{short(hours)} h" if hours >= 1 else f"{short(60 * hours)} min"
