"""What is wrong with a log, one sentence each, with the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from training.conversion.clocks import LARGEST_OFFSET_S
from training.inspection.facts import TopicFacts

COMMAND = re.compile(
    r"(^|[/_])(cmd|cmds|command|commands|setpoint|setpoints|joint_trajectory)([/_]|$)"
)
COMMAND_TYPES = {
    "ackermann_msgs/msg/AckermannDrive",
    "ackermann_msgs/msg/AckermannDriveStamped",
    "control_msgs/msg/JointJog",
    "geometry_msgs/msg/Twist",
    "std_msgs/msg/Float64MultiArray",
    "std_msgs/msg/Float32MultiArray",
    "trajectory_msgs/msg/JointTrajectory",
}
_MEASURED = re.compile(r"(^|[/_])(state|states|odom|odometry|feedback|measured|actual)([/_]|$)")
SILENCE_S = 0.5
"""A command topic that pauses for longer needs a rule for silence."""
LARGEST_DRIFT = 0.1
"""Seconds a minute: in a log of ten minutes the clocks come apart by a second."""


def is_command(name: str, msgtype: str) -> bool:
    """Whether a topic looks like one that tells a robot what to do."""
    if _MEASURED.search(name):
        return False
    return COMMAND.search(name) is not None or msgtype in COMMAND_TYPES


def warnings_of(topics: Sequence[TopicFacts]) -> tuple[str, ...]:
    """Sentences about the topics, those about the whole log first."""
    found = list(_sim_time(topics))
    for topic in topics:
        found += (f"{topic.name}: {text}" for text in _of_topic(topic))
    return tuple(found)


def _sim_time(topics: Sequence[TopicFacts]) -> Iterator[str]:
    simulated = [
        t.name
        for t in topics
        if t.header is not None and t.header.is_sim and abs(t.header.behind_s) > LARGEST_OFFSET_S
    ]
    wall = [
        t.name
        for t in topics
        if t.header is not None and not t.header.is_sim and t.header.zero < t.count
    ]
    if simulated and wall:
        yield (
            f"simulated and wall time in one log: {_few(simulated)} count from zero, "
            f"{_few(wall)} do not: leave every topic at clock: receive"
        )
    elif simulated:
        yield (
            f"headers hold simulated time ({_few(simulated)}): if the recorder's clock ran on, "
            "steps are in wall time; keep clock: receive, and record with --use-sim-time"
        )
    if any(t.msgtype == "rosgraph_msgs/msg/Clock" for t in topics) and not simulated:
        yield (
            "/clock is in the log, so it is of a simulator or of a replayed log: its rates are "
            "those of the recorder's clock, which need not be the simulated one"
        )


def _of_topic(topic: TopicFacts) -> Iterator[str]:
    if topic.count == 0:
        yield "no messages: was its publisher running?"
        return
    if topic.unknown:
        yield f"its content cannot be read: {topic.unknown}"
    if topic.damaged:
        yield f"{topic.damaged} payloads are no {topic.msgtype}: they are damaged, or it is not"
    yield from _of_receive(topic)
    yield from _of_header(topic)
    yield from _of_content(topic)


def _of_receive(topic: TopicFacts) -> Iterator[str]:
    receive = topic.receive
    if receive.start_burst >= 3 and receive.is_steady:
        yield (
            f"a burst of {receive.start_burst} messages at start-up: their receive times are not "
            "when they were measured; cut the first seconds, or use clock: header"
        )
    if is_command(topic.name, topic.msgtype):
        if receive.gap_s > SILENCE_S or topic.count == 1:
            yield (
                f"sparse commands: {topic.count} messages, silent for up to {receive.gap_s:.3g} s "
                f"(at {receive.gap_at_s:.1f} s): set command_timeout_s, and on_silence to what "
                "the robot does then"
            )
    elif receive.is_steady and receive.gaps:
        yield (
            f"{receive.gaps} gap{'s, the longest' * (receive.gaps > 1) or ' of'} "
            f"{receive.gap_s:.3g} s at {receive.gap_at_s:.1f} s, "
            f"in a topic that comes every {receive.median_s:.3g} s: no step will cross it; "
            "choose max_age_s below it"
        )
    if receive.duplicates > topic.count // 20:
        yield (
            f"{receive.duplicates} of {topic.count} messages were received at the same instant "
            "as another: of those the last counts; use clock: header if the stamps are good"
        )
    if receive.out_of_order:
        yield f"{receive.out_of_order} messages lie behind later ones in the file: they are sorted"


def _of_header(topic: TopicFacts) -> Iterator[str]:
    header = topic.header
    if header is None:
        return
    if header.zero:
        yield f"{header.zero} of {topic.count} stamps are zero: keep clock: receive"
    if abs(header.behind_s) > LARGEST_OFFSET_S and not header.is_sim:
        yield (
            f"its header clock is {_span(abs(header.behind_s))} "
            f"{'behind' if header.behind_s > 0 else 'ahead of'} the receive clock: "
            "keep clock: receive"
        )
    if abs(header.drift_s_per_min) > LARGEST_DRIFT:
        yield (
            f"its header clock drifts by {header.drift_s_per_min:.3g} s a minute against the "
            "receive clock: keep clock: receive"
        )
    if header.grain_s == 1:
        yield "its stamps are whole seconds: keep clock: receive"
    if header.duplicates > topic.count // 20 and header.grain_s != 1:
        yield (
            f"{header.duplicates} of {topic.count} stamps equal the one before: a publisher that "
            "repeats itself; clock: receive takes each as new"
        )
    if header.backward:
        yield (
            f"its stamps jump back, {header.backward} times: with clock: header such messages "
            "are left out; was a simulator reset, or are there two publishers?"
        )


def _of_content(topic: TopicFacts) -> Iterator[str]:
    for path, bad in topic.nonfinite.items():
        yield (
            f"{path} has a NaN or an infinity in {bad} of {topic.count} messages: leave those "
            "elements out, or set on_nonfinite"
        )
    for path, flips in topic.sign_flips.items():
        yield (
            f"{path} jumps to its negative {flips} times, which is the same rotation: observe "
            "derive: rot6d or yaw of it, never its x, y, z, w"
        )
    if len(topic.orders) > 1:
        same = len({frozenset(order) for order in topic.orders}) == 1
        yield (
            f"names come in {len(topic.orders)} {'orders' if same else 'different sets'}, such "
            f"as {_few(topic.orders[0])} and {_few(topic.orders[1])}: select by name, as in "
            f"position[{topic.orders[0][0]}]"
        )


def _span(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds > 86400 else f"{seconds:.3f} s"


def _few(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
