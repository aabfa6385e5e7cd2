"""A first contract for a log that nobody has written one for.

What can be told from the data is chosen (rates, ages, limits, units), what cannot is marked
with a comment. The result converts as it is; reward and safe action are for a person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import yaml
from pydantic import ValidationError

from iql_ros.contract import Contract
from iql_ros.contracts.contract_yaml import explain
from iql_ros.errors import LogError
from training.inspection.choice import choose
from training.inspection.facts import LogFacts, TopicFacts
from training.inspection.fields import (
    Values,
    constants_of,
    make_part,
    read_values,
    rounded_up,
    varies,
)
from training.inspection.proposal import Part, Proposal, Use
from training.inspection.text import contract_text
from training.inspection.words import is_command
from training.logs import Log

COMMON_RATES_HZ = (1, 2, 5, 10, 20, 25, 50, 100)
SMALLEST_RATE_HZ = 5
LONGEST_SILENCE_S = 0.5
_VAGUE = {"data", "raw", "filtered", "out", "state", "status"}
STOPPED_BY_ZERO = ("velocity", "effort")


def propose(
    log: Log,
    facts: LogFacts,
    *,
    actions: Sequence[str] = (),
    definitions: Mapping[str, str] | None = None,
    message_folders: Sequence[str] = (),
) -> str:
    """Writes a commented contract for `log`.

    Args:
        log: an open log.
        facts: what `inspect_log` said of it.
        actions: topics to take for commands; without, one is guessed.
        definitions: of the types that the log does not embed, by type.
        message_folders: where these are from, relative to the file that is to be written.

    Returns:
        YAML that `load_contract` reads and `convert_log` converts this log by.

    Raises:
        LogError: no topic is a command or none a state; names the candidates.
    """
    text = contract_text(make_proposal(log, facts, actions, definitions or {}, message_folders))
    try:
        Contract.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        reason = explain(error, "the proposed contract", None)
        raise LogError(f"{log.path}: no contract can be proposed: {reason}") from None
    return text


def make_proposal(
    log: Log,
    facts: LogFacts,
    actions: Sequence[str],
    definitions: Mapping[str, str],
    message_folders: Sequence[str],
) -> Proposal:
    """Chooses topics, fields, rates and limits. Raises LogError as `propose`."""
    choice = choose(facts, actions)
    tick_hz = _tick_rate([*choice.states, *choice.commands])
    aliases = _aliases([topic.name for topic in (*choice.states, *choice.commands)])
    if len(choice.commands) == 1:
        aliases[choice.commands[0].name] = "command"
    states = _uses(log, choice.states, definitions, aliases, tick_hz)
    commands = [
        commanded
        for use in _uses(log, choice.commands, definitions, aliases, tick_hz)
        if (commanded := _commandable(use)).parts
    ]
    for uses, topics, role in (
        (states, choice.states, "state"),
        (commands, choice.commands, "command"),
    ):
        if not uses:
            names = ", ".join(topic.name for topic in topics)
            raise LogError(f"{log.path}: nothing in the {role} topics {names} is always finite")
    used = {use.facts.name for use in (*states, *commands)}
    idle = {
        topic.name: "never changes in this log, or is not always finite"
        for topic in (*choice.states, *choice.commands)
        if topic.name not in used
    }
    return Proposal(
        facts=facts,
        tick_hz=tick_hz,
        states=tuple(replace(u, max_age_s=_max_age(u.facts, 1 / tick_hz)) for u in states),
        commands=tuple(_command(use, 1 / tick_hz) for use in commands),
        others={**choice.others, **idle},
        message_folders=message_folders,
    )


def interval_s(topic: TopicFacts) -> float:
    """The usual time between messages: the median, unless they come unevenly."""
    receive = topic.receive
    if receive.is_steady or not receive.mean_hz:
        return max(receive.median_s, 1e-4)
    return max(receive.median_s, 1 / receive.mean_hz)


def _tick_rate(topics: Sequence[TopicFacts]) -> float:
    """The rate of the slowest topic that is not too slow to control by, of common ones."""
    rates = [1 / interval_s(topic) for topic in topics]
    rate = min([rate for rate in rates if rate >= SMALLEST_RATE_HZ] or [max(rates)])
    return max([common for common in COMMON_RATES_HZ if common <= 1.05 * rate] or [1])


def _max_age(topic: TopicFacts, period_s: float) -> float:
    """Three to five intervals: more where the topic comes unevenly."""
    usual = interval_s(topic)
    return rounded_up(max(3 * usual, min(5 * usual, 1.2 * topic.receive.p95_s), period_s))


def _uses(
    log: Log,
    topics: Sequence[TopicFacts],
    given: Mapping[str, str],
    aliases: Mapping[str, str],
    tick_hz: float,
) -> list[Use]:
    """The topics with the parts that vary; if none does anywhere, with all."""
    read = {topic.name: read_values(log, topic, given) for topic in topics}
    is_still = not any(varies(values) for parts in read.values() for values in parts)
    uses = []
    for topic in topics:
        made = [make_part(v, 1 / tick_hz, constant_too=is_still) for v in read[topic.name]]
        if parts := tuple(part for part in made if part is not None):
            constants = {} if is_still else _constants(read[topic.name])
            uses.append(Use(aliases[topic.name], topic, parts, constants=constants))
    return uses


def _constants(parts: Sequence[Values]) -> dict[str, float]:
    return {path: value for part in parts for path, value in constants_of(part).items()}


def _command(use: Use, period_s: float) -> Use:
    """The command topic with its rule for silence."""
    use = replace(use, parts=tuple(map(_stoppable, use.parts)))
    receive = use.facts.receive
    repeats_s = max(5 * interval_s(use.facts), period_s)
    if receive.gap_s <= max(repeats_s, LONGEST_SILENCE_S):
        return replace(
            use,
            timeout_s=rounded_up(max(1.2 * receive.gap_s, repeats_s)),
            on_silence="hold",
            why=f"it was never silent for longer than {receive.gap_s:.3g} s",
        )
    silent = f"it was silent for up to {receive.gap_s:.3g} s"
    timeout_s = rounded_up(max(LONGEST_SILENCE_S, repeats_s))
    if all(part.kind in STOPPED_BY_ZERO for part in use.parts):
        why = f"{silent}; a {use.parts[0].kind} that nobody repeats is taken for a stop"
        return replace(use, timeout_s=timeout_s, on_silence="zero", why=why)
    why = f"{silent}; a target is taken to stay until the next: check that your robot has it so"
    return replace(use, timeout_s=timeout_s, on_silence="hold", why=why)


def _commandable(use: Use) -> Use:
    """The command without rotations; of a measurement taken for one, the velocities if any.

    A robot that is told its measured positions, velocities and efforts at once is told too much.
    """
    parts = [part for part in use.parts if part.derive not in ("rot6d", "yaw")]
    if not is_command(use.facts.name, use.facts.msgtype):
        parts = [part for part in parts if part.kind == "velocity"] or parts
    kept = {part.path for part in parts}
    left = [part.path for part in use.parts if part.path not in kept]
    if parts and left:
        note = f"{', '.join(left)}: left out, add it if it is commanded"
        parts[0] = replace(parts[0], notes=(*parts[0].notes, note))
    return replace(use, parts=tuple(parts))


def _stoppable(part: Part) -> Part:
    """The part with 0 within its limits, where 0 is what stops the robot."""
    if part.kind not in STOPPED_BY_ZERO:
        return part
    return replace(part, low=np.minimum(part.low, 0), high=np.maximum(part.high, 0))


def _aliases(names: Sequence[str]) -> dict[str, str]:
    """A short name for each topic: its last words, as many as tell it from the others."""
    aliases: dict[str, str] = {}
    for name in names:
        words = [re.sub(r"\W", "_", word) for word in name.split("/") if word] or ["topic"]
        for count in range(1 + (words[-1] in _VAGUE and len(words) > 1), len(words) + 1):
            alias = "_".join(words[-count:])
            if alias not in (*aliases.values(), "command"):
                break
        alias = alias if re.match(r"(?!next_)[A-Za-z]", alias) else f"topic_{alias}"
        while alias in aliases.values() or alias == "command":
            alias += "_2"
        aliases[name] = alias
    return aliases
