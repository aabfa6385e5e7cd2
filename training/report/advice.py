"""What in a report deserves a second look before training, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.report.advice_components import component_warnings
from training.report.words import number, share, some

Report = Mapping[str, Any]

FEW_STEPS = 5_000
SHORT_EPISODE = 10
DROPPED_SHARE = 0.2
UNEVEN_SHARE = 0.01

REMEDIES = {
    "no_observation": "a field was missing or older than its max_age_s: compare max_age_s with "
    "the topic's rate, or cut the log to where all topics run",
    "no_command": "no command was held: set on_silence to hold or zero if silence has a meaning, "
    "or cut the log to where the robot was driven",
    "gap": "the trigger topic paused: raise its max_age_s if such pauses are harmless",
    "beyond_float32": "a value is larger than float32 holds: does the topic send a largest number "
    "for 'unknown'? observe something else there, or derive reciprocal",
    "reward_not_finite": "the reward is NaN or infinite there: guard its logarithms and divisions",
}
"""By reason; what a reset or a terminal step drops is dropped on purpose."""


def warnings_of(report: Report) -> Iterator[str]:
    """Yields the warnings of a report, the gravest first."""
    for rule in (
        _failed,
        _reward,
        _pairs,
        component_warnings,
        _duplicates,
        _endings,
        _dropped,
        _amount,
        _findings,
    ):
        yield from rule(report)


def _failed(report: Report) -> Iterator[str]:
    if failed := report["failed"]:
        total = len(failed) + len(report["logs"])
        yield (
            f"{len(failed)} of {total} logs gave nothing ({some([f['path'] for f in failed])}): "
            f"the table of failed logs gives each reason."
        )


def _reward(report: Report) -> Iterator[str]:
    reward = report["reward"]
    if reward["missing"]:
        yield (
            f"{reward['missing']} rewards are NaN or infinite: training will refuse them; guard "
            f"the logarithms and divisions of the reward and convert again."
        )
    if reward.get("distinct") == 1:
        yield (
            f"The reward is {number(reward['min'])} in every step, so no action is better than "
            f"another: check the contract's reward, and that what it reads changes in these logs."
        )


def _pairs(report: Report) -> Iterator[str]:
    if count := report["broken_pairs"]:
        yield (
            f"In {share(count, report['steps'])} of the steps the next observation is not the "
            f"observation of the following step: the episodes are cut wrongly or the rows were "
            f"shuffled; convert again, or mark the breaks as timeouts."
        )


def _duplicates(report: Report) -> Iterator[str]:
    found, source = report["duplicates"], report["episode_facts"]["each"]["source"]
    if found["equal"]:
        extra = sum(len(group) - 1 for group in found["equal"])
        logs = dict.fromkeys(source[i] for group in found["equal"] for i in group)
        names = some(report["logs"][i]["name"] for i in logs)
        yield (
            f"{extra} episodes repeat another one exactly (in {names}): they count twice in "
            f"training and leak between training and validation; leave the repeated log out."
        )
    if count := found["near_count"]:
        pair = found["near"][0]
        yield (
            f"{count} pairs of episodes are nearly the same (closest: {pair[0]} and {pair[1]}): "
            f"fine for a robot that repeats itself, else the same drive was recorded twice; "
            f"keep one of each."
        )


def _endings(report: Report) -> Iterator[str]:
    ends, total = report["episode_facts"]["ends"], report["episodes"]
    if report["terminal_rule"] is None:
        yield (
            "The contract has no terminal rule, so every end is a timeout: if the task can be "
            "fulfilled or failed, say when in episode.terminal."
        )
    elif not ends["terminal"]:
        yield (
            f"No episode meets the terminal rule {report['terminal_rule']}: check the rule against "
            f"the histograms, or add logs in which the task succeeds."
        )
    short = report["episode_facts"]["length"]["quantiles"]["50%"]
    if total > 1 and short < SHORT_EPISODE:
        yield (
            f"Half of the episodes have {number(short)} steps or fewer: something breaks them up; "
            f"see what was dropped, and compare max_age_s with the rates of the topics."
        )


def _dropped(report: Report) -> Iterator[str]:
    instants = sum(log.get("facts", {}).get("instants", 0) for log in report["logs"])
    for reason, count in report["dropped"].items():
        if reason in REMEDIES and instants and count > DROPPED_SHARE * instants:
            yield (
                f"{share(count, instants)} of all steps were dropped: "
                f"{REMEDIES[reason]}{_stale(report) if reason == 'no_observation' else ''}."
            )


def _stale(report: Report) -> str:
    """Which topic was too old most often."""
    stale: dict[str, int] = {}
    for log in report["logs"]:
        for name, count in log.get("facts", {}).items():
            if name.startswith("stale_") and count:
                alias = name.removeprefix("stale_")
                stale[alias] = stale.get(alias, 0) + count
    worst = max(stale, key=lambda alias: stale[alias], default=None)
    return f" (most often {worst}, {stale[worst]} times)" if worst is not None else ""


def _amount(report: Report) -> Iterator[str]:
    if report["steps"] < FEW_STEPS:
        yield (
            f"{report['steps']} steps ({number(60 * report['hours'])} minutes) are few: expect a "
            f"policy that only repeats what it saw, and add logs before you trust its figures."
        )
    uneven, step = report["timing"]["uneven"], report["timing"]["interval_s"]
    if step and uneven > UNEVEN_SHARE * report["steps"]:
        yield (
            f"{share(uneven, report['steps'])} of the intervals between steps differ by more than "
            f"half from the usual {number(step['quantiles']['50%'])} s: the trigger topic "
            f"stutters; use clock: header if its stamps are even, or a tick with rate_hz."
        )


def _findings(report: Report) -> Iterator[str]:
    telling = [log["name"] for log in report["logs"] if log.get("findings")]
    if telling:
        yield (
            f"Something was decided or repaired while reading {some(telling)}: the table of "
            f"sources says what; check that you agree."
        )
