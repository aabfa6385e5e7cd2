"""Every way in which a log misleads, planted in a bag: what conversion does, and says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from iql_ros.contract import Contract, load_contract
from iql_ros.errors import LogError
from iql_ros.fields import FieldPlan
from tests.bags import START_NS, TYPES, Entry, float64, payload, write_bag
from training.conversion.one_log import Converted, convert_log
from training.conversion.topics import read_topics
from training.logs import open_log

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "real_logs"
START_S = START_NS // 10**9


def contract(state: dict[str, Any] | None = None, **changes: Any) -> Contract:
    base: dict[str, Any] = {
        "format": 1,
        "robot": "toy",
        "tick": {"rate_hz": 10},
        "topics": {
            "state": {
                "topic": "/state",
                "type": "geometry_msgs/msg/PointStamped",
                "max_age_s": 0.25,
                **(state or {}),
            },
            "cmd": {"topic": "/cmd", "type": "std_msgs/msg/Float64"},
        },
        "observations": [{"name": "x", "topic": "state", "path": "point.x"}],
        "actions": [{"name": "u", "topic": "cmd", "path": "data", "limits": [-9, 9], "safe": 0}],
        "reward": {"expression": "next_x"},
    }
    return Contract.model_validate({**base, **changes})


def header(stamp_s: float) -> tuple[str, dict[str, Any]]:
    nanoseconds = round(stamp_s * 1e9)
    stamp = {"sec": nanoseconds // 10**9, "nanosec": nanoseconds % 10**9}
    fields = {"stamp": ("builtin_interfaces/msg/Time", stamp), "frame_id": ""}
    return "std_msgs/msg/Header", fields


def state(t_ms: float, x: float, stamp_s: float | None = None) -> Entry:
    point = {"x": float(x), "y": 0.0, "z": 0.0}
    fields = {
        "header": header(START_S + t_ms / 1000 if stamp_s is None else stamp_s),
        "point": ("geometry_msgs/msg/Point", point),
    }
    return ("/state", "geometry_msgs/msg/PointStamped", t_ms, fields)


def command(t_ms: float, u: float = 0.0) -> Entry:
    return ("/cmd", "std_msgs/msg/Float64", t_ms, float64(u))


def clock(t_ms: float, clock_s: float) -> Entry:
    stamp = {"sec": int(clock_s), "nanosec": round(clock_s % 1 * 1e9)}
    fields = {"clock": ("builtin_interfaces/msg/Time", stamp)}
    return ("/clock", "rosgraph_msgs/msg/Clock", t_ms, fields)


T_MS = range(0, 5000, 100)
STATES = [state(t, k) for k, t in enumerate(T_MS)]
COMMANDS = [command(t + 50) for t in T_MS]


def converted(tmp_path: Path, entries: list[Entry], rules: Contract | None = None) -> Converted:
    return convert_log(write_bag(tmp_path / "bag", entries), rules or contract())


def said(result: Converted, text: str) -> bool:
    return any(text in finding for finding in result.findings)


def test_a_sound_log_gives_figures_and_no_finding(tmp_path: Path) -> None:
    result = converted(tmp_path, [*STATES, *COMMANDS])
    facts = result.steps.facts
    assert result.findings == ()
    assert len(result.steps.rewards) == 49
    assert facts["rate_hz_state"] == pytest.approx(10)
    assert facts["largest_gap_s_state"] == pytest.approx(0.1)
    assert facts["age_p95_s_cmd"] == pytest.approx(0.05)
    assert facts["clock_offset_s_state"] == pytest.approx(0)


# -- clocks ----------------------------------------------------------------------------

HEADER = {"clock": "header"}


def test_a_drifting_header_clock_is_reported_with_offset_and_drift(tmp_path: Path) -> None:
    states = [state(t, t, START_S - 5 * 86400 + t / 1000 * 0.9) for t in T_MS]
    result = converted(tmp_path, [*states, *COMMANDS])
    assert said(result, "/state is 432000.245 s behind the receive clock (drifting by +0.490 s")
    assert said(result, "receive time was taken")
    assert result.steps.facts["clock_drift_ppm_state"] == pytest.approx(1e5, rel=1e-3)


def test_a_header_clock_that_counts_and_is_far_off_is_refused_with_the_remedy(
    tmp_path: Path,
) -> None:
    states = [state(t, t, START_S - 203 + t / 1000 * 0.9) for t in T_MS]
    remedy = r"/state is 203\.245 s behind .*drifting by \+0\.490 s in 5 s\), limit .*clock: rec"
    with pytest.raises(LogError, match=remedy):
        converted(tmp_path, [*states, *COMMANDS], contract(HEADER))


def test_a_header_clock_that_drifts_beyond_a_second_is_refused(tmp_path: Path) -> None:
    states = [state(t, t, START_S + t / 1000 * 1.5 - 1.2) for t in T_MS]
    with pytest.raises(LogError, match=r"drifting by -2\.450 s"):
        converted(tmp_path, [*states, *COMMANDS], contract(HEADER))


@pytest.mark.parametrize(
    ("stamp_s", "why"),
    [
        (lambda t: 0.0, "50 of 50 stamps are zero"),
        (lambda t: START_S + t // 1000, "the stamps are rounded to whole seconds"),
    ],
)
def test_useless_stamps_fall_back_to_receive_time(tmp_path: Path, stamp_s: Any, why: str) -> None:
    states = [state(t, k, stamp_s(t)) for k, t in enumerate(T_MS)]
    result = converted(tmp_path, [*states, *COMMANDS], contract(HEADER))
    assert said(result, f"/state: {why}, so receive time was taken: say clock: receive")
    assert result.steps.observations[:, 0].tolist() == list(range(49))


def test_simulated_stamps_beside_wall_receive_time_are_named(tmp_path: Path) -> None:
    states = [state(t, k, t / 1000) for k, t in enumerate(T_MS)]
    clocks = [clock(t, t / 1000) for t in T_MS]
    result = converted(tmp_path, [*clocks, *states, *COMMANDS])
    assert said(result, "simulated time as on /clock in the header, wall time at the recorder")
    assert len(result.steps.rewards) == 49


def test_receive_times_of_two_eras_are_reduced_to_one(tmp_path: Path) -> None:
    boot_ms = 20_000 - START_NS / 1e6
    early = [entry for k in range(5) for entry in (state(boot_ms + 100 * k, 99), command(boot_ms))]
    result = converted(tmp_path, [*early, *STATES, *COMMANDS])
    assert said(result, "wall time was taken, 10 messages of the other left out")
    assert result.steps.observations[:, 0].tolist() == list(range(49))
    with pytest.raises(LogError, match=r"/state simulated, /cmd wall.*use_sim_time"):
        convert_log(write_bag(tmp_path / "apart", [*early[::2], *COMMANDS]), contract())


def test_a_recorder_whose_clock_was_set_back_gives_two_stretches(tmp_path: Path) -> None:
    again = [state(t - 3000, 100 + k) for k, t in enumerate(range(5000, 10_000, 100))]
    after = [command(t - 2950, 1) for t in range(5000, 10_000, 100)]
    result = converted(tmp_path, [*STATES, *COMMANDS, *again, *after])
    assert said(result, "the recorder's clock was set back 1 times: each of the 2 stretches")
    steps = result.steps
    assert steps.facts["episodes"] == 2
    assert steps.observations[:, 0].tolist() == [*range(49), *range(100, 149)]
    assert set(steps.actions[:49, 0]) == {0.0}
    log = open_log(tmp_path / "bag")
    recording = read_topics(log, contract(), FieldPlan(contract(), ["x"]))
    with pytest.raises(LogError, match="converts, but cannot be replayed"):
        recording["state"]


@pytest.mark.parametrize("back_ms", [425, 975, 2025])
def test_a_clock_that_ntp_set_back_by_less_than_a_second_is_no_jitter(
    tmp_path: Path, back_ms: int
) -> None:
    entries = [
        entry
        for k in range(200)
        for t in [50 * k - (back_ms if k >= 100 else 0)]
        for entry in (state(t, k), command(t + 20))
    ]
    result = converted(tmp_path, entries, contract(tick={"rate_hz": 20}))
    assert said(result, "clock was set back 1 times: each of the 2 stretches")
    steps = result.steps
    assert (steps.next_observations - steps.observations == 1).all()
    assert len(steps.rewards) == 198


def test_chunks_out_of_order_are_sorted_and_not_taken_for_a_set_clock(tmp_path: Path) -> None:
    result = converted(tmp_path, [*STATES[25:], *STATES[:25], *COMMANDS])
    assert result.steps.observations[:, 0].tolist() == list(range(49))
    assert result.steps.facts["episodes"] == 1
    assert said(result, "/state: 1 messages lie in the file behind later ones: sorted")


def test_of_two_messages_at_one_time_the_last_counts(tmp_path: Path) -> None:
    twice = [entry for k, t in enumerate(T_MS) for entry in (state(t, -1), state(t, k))]
    result = converted(tmp_path, [*twice, *COMMANDS])
    assert result.steps.observations[:, 0].tolist() == list(range(49))
    assert said(result, "/state: 50 of 100 messages have the receive time of another")


def test_a_restart_of_the_simulated_world_is_a_reset(tmp_path: Path) -> None:
    clocks = [clock(t + 20, (t if t < 2500 else t - 2500) / 1000) for t in T_MS]
    result = converted(tmp_path, [*clocks, *STATES, *COMMANDS])
    assert said(result, "/clock went back 1 times: each ends an episode, as a reset")
    assert result.steps.facts["dropped_reset"] == 1
    assert np.flatnonzero(result.steps.timeouts).tolist() == [24, 47]
    assert 25 not in result.steps.observations


# -- arrival ---------------------------------------------------------------------------


def test_bursts_at_the_start_and_after_a_pause_are_reported(tmp_path: Path) -> None:
    late = [state(2000 + 0.1 * k, k) for k in range(20)]
    result = converted(tmp_path / "a", [*late, *STATES[21:], *COMMANDS])
    assert said(result, "/state: 20 messages came at once at the start (at 0.00 s)")
    paused = [*STATES[:10], *[state(4000 + 0.1 * k, k) for k in range(20)], *STATES[41:]]
    result = converted(tmp_path / "b", [*paused, *COMMANDS])
    assert said(result, "/state: 20 messages came at once after a pause of 3.10 s (at 4.00 s)")


def test_a_gap_is_never_filled_and_its_cost_is_told(tmp_path: Path) -> None:
    result = converted(tmp_path, [*STATES[:20], *STATES[30:], *COMMANDS])
    assert said(result, "/state paused 1 times for longer than its max_age_s of 0.25 s, at most")
    assert said(result, "1.10 s: 8 instants could not be used, nothing was filled in")
    assert result.steps.facts["largest_gap_s_state"] == pytest.approx(1.1)
    assert result.steps.facts["episodes"] == 2


@pytest.mark.parametrize(
    ("topic", "rule"),
    [
        ({}, "each holds until the next"),
        (
            {"command_timeout_s": 1.0, "on_silence": "zero"},
            "after 1 s without a new one it counts as zero (on_silence: zero; 30 of 49 steps)",
        ),
    ],
)
def test_sparse_commands_are_told_with_the_rule_for_silence(
    tmp_path: Path, topic: dict[str, Any], rule: str
) -> None:
    topics = contract().canonical()["topics"]
    topics["cmd"] |= topic
    entries = [*STATES, command(-10, 1), command(1990, 1)]
    result = converted(tmp_path, entries, contract(topics=topics))
    assert said(result, f"/cmd: only 2 commands in 5 s: {rule}")


def test_commands_recorded_late_are_suspected(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = np.convolve(rng.normal(size=310), np.ones(3) / 3, "valid")[:300]
    place = np.concatenate([[0], np.cumsum(given)])
    states = [state(100 * k, x) for k, x in enumerate(place)]
    in_time = [command(100 * k + 10, u) for k, u in enumerate(given)]
    assert not converted(tmp_path / "a", [*states, *in_time]).findings
    late = [command(100 * k + 210, u) for k, u in enumerate(given)]
    result = converted(tmp_path / "b", [*states, *late])
    assert said(result, "action 'u' goes best with the change of 'x' 2 steps EARLIER (correlation")


# -- values ----------------------------------------------------------------------------


def joints(t_ms: float, names: list[str], values: list[float]) -> Entry:
    fields = {
        "header": header(START_S + t_ms / 1000),
        "name": names,
        "position": np.array(values, np.float64),
        "velocity": np.zeros(len(names)),
        "effort": np.zeros(0),
    }
    return ("/joints", "sensor_msgs/msg/JointState", t_ms, fields)


def test_joints_are_matched_by_name_and_changes_of_order_are_told(tmp_path: Path) -> None:
    arm = contract(
        topics=contract().canonical()["topics"]
        | {
            "joints": {
                "topic": "/joints",
                "type": "sensor_msgs/msg/JointState",
                "max_age_s": 0.35,
            }
        },
        observations=[{"name": "q", "topic": "joints", "path": "position[left,right]"}],
        reward={"expression": "next_q_left"},
    )
    arms = [
        joints(t, ["left", "right"], [1, 2]) if t % 200 else joints(t, ["right", "left"], [2, 1])
        for t in T_MS
    ]
    grippers = [joints(t + 5, ["thumb"], [7]) for t in T_MS]
    result = converted(tmp_path, [*arms, *grippers, *COMMANDS], arm)
    assert {tuple(row) for row in result.steps.observations} == {(1.0, 2.0)}
    assert said(result, "/joints: its elements came in 2 orders: matched by name")
    assert said(result, "/joints: 50 messages were skipped: joint 'left' is not in name")
    assert result.steps.facts["skipped_incomplete_joints"] == 50


def test_nan_breaks_or_is_skipped_and_is_told(tmp_path: Path) -> None:
    states = [state(t, np.nan if k in (20, 21) else k) for k, t in enumerate(T_MS)]
    breaks = converted(tmp_path / "a", [*states, *COMMANDS])
    assert said(breaks, "field 'x' was NaN or infinite at 2 instants, first 2.00 s after")
    assert breaks.steps.facts["episodes"] == 2
    holds = converted(tmp_path / "b", [*states, *COMMANDS], contract({"on_nonfinite": "hold"}))
    assert said(holds, "/state: 2 messages with a NaN or infinity were skipped, the first at 2.00")
    assert holds.steps.facts["skipped_nonfinite_state"] == 2
    assert holds.steps.facts["episodes"] == 1


def test_flipping_quaternions_are_told_and_rot6d_has_no_flips(tmp_path: Path) -> None:
    def pose(t_ms: float, sign: float) -> Entry:
        quaternion = {"x": 0.0, "y": 0.0, "z": 0.6 * sign, "w": 0.8 * sign}
        fields = {
            "header": header(START_S + t_ms / 1000),
            "quaternion": ("geometry_msgs/msg/Quaternion", quaternion),
        }
        return ("/turn", "geometry_msgs/msg/QuaternionStamped", t_ms, fields)

    turn = {"topic": "/turn", "type": "geometry_msgs/msg/QuaternionStamped", "max_age_s": 0.25}
    topics = contract().canonical()["topics"] | {"turn": turn}
    quaternion = {"name": "turn", "topic": "turn", "path": "quaternion.{x,y,z,w}"}
    poses = [pose(t, -1 if t == 1000 else 1) for t in T_MS]
    raw = contract(topics=topics, observations=[quaternion], reward={"expression": "u"})
    result = converted(tmp_path / "a", [*poses, *COMMANDS], raw)
    assert said(result, "'turn' changes the sign of its quaternion in 2 of 49 steps")
    smooth = contract(
        topics=topics,
        observations=[{"name": "attitude", "derive": "rot6d", "of": ["turn"]}],
        signals=[quaternion],
        reward={"expression": "u"},
    )
    result = converted(tmp_path / "b", [*poses, *COMMANDS], smooth)
    assert not result.findings
    assert np.ptp(result.steps.observations, axis=0).max() == 0


def test_a_leap_of_the_state_is_a_reset_where_the_contract_says_so(tmp_path: Path) -> None:
    states = [state(t, k if k < 30 else k - 30) for k, t in enumerate(T_MS)]
    result = converted(tmp_path, [*states, *COMMANDS], contract(episode={"jump": {"x": 5}}))
    assert result.steps.facts["dropped_jump"] == 1
    assert np.flatnonzero(result.steps.timeouts).tolist() == [28, 47]


# -- other people's logs ---------------------------------------------------------------

EXAMPLES = {
    "lidar_cmd": (154, "simulated time in the header"),
    "turtlebot_imu_joint": (942, "(drifting by +"),
    "ur3_move": (420, "simulated time in the header"),
    "husky_odom_imu": (3951, None),
    "amr_location_velocity": (561, "EARLIER"),
    "nav2_collision_zstd": (115, "simulated time as on /clock"),
}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real logs at {REAL}")
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_contract_of_a_real_log_converts_it(name: str) -> None:
    steps, finding = EXAMPLES[name]
    log = next((REAL / name).glob("*.bag"), REAL / name)
    result = convert_log(log, load_contract(ROOT / "examples" / name / "contract.yaml"))
    assert len(result.steps.rewards) == steps
    assert said(result, finding) if finding else result.findings == ()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_contract_is_sound(name: str) -> None:
    loaded = load_contract(ROOT / "examples" / name / "contract.yaml")
    assert loaded.observation_size
    assert loaded.action_size


def test_a_terminal_rule_that_gives_nan_ends_nothing(tmp_path: Path) -> None:
    rules = contract(episode={"terminal": "sqrt(x - 40) - 2"})
    steps = converted(tmp_path, [*STATES, *COMMANDS], rules).steps
    assert steps.facts["dropped_after_terminal"] == 6  # 41 to 43 and 46 to 48; 44 is none
    assert np.flatnonzero(steps.terminals).tolist() == [40, 42]


# -- payloads --------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["receive", "header"])
def test_a_payload_that_is_no_message_is_skipped_and_told_and_costs_no_log(
    tmp_path: Path, clock: str
) -> None:
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, msgtype, typestore=TYPES)
            for topic, msgtype, *_ in (STATES[0], COMMANDS[0])
        }
        for topic, msgtype, t_ms, fields in [*STATES, *COMMANDS]:
            data = payload(msgtype, fields)
            if topic == "/state" and t_ms in (2000, 3000):
                data = data[:9] if t_ms == 2000 else b""
            writer.write(connections[topic], START_NS + round(t_ms * 1e6), data)
    result = convert_log(tmp_path / "bag", contract({"clock": clock}))
    assert said(result, "/state: 2 messages were skipped: geometry_msgs/msg/PointStamped: ")
    assert result.steps.observations[18:22, 0].tolist() == [18, 19, 19, 21]


# -- float32 ---------------------------------------------------------------------------


def test_what_float32_cannot_hold_is_dropped_and_named_not_infinite(tmp_path: Path) -> None:
    states = [state(t, 1e39 if k == 20 else k) for k, t in enumerate(T_MS)]
    commands = [command(t + 50, -1e300 if k == 40 else 0.5) for k, t in enumerate(T_MS)]
    result = converted(tmp_path, [*states, *commands])
    with np.errstate(over="raise"):
        assert np.isfinite(result.steps.observations.astype(np.float32)).all()
        assert np.isfinite(result.steps.actions.astype(np.float32)).all()
    assert result.steps.facts["dropped_beyond_float32"] == 3  # before and after 20, and of 40
    assert said(result, "observation 'x' was finite, but beyond float32, in which the policy")


def test_a_reward_beyond_float32_is_dropped(tmp_path: Path) -> None:
    rules = contract(reward={"expression": "where(x > 30.5, 1e200, x)"})
    result = converted(tmp_path, [*STATES, *COMMANDS], rules)
    assert result.steps.facts["dropped_reward_not_finite"] == 18
    assert len(result.steps.rewards) == 31


def test_a_position_too_far_from_the_origin_for_float32_is_named(tmp_path: Path) -> None:
    near = tmp_path / "near"
    near.mkdir()
    northing = [state(t, 5_400_000 + k / 10) for k, t in enumerate(T_MS)]
    result = converted(tmp_path, [*northing, *COMMANDS])
    assert said(result, "'x' varies by 1.4 (one standard deviation), but float32, in which the")
    assert said(result, "has steps of 0.5 there: observe its difference")
    assert not said(converted(near, [*STATES, *COMMANDS]), "float32")
