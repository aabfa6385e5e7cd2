"""The text of a proposed contract: YAML, with a comment for whatever a person must judge."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from iql_ros.contracts.paths import component_labels
from iql_ros.wire import make_types
from training.inspection.fields import rounded_up
from training.inspection.proposal import Part, Proposal, Use

Array = NDArray[np.float64]


def contract_text(proposal: Proposal) -> str:
    """The contract as YAML with comments."""
    names = _Names()
    fields = [
        (use, part, names.take(_field_name(use, part), part))
        for use, part in _parts(proposal.states)
    ]
    single = len(proposal.commands) == 1
    actions = [
        (use, part, names.take(_action_name(use, part, single), part))
        for use, part in _parts(proposal.commands)
    ]
    first = names.components[actions[0][2]][0]
    lines = [
        *_opening(proposal),
        *_topics(proposal),
        "",
        "# Limits here and below: the 0.1 % and 99.9 % quantiles of this log, widened by 10 %.",
        "observations:",
        *(line for use, part, name in fields for line in _observation(use, part, name)),
    ]
    if any(part.derive for _, part, _ in fields):
        lines += ["", "# They jump, so the policy sees only what is derived from them."]
        lines += ["signals:"]
        lines += [line for use, part, name in fields for line in _signal(use, part, name)]
    lines += ["", "actions:"]
    lines += [line for use, part, name in actions for line in _action(use, part, name)]
    lines += [
        "",
        "# TO DO: the reward is the task, which no log tells; this asks for small actions only.",
        "# Write it over the names that `iql-ros check` prints; next_ before one: after the step.",
        f'reward: {{expression: "-0.001 * abs({first})"}}',
        "",
        "# TO DO: if reaching the goal ends an episode, say when.",
        '# episode: {terminal: "...", max_steps: 1000}',
    ]
    return "\n".join(lines) + "\n"


class _Names:
    """Names of fields, none with a component that another has."""

    def __init__(self) -> None:
        self.components: dict[str, tuple[str, ...]] = {}

    def take(self, wish: str, part: Part) -> str:
        labels = component_labels(part.path)
        taken = {c for own in self.components.values() for c in own} | set(self.components)
        taken |= {f"{name}_{end}" for name in self.components for end in _DERIVED}
        name, number = wish, 2
        while taken & {name, *(f"{name}_{label}" for label in labels)}:
            name, number = f"{wish}_{number}", number + 1
        self.components[name] = tuple(f"{name}_{label}" if label else name for label in labels)
        return name


_DERIVED = ("turn", "rotation", "yaw")


def _parts(uses: Sequence[Use]) -> Iterator[tuple[Use, Part]]:
    return ((use, part) for use in uses for part in use.parts)


def _field_name(use: Use, part: Part) -> str:
    return f"{use.alias}_{part.name}".strip("_")


def _action_name(use: Use, part: Part, single: bool) -> str:
    if not single:
        return _field_name(use, part)
    bare = part.name if re.match(r"(?!next_)[A-Za-z]", part.name) else ""
    return "command" if bare in ("", "data") else bare


def _opening(proposal: Proposal) -> list[str]:
    facts = proposal.facts
    robot = re.sub(r"\W+", "_", facts.path.name.split(".")[0], flags=re.ASCII).strip("_")
    robot = robot if re.match(r"(?!next_)[A-Za-z]", robot) else f"robot_{robot}".strip("_")
    lines = [
        f"# Proposed from {_plain(facts.path.name)}, {facts.duration_s:.1f} s. "
        "It converts as it is;",
        "# what is marked TO DO only you can know.",
        "format: 1",
        f"robot: {robot}",
        f"tick: {{rate_hz: {proposal.tick_hz:g}}}   # by the slowest topic that is fast enough",
    ]
    if proposal.message_folders:
        lines.append(f"message_folders: {json.dumps(list(proposal.message_folders))}")
    types = {use.facts.msgtype for use in (*proposal.states, *proposal.commands)}
    embedded = sorted(types - make_types({}).fielddefs.keys())
    if embedded and not proposal.message_folders:
        lines += [
            f"# {', '.join(embedded)}: defined in the log, but the robot has only this file. Add",
            "# message_folders: [msgs]   with the .msg files before you export.",
        ]
    return lines


def _topics(proposal: Proposal) -> Iterator[str]:
    yield ""
    yield "topics:"
    for use in proposal.states:
        receive = use.facts.receive
        yield (
            f"  # every {receive.median_s:.3g} s, 95 % within {receive.p95_s:.3g} s, the longest "
            f"gap {receive.gap_s:.3g} s; older than max_age_s no step is made"
        )
        yield f"  {use.alias}:"
        yield f"    topic: {json.dumps(use.facts.name)}"
        yield f"    type: {use.facts.msgtype}"
        yield f"    max_age_s: {use.max_age_s:g}"
    for use in proposal.commands:
        yield f"  # the action; {use.why}"
        yield f"  {use.alias}:"
        yield f"    topic: {json.dumps(use.facts.name)}"
        yield f"    type: {use.facts.msgtype}"
        yield f"    command_timeout_s: {use.timeout_s:g}"
        yield f"    on_silence: {use.on_silence}"
        if use.constants:
            pairs = ", ".join(f"{json.dumps(k)}: {v:.9g}" for k, v in use.constants.items())
            yield f"    constants: {{{pairs}}}   # never changed in this log"
    for name, reason in proposal.others.items():
        yield f"  # left out: {_plain(name)}: {_plain(reason)}"


def _observation(use: Use, part: Part, name: str) -> Iterator[str]:
    yield from (f"  # {_plain(note)}" for note in part.notes)
    if part.derive == "rot6d":
        yield f"  - {{name: {name}_rotation, derive: rot6d, of: [{name}]}}"
    elif part.derive == "yaw":
        yield f"  - {{name: {name}_turn, derive: sincos, of: [{name}_yaw]}}"
    elif part.derive == "sincos":
        yield f"  - {{name: {name}_turn, derive: sincos, of: [{name}]}}"
    else:
        yield _message_field(use, part, name)


def _signal(use: Use, part: Part, name: str) -> Iterator[str]:
    if part.derive:
        yield _message_field(use, part, name, with_limits=False)
    if part.derive == "yaw":
        yield f"  - {{name: {name}_yaw, derive: yaw, of: [{name}], unit: rad}}"


def _message_field(use: Use, part: Part, name: str, *, with_limits: bool = True) -> str:
    limits = f", limits: {_pairs(part.low, part.high)}" if with_limits else ""
    unit = f", unit: {part.unit}" if part.unit else ""
    field = f"{{name: {name}, topic: {use.alias}, path: {json.dumps(part.path)}{unit}{limits}}}"
    return f"  - {field}{_sliding(part)}"


def _sliding(part: Part) -> str:
    """Of joints, a comment on their unit: a message does not say which of them slide."""
    if not part.unit_sliding:
        return ""
    return f"   # {part.unit}, or {part.unit_sliding} for a joint that slides"


def _action(use: Use, part: Part, name: str) -> Iterator[str]:
    yield from (f"  # {_plain(note)}" for note in part.notes)
    zero = np.clip(0.0, part.low, part.high)
    if part.kind in ("velocity", "effort"):
        safe = zero
    elif part.kind == "position":
        safe = np.clip(part.middle, part.low, part.high)
        yield "  # TO DO: safe must be chosen: it is only the median position of this log."
    else:
        safe = zero
        yield "  # TO DO: nothing says what these numbers are: choose unit and safe."
    yield f"  - name: {name}"
    yield f"    topic: {use.alias}"
    yield f"    path: {json.dumps(part.path)}"
    if part.unit:
        yield f"    unit: {part.unit}{_sliding(part)}"
    yield f"    limits: {_pairs(part.low, part.high)}"
    if (part.slew > 0).all():
        slew = [rounded_up(float(value)) for value in part.slew]
        yield f"    slew: {_numbers(slew)}   # per second: the 99.9 % quantile of the changes"
    yield f"    safe: {_numbers(safe.tolist())}"


def _pairs(low: Array, high: Array) -> str:
    pairs = [f"[{a:.9g}, {b:.9g}]" for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    return pairs[0] if len(set(pairs)) == 1 else f"[{', '.join(pairs)}]"


def _numbers(values: Sequence[float]) -> str:
    texts = [f"{value:.9g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"[{', '.join(texts)}]"


def _plain(text: str) -> str:
    """Text on one line, as a comment must be: names come from other people's files."""
    return " ".join(text.split())
