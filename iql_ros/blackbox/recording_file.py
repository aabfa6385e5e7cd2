"""A black box's recording as an .mcap file, and back.

The messages lie on their own topics, so that every tool reads the file as a bag. What else
happened stands between them, in order, as JSON on /iql_controller/black_box: first the state of
the controller, then each decision, whose messages follow it. Where several aliases of the contract
read one topic, it also says before each message which of them heard it.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys.store import Typestore

from iql_ros.blackbox.mcap_file import Channel, Message, decode_mcap, encode_mcap
from iql_ros.blackbox.recording import Decided, Event, Noted, Received, Recording
from iql_ros.contract import Contract
from iql_ros.control.command import Command
from iql_ros.control.status import Status
from iql_ros.errors import LogError
from iql_ros.files import write_bytes

FORMAT = 2
TOPIC = "/iql_controller/black_box"
HEARD = "heard"
YIELDS_EVERY = 16
"""After so many events, about 0.7 ms, a tick in another thread may run; the interpreter itself
would let it wait for 5 ms."""
_TEXT = "std_msgs/msg/String"


def write_recording(recording: Recording, path: Path, types: Typestore, suffix: str = "") -> Path:
    """Writes the file, whole or not at all.

    Args:
        recording: what to write.
        path: of the file.
        types: message definitions of the contract's topics.
        suffix: of the names of command topics, as in shadow mode.

    Raises:
        LogError: the file cannot be written, as when the disk is full.
    """
    own = Channel(TOPIC, _TEXT, types.generate_msgdef(_TEXT, ros_version=2)[0])
    channels = [own, *channels_of(recording.contract, types, suffix)]
    try:
        write_bytes(path, encode_mcap(channels, _messages(recording, suffix)))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.with_name(path.name + ".tmp").unlink()
        raise LogError(f"black box {path} was not written: {error.strerror or error}") from error
    return path


def channels_of(
    contract: Contract, types: Typestore, suffix: str = "", also: tuple[str, ...] = ()
) -> list[Channel]:
    """The topics that a controller hears, and `also`; those that it speaks on, with `suffix`."""
    kinds = {contract.topics[alias].absolute: alias for alias in (*contract.subscriptions, *also)}
    kinds |= {contract.topics[alias].absolute + suffix: alias for alias in contract.outputs}
    named = {name: contract.topics[alias].type for name, alias in kinds.items()}
    return [
        Channel(name, msgtype, types.generate_msgdef(msgtype, ros_version=2)[0])
        for name, msgtype in named.items()
    ]


def read_recording(path: Path) -> Recording:
    """Reads what `write_recording` wrote.

    Raises:
        LogError: it is no such file, or not whole.
    """
    try:
        messages = decode_mcap(path.read_bytes(), str(path))
        first = next(messages, Message("", 0, b""))
        head = json.loads(_untext(first.data)) if first.topic == TOPIC else {}
        if head.get("format") != FORMAT:
            raise LogError(
                f"{path} has no {TOPIC} of format {FORMAT} at its beginning: it is no black box "
                f"of this version"
            )
        contract = Contract.model_validate(head["contract"])
        events = tuple(_events(contract, head["suffix"], messages))
        return Recording(contract, head["about"], first.t_ns, _unplain(head["state"]), events)
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LogError(f"{path} is a damaged black box: {error!r:.200}") from error


def is_recording(path: Path) -> bool:
    """Whether a file is a black box, by its beginning."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return TOPIC.encode() in file.read(1 << 12)


def _messages(recording: Recording, suffix: str) -> Iterator[Message]:
    topics = recording.contract.topics
    listeners = Counter(topics[alias].absolute for alias in recording.contract.subscriptions)
    t_ns = recording.start_ns
    head = {
        "format": FORMAT,
        "contract": recording.contract.canonical(),
        "about": dict(recording.about),
        "suffix": suffix,
        "state": _plain(recording.state),
    }
    yield Message(TOPIC, t_ns, _text(head))
    for number, event in enumerate(recording.events):
        if number % YIELDS_EVERY == 0:
            time.sleep(1e-4)
        match event:
            case Received(alias, t_ns, payload):
                if listeners[topics[alias].absolute] > 1:
                    yield Message(TOPIC, t_ns, _text({"kind": HEARD, "alias": alias}))
                yield Message(topics[alias].absolute, t_ns, payload)
            case Decided(kind, command, arguments):
                t_ns = command.t_ns
                yield Message(TOPIC, t_ns, _text({"kind": kind, **_decision(command, arguments)}))
                for alias, payload in command.payloads.items():
                    yield Message(topics[alias].absolute + suffix, t_ns, payload)
            case Noted(kind):
                yield Message(TOPIC, t_ns, _text({"kind": kind}))


def _decision(command: Command, arguments: Mapping[str, Any]) -> dict[str, Any]:
    said = {"status": command.status.value, "payloads": list(command.payloads)}
    fields = {**command._asdict(), **said}
    return {"arguments": _plain(arguments), "command": _plain(fields)}


def _events(contract: Contract, suffix: str, messages: Iterator[Message]) -> Iterator[Event]:
    inputs = {contract.topics[alias].absolute: alias for alias in contract.subscriptions}
    for message in messages:
        if message.topic != TOPIC:
            yield Received(inputs[message.topic], message.t_ns, message.data)
            continue
        said = json.loads(_untext(message.data))
        if said["kind"] == HEARD:
            heard = next(messages)
            yield Received(said["alias"], heard.t_ns, heard.data)
            continue
        if "command" not in said:
            yield Noted(said["kind"])
            continue
        fields = _unplain(said["command"])
        payloads = {alias: next(messages).data for alias in fields["payloads"]}
        fields |= {"status": Status(fields["status"]), "payloads": payloads}
        if fields["observation"] is not None:
            fields["observation"] = fields["observation"].astype(np.float32)
        yield Decided(said["kind"], Command(**fields), _unplain(said["arguments"]))


def _plain(value: Any) -> Any:
    """Arrays and numbers that JSON lacks as what it has; read back by `_unplain` to the bit."""
    match value:
        case np.ndarray():
            return {"#array": _plain(value.tolist())}
        case float() if not math.isfinite(value):
            return {"#float": str(value)}
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case np.generic():
            return _plain(value.item())
    return value


def _unplain(value: Any) -> Any:
    match value:
        case {"#array": items}:
            return np.array(_unplain(items), np.float64)
        case {"#float": text}:
            return float(text)
        case dict():
            return {key: _unplain(item) for key, item in value.items()}
        case list():
            return [_unplain(item) for item in value]
    return value


def _text(said: Any) -> bytes:
    """A std_msgs/msg/String in CDR."""
    data = json.dumps(said, separators=(",", ":")).encode() + b"\0"
    return b"\0\1\0\0" + len(data).to_bytes(4, "little") + data


def _untext(data: bytes) -> str:
    return data[8:-1].decode()
