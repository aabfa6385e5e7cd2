"""Reading a JointState's positions and velocities: ours beside rosbags, interleaved.

`read` is one payload at a time, as the node does; `read_many` a whole log's at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rosbags.typesys import Stores, get_typestore

from benchmarks._report import parse_arguments, progress, report
from iql_ros.wire import Payloads, Reader, make_types

MSGTYPE = "sensor_msgs/msg/JointState"
JOINTS = [f"joint_{i}" for i in range(7)]
PATHS = [f"{part}[{','.join(JOINTS)}]" for part in ("position", "velocity")]


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    messages, rounds = (20_000, 5) if arguments.quick else (100_000, 15)
    progress(f"{rounds} rounds over {messages} messages")
    payloads = _payloads(messages)
    batch = Payloads.from_list(payloads)
    store, reader = get_typestore(Stores.LATEST), Reader(make_types({}), MSGTYPE, PATHS)
    contestants: dict[str, Callable[[], object]] = {
        "rosbags": lambda: [_by_rosbags(store, payload) for payload in payloads],
        "read": lambda: [reader.read(payload) for payload in payloads],
        "read_many": lambda: reader.read_many(batch),
    }
    np.testing.assert_array_equal(
        reader.read_many(batch)[0][::1000],
        [_by_rosbags(store, payload) for payload in payloads[::1000]],
    )
    us: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(rounds):
        for name, run in contestants.items():
            began = time.process_time()
            run()
            us[name].append((time.process_time() - began) / messages * 1e6)
        progress(f"round {i + 1}: " + ", ".join(f"{n} {v[-1]:.2f} us" for n, v in us.items()))
    ratios = {
        name: float(np.median(np.array(us["rosbags"]) / np.array(us[name])))
        for name in ("read", "read_many")
    }
    median_us = {name: float(np.median(values)) for name, values in us.items()}
    report("wire", arguments.quick, {"speedup_over_rosbags": ratios, "median_us": median_us})


def _payloads(count: int) -> list[bytes]:
    store = get_typestore(Stores.LATEST)
    types, rng = store.types, np.random.default_rng(0)
    payloads = []
    for i in range(count):
        stamp = types["builtin_interfaces/msg/Time"](sec=i, nanosec=0)
        message = types[MSGTYPE](
            header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="base"),
            name=JOINTS,
            position=rng.normal(size=7),
            velocity=rng.normal(size=7),
            effort=rng.normal(size=7),
        )
        payloads.append(bytes(store.serialize_cdr(message, MSGTYPE)))
    return payloads


def _by_rosbags(store: object, payload: bytes) -> list[float]:
    message = store.deserialize_cdr(payload, MSGTYPE)  # type: ignore[attr-defined]
    rows = [message.name.index(joint) for joint in JOINTS]
    return [*message.position[rows], *message.velocity[rows]]


if __name__ == "__main__":
    main()
