"""Which topics of a log are states, which are commands, and what the others are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iql_ros.errors import LogError
from training.inspection.facts import LogFacts, TopicFacts
from training.inspection.payloads import Numbers
from training.inspection.words import is_command

STATE_TYPES = {
    f"{package}/msg/{name}"
    for package, names in {
        "geometry_msgs": "Pose PoseStamped PoseWithCovariance PoseWithCovarianceStamped Pose2D "
        "Twist TwistStamped TwistWithCovariance TwistWithCovarianceStamped Point PointStamped "
        "Quaternion QuaternionStamped Wrench WrenchStamped Accel AccelStamped Vector3 "
        "Vector3Stamped Transform TransformStamped",
        "nav_msgs": "Odometry",
        "sensor_msgs": "Imu JointState LaserScan Range NavSatFix MultiDOFJointState",
        "turtlesim": "Pose",
    }.items()
    for name in names.split()
}
_NO_STATES = re.compile(
    r"/(Log|Clock|ParameterEvent|Diagnostic\w*|TFMessage|tfMessage|CameraInfo|Image"
    r"|CompressedImage|PointCloud2?|BatteryState|Joy|Statistics\w*|String)$"
)
_LIKE_STATES = re.compile(r"(Pose|Odom|State|Imu|Twist|Velocity|Position)", re.IGNORECASE)
_NO_NUMBERS = {"data_offset", "position_covariance_type", "angle_min", "angle_max", "intensities"}
_NO_NUMBERS |= {"angle_increment", "time_increment", "scan_time", "range_min", "range_max"}

FEWEST_MESSAGES = 10
SLOWEST_HZ = 0.9
MOST_SCALARS = 16
MOST_STATES = 8
LEAST_COVERAGE = 0.5


@dataclass(frozen=True)
class Choice:
    """Topics for states and commands; `others` says of each other topic why it is neither."""

    states: tuple[TopicFacts, ...]
    commands: tuple[TopicFacts, ...]
    others: Mapping[str, str]


def choose(facts: LogFacts, actions: Sequence[str]) -> Choice:
    """Chooses states and commands; `actions` are commands whatever they look like.

    Raises:
        LogError: there is no state or no command; names the topics that might be.
    """
    usable = [topic for topic in facts.topics if wanted(topic) and topic.count > 1]
    commands = _named(facts, actions) if actions else _guessed(facts, usable)
    others: dict[str, str] = {}
    states: list[TopicFacts] = []
    foreign = _foreign_spaces(usable, commands)
    for topic in facts.topics:
        if topic in commands:
            continue
        reason = _no_state(topic, facts.duration_s)
        if not reason and is_command(topic.name, topic.msgtype):
            reason = "another command: take it with --action, which can be given more than once"
        if not reason and any(topic.name.startswith(space) for space in foreign):
            reason = "its namespace has a command of its own: another robot's?"
        if reason:
            others[topic.name] = reason
        else:
            states.append(topic)
    return Choice(_preferred(facts, states, others), tuple(commands), others)


def _foreign_spaces(usable: Sequence[TopicFacts], commands: Sequence[TopicFacts]) -> set[str]:
    """Namespaces of other robots: of commands not chosen, if those chosen have their own."""
    ours = {_space(command.name) for command in commands}
    if "/" in ours:
        return set()
    likely = [topic for topic in usable if is_command(topic.name, topic.msgtype)]
    return {_space(topic.name) for topic in likely if topic not in commands} - ours - {"/"}


def wanted(topic: TopicFacts) -> tuple[Numbers, ...]:
    """What can be read from a topic, without what describes the sensor."""
    return tuple(part for part in topic.numbers if not _NO_NUMBERS & {part.where, *part.parts})


def _named(facts: LogFacts, actions: Sequence[str]) -> list[TopicFacts]:
    commands = []
    for name in actions:
        topic = facts.topic(name) or facts.topic(f"/{name}")
        if topic is None or not wanted(topic) or topic.count < 2:
            why = "is not in this log" if topic is None else "has nothing to read"
            if topic is not None:
                why += f" ({topic.unknown or f'{topic.count} messages of {topic.msgtype}'})"
            raise LogError(f"{facts.path}: --action {name} {why}; candidates: {_listed(facts)}")
        commands.append(topic)
    return commands


def _guessed(facts: LogFacts, usable: Sequence[TopicFacts]) -> list[TopicFacts]:
    """The command topic with most messages, one whose name says so before one by type alone."""
    likely = [
        topic
        for topic in usable
        if topic.count >= FEWEST_MESSAGES and is_command(topic.name, topic.msgtype)
    ]
    if not likely:
        raise LogError(
            f"{facts.path}: no topic looks like a command, so the action must be chosen: "
            f"--action TOPIC with one of {_listed(facts)}"
        )
    return [max(likely, key=lambda t: (is_command(t.name, ""), t.count, -len(t.name), t.name))]


def _no_state(topic: TopicFacts, duration_s: float) -> str:
    """Why a topic is no state, or ""."""
    receive = topic.receive
    if topic.unknown:
        return f"type {topic.msgtype} is not known: add its .msg file to message_folders"
    if _NO_STATES.search(topic.msgtype) or not wanted(topic):
        return f"{topic.msgtype} is not read as numbers"
    if topic.count < FEWEST_MESSAGES or receive.mean_hz < SLOWEST_HZ:
        return f"only {topic.count} messages in {duration_s:.0f} s"
    if receive.last_s - receive.first_s < LEAST_COVERAGE * duration_s:
        return f"present only from {receive.first_s:.0f} to {receive.last_s:.0f} s"
    return ""


def _preferred(
    facts: LogFacts, states: Sequence[TopicFacts], others: dict[str, str]
) -> tuple[TopicFacts, ...]:
    """Known state types, then small messages; larger ones only where there is nothing else."""

    def rank(topic: TopicFacts) -> int:
        if topic.msgtype in STATE_TYPES:
            return 0
        return 1 if sum(len(part.parts) for part in wanted(topic)) <= MOST_SCALARS else 2

    ranked = sorted(states, key=rank)
    chosen = [topic for topic in ranked if rank(topic) < 2][:MOST_STATES] or ranked[:1]
    if not chosen:
        unknown = [t for t in facts.topics if t.unknown and _LIKE_STATES.search(t.msgtype)]
        if unknown:
            raise LogError(
                f"{facts.path}: the state is in {unknown[0].name}, and its type "
                f"{unknown[0].msgtype} is not known: give the folder of its .msg file with "
                "--messages FOLDER"
            )
        raise LogError(f"{facts.path}: no topic beside the command is a state: {_listed(facts)}")
    for topic in ranked:
        if topic not in chosen:
            others[topic.name] = f"{topic.msgtype}: add it if the task needs it"
    return tuple(chosen)


def _space(name: str) -> str:
    """The namespace of a topic: /turtle1/ of /turtle1/cmd_vel."""
    return name[: name.rfind("/") + 1] or "/"


def _listed(facts: LogFacts) -> str:
    return ", ".join(f"{topic.name} ({topic.msgtype})" for topic in facts.topics[:20])
