"""The report of a dataset finds what was planted in it, and leaves a sound dataset in peace."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from iql_ros.contract import Contract, load_contract
from tests.bags import Entry, float64, twist, write_bag
from training.conversion.convert import convert
from training.report import build_report, render_report, write_report

SHARED = Path(__file__).parents[2].parent / "shared" / "real_logs"
TURTLE = Path(__file__).parents[2] / "examples" / "turtlesim" / "contract.yaml"
START_NS, STEP_NS = 1_700_000_000_000_000_000, 50_000_000
FLOAT = "std_msgs/msg/Float64"


def contract(**changes: Any) -> Contract:
    base: dict[str, Any] = {
        "format": 1,
        "robot": "toy",
        "tick": {"rate_hz": 20},
        "topics": {
            "state": {"topic": "/state", "type": "geometry_msgs/msg/Vector3", "max_age_s": 0.25},
            "cmd": {"topic": "/cmd", "type": "geometry_msgs/msg/Twist"},
        },
        "observations": [
            {"name": "p", "topic": "state", "path": "{x,y}", "unit": "m", "limits": [-9, 9]},
            {"name": "angle", "topic": "state", "path": "z", "unit": "rad"},
        ],
        "actions": [
            {"name": "u", "topic": "cmd", "path": "linear.{x,y}", "limits": [-2, 2], "safe": 0}
        ],
        "reward": {"expression": "-p_x"},
        "episode": {"terminal": "p_x > 8", "max_steps": 100},
    }
    return Contract.model_validate({**base, **changes})


class Dataset:
    """Arrays of a sound dataset, to plant faults in; `report` gives what is said of them."""

    def __init__(self, episodes: int = 60, length: int = 100) -> None:
        rng = np.random.default_rng(1)
        shape = (episodes, length + 1, 3)
        paths = np.cumsum(rng.normal(0, 0.05, shape), axis=1) + rng.normal(0, 0.7, shape)[:, :1]
        rows = episodes * length
        self.observations = paths[:, :-1].reshape(rows, 3).astype(np.float32)
        self.next_observations = paths[:, 1:].reshape(rows, 3).astype(np.float32)
        self.actions = np.tanh(rng.normal(0, 0.5, (rows, 2))).astype(np.float32)
        self.episode = np.repeat(np.arange(episodes), length)
        self.last = np.arange(rows) % length == length - 1
        self.terminals = self.last & (self.episode % 2 == 0)
        self.t_ns = START_NS + STEP_NS * (np.arange(rows) + self.episode)
        self.source = np.zeros(rows, np.int32)
        self.rewards = -self.observations[:, 0]
        self.facts: dict[str, Any] = {"instants": rows, "steps": rows}
        self.names = ["log.mcap"]
        self.findings: list[str] = []
        self.failed: list[dict[str, str]] = []

    def report(self, made_with: Contract | None = None) -> dict[str, Any]:
        columns = {
            name: getattr(self, name)
            for name in ("observations", "next_observations", "actions", "rewards", "terminals")
        }
        columns["timeouts"] = self.last & ~self.terminals
        infos = {"t_ns": self.t_ns, "episode": self.episode, "source": self.source}
        logs = [
            {"name": name, "sha256": "5" * 64, "start_ns": START_NS, "steps": len(self.rewards)}
            | {"facts": self.facts, "findings": self.findings}
            for name in self.names
        ]
        return build_report(
            columns, infos, made_with or contract(), logs, self.failed, dataset="toy.h5"
        )

    def state(self, rows: slice, column: int, value: Any) -> None:
        """Sets an observation, and the next observation of the rows before accordingly."""
        self.observations[rows, column] = value
        same = np.flatnonzero(self.episode[1:] == self.episode[:-1])
        self.next_observations[same] = self.observations[same + 1]


def component(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in report["components"] if c["name"] == name)


def warning(report: dict[str, Any], word: str) -> str:
    found = [text for text in report["warnings"] if word in text]
    assert len(found) == 1, report["warnings"]
    return found[0]


class Tags(HTMLParser):
    """Checks that tags close in order; collects attributes and text."""

    VOID = ("meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


# -- the whole way -----------------------------------------------------------------------


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with h5py.File(path) as file:
        columns = {name: file[name][()] for name in file if name != "infos"}
        infos = {n: file["infos"][n][()] for n in ("t_ns", "episode", "source")}
    return columns, infos


def test_a_converted_bag_gives_the_same_facts_in_python_json_and_html(tmp_path: Path) -> None:
    toy = contract(
        tick={"rate_hz": 10},
        topics={
            "state": {"topic": "/state", "type": FLOAT, "max_age_s": 0.25},
            "cmd": {"topic": "/cmd", "type": "geometry_msgs/msg/Twist"},
        },
        observations=[{"name": "p", "topic": "state", "path": "data"}],
        reward={"expression": "next_p"},
        episode={"terminal": "next_p > 11"},
    )
    times = [*range(0, 1000, 100), *range(2000, 2500, 100)]
    entries: list[Entry] = [("/state", FLOAT, t, float64(i)) for i, t in enumerate(times)]
    entries += [("/cmd", "geometry_msgs/msg/Twist", t + 50, twist(0.1)) for t in times]
    bag = write_bag(tmp_path / "bag", entries)
    told = convert([bag], toy, tmp_path / "a.h5")
    report = build_report(*read(tmp_path / "a.h5"), toy, told["logs"], dataset="a.h5")
    # The pause after state 9 ends one episode; the step to state 12 is terminal and ends the other.
    ends = {"terminal": 1, "max_steps": 0, "log_end": 0, "hole": 1}
    assert report["episode_facts"]["ends"] == ends
    assert report["steps"] == told["steps"]
    assert report["dropped"]["no_observation"] > 0
    write_report(tmp_path / "a.html", tmp_path / "a.json", report)
    assert json.loads((tmp_path / "a.json").read_text()) == report
    assert (tmp_path / "a.html").read_text() == render_report(json.loads(json.dumps(report)))
    assert f"{report['steps']}steps" in Tags((tmp_path / "a.html").read_text()).text


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real logs at {SHARED}")
def test_one_real_log_in_two_compressions_is_told_as_repeated(tmp_path: Path) -> None:
    turtle = load_contract(TURTLE)
    names = ["turtlesim_rosbagjs_bz2", "turtlesim_rosbagjs_lz4", "turtlesim_db3"]
    told = convert([SHARED / name for name in names], turtle, tmp_path / "a.h5")
    report = build_report(*read(tmp_path / "a.h5"), turtle, told["logs"])
    assert report["duplicates"]["equal"] == [[0, 3], [1, 4]]
    assert told["logs"][1]["name"] in warning(report, "exactly")
    assert component(report, "heading")["jumps"]["kind"] == "turn"
    assert "derive: sincos" in warning(report, "wraps around")


# -- the page ----------------------------------------------------------------------------


def test_the_page_needs_nothing_from_outside() -> None:
    page = render_report(Dataset().report())
    for outside in ("http:", "https:", "src=", "@import", "url(", "<script", "<link", "//"):
        assert outside not in page.replace("<!doctype html>", "")


def test_text_of_other_peoples_logs_stays_text() -> None:
    data = Dataset(6, 20)
    evil = "<script>alert('x')</script>&"
    data.names, data.findings = [evil], [evil]
    data.facts[f"count_{evil}"] = evil
    data.failed = [{"path": evil, "reason": evil}]
    tags = Tags(render_report({**data.report(), "dataset": evil, "contract": evil}))
    assert "script" not in tags.seen
    assert tags.text.count(evil) >= 6


def test_a_sound_dataset_has_no_warnings_and_the_page_says_so() -> None:
    report = Dataset().report()
    assert report["warnings"] == []
    assert "Nothing in these figures speaks against training" in render_report(report)


def test_each_warning_stands_on_the_page() -> None:
    data = Dataset(3, 20)
    data.actions[:, 1] = 0.5
    report = data.report()
    text = Tags(render_report(report)).text
    assert len(report["warnings"]) >= 2
    for told in report["warnings"]:
        assert told in text


def test_the_same_dataset_gives_the_same_bytes() -> None:
    first, second = Dataset(5).report(), Dataset(5).report()
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert render_report(first) == render_report(second)


def test_five_thousand_episodes_of_300_logs_fit_on_a_page() -> None:
    data = Dataset(5_000, 6)
    data.names = [f"log_{i}" for i in range(300)]
    data.source = (data.episode * 300 // 5_000).astype(np.int32)
    page = render_report(data.report())
    assert len(page) < 2_000_000
    assert "Of 300 logs the 40 that lost the largest share" in page
    assert "limit 3000" in page


def test_a_log_of_a_thousand_episodes_is_drawn_in_slices() -> None:
    page = render_report(Dataset(1_000, 6).report())
    assert 300 < page.count('height="12"') <= 400


def test_a_dataset_of_one_step_has_a_report() -> None:
    report = Dataset(1, 1).report()
    assert (report["steps"], report["episodes"], report["timing"]["rate_hz"]) == (1, 1, None)
    Tags(render_report(report))


def test_writing_again_replaces_both_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    for episodes in (2, 3):
        report = Dataset(episodes, 20).report()
        write_report(tmp_path / "a.html", tmp_path / "a.json", report)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.json"]
    assert json.loads((tmp_path / "a.json").read_text())["episodes"] == 3


# -- figures -----------------------------------------------------------------------------


def test_quantiles_are_values_of_the_data_and_bars_add_up_to_it() -> None:
    data = Dataset()
    facts, values = component(data.report(), "p_y"), data.observations[:, 1]
    exact = np.quantile(values, [0.05, 0.5, 0.99], method="nearest")
    np.testing.assert_allclose([facts["quantiles"][q] for q in ("5%", "50%", "99%")], exact)
    np.testing.assert_allclose([facts["min"], facts["max"]], [values.min(), values.max()])
    np.testing.assert_allclose(facts["std"], values.astype(float).std())
    shape = facts["histogram"]
    expected, _ = np.histogram(values, bins=np.array(shape["edges"]))
    assert np.abs(np.array(shape["counts"]) - expected).sum() <= 2  # edges have nine digits
    assert sum(shape["counts"]) == len(values)


def test_an_outlier_is_counted_beside_the_histogram_and_outside_the_limits() -> None:
    data = Dataset()
    data.observations[7, 0] = 1e4
    facts = component(data.report(), "p_x")
    assert (facts["histogram"]["above"], facts["outside"]) == (1, 1)
    assert facts["histogram"]["edges"][-1] < 100
    assert max(facts["histogram"]["counts"]) < 0.5 * len(data.rewards)


def test_values_outside_the_limits_are_named_with_their_share() -> None:
    data = Dataset()
    data.actions[:600, 1] = 2.5
    data.actions[600:1200, 1] = 2.0
    report = data.report()
    facts = component(report, "u_y")
    assert (facts["outside"], facts["at_high"], facts["at_low"]) == (600, 600, 0)
    assert "u_y in 10.0 %" in warning(report, "Outside the limits")


def test_nan_is_counted_and_never_reaches_the_json() -> None:
    data = Dataset()
    data.observations[3, 1] = np.nan
    data.rewards[5] = np.inf
    report = data.report()
    json.dumps(report, allow_nan=False)
    assert component(report, "p_y")["missing"] == 1
    assert "on_nonfinite: hold" in warning(report, "p_y in")
    assert "1 rewards are NaN" in warning(report, "rewards")
    Tags(render_report(report))


def test_each_episode_has_the_reason_of_its_end() -> None:
    data = Dataset(4, 100)
    data.names = ["a", "b"]
    data.source = (data.episode >= 2).astype(np.int32)
    data.terminals[:] = False
    data.terminals[99] = True
    keep = np.ones(400, bool)
    keep[290:300] = keep[390:400] = False  # the last episodes but one and the last: cut short
    for name in (
        *("observations", "next_observations", "actions", "rewards", "terminals"),
        *("episode", "t_ns", "source"),
    ):
        setattr(data, name, getattr(data, name)[keep])
    data.last = np.append(data.episode[1:] != data.episode[:-1], True)
    report = data.report()
    each = report["episode_facts"]["each"]
    assert each["end"] == ["terminal", "max_steps", "hole", "log_end"]
    assert each["length"] == [100, 100, 90, 90]
    assert [log["episodes"] for log in report["logs"]] == [2, 2]
    np.testing.assert_allclose(each["return"][0], data.rewards[:100].sum(), rtol=1e-5)
    np.testing.assert_allclose(each["duration_s"][0], 5.0)


# -- faults ------------------------------------------------------------------------------


def test_an_action_that_never_varies_and_a_constant_observation_are_named() -> None:
    data = Dataset()
    data.actions[:, 1] = 0.25
    data.observations[:, 2] = data.next_observations[:, 2] = 1.5
    report = data.report()
    assert "u_y = 0.25" in warning(report, "Never used")
    assert "angle = 1.5" in warning(report, "Constant in the whole dataset")


def test_a_sensor_that_hangs_while_the_robot_moves_is_found_at_its_row() -> None:
    data = Dataset()
    data.state(slice(1020, 1060), 1, data.observations[1020, 1])
    data.state(slice(1060, 1100), 1, data.observations[1060:1100, 1] + 1)
    report = data.report()
    stuck = {"stretches": 1, "steps": 39, "longest": 39, "row": 1020}
    assert component(report, "p_y")["frozen"] == stuck
    assert component(report, "p_x")["frozen"] is None
    assert "once, the longest 1.95 s from row 1020" in warning(report, "Frozen")


def test_rest_is_not_taken_for_a_frozen_sensor() -> None:
    data = Dataset()
    everything = slice(1020, 1060)  # all signals rest, and then go on from where they were
    data.state(everything, slice(None), data.observations[1060])
    gentle = slice(2020, 2060)  # one signal rests and goes on without a leap
    data.state(gentle, 1, data.observations[2060, 1])
    idle = slice(3020, 3060)  # one signal hangs, but nobody drives
    data.state(idle, 1, 5.0)
    data.actions[idle] = 0
    assert component(data.report(), "p_y")["frozen"] is None


def test_a_clipped_sensor_is_told_from_one_that_rests_once() -> None:
    data = Dataset()
    data.observations[:, 1] = np.minimum(data.observations[:, 1], 0.5)
    assert "at 0.5" in warning(data.report(), "as if clipped")
    data = Dataset()
    data.observations[1000:1500, 1] = 8.0
    assert component(data.report(), "p_y")["visits_max"] == 1
    assert not any("as if clipped" in text for text in data.report()["warnings"])


def test_a_state_that_leaps_inside_an_episode_is_told_with_its_row() -> None:
    data = Dataset()
    data.state(slice(550, 600), 0, data.observations[550:600, 0] + 6)
    report = data.report()
    assert component(report, "p_x")["jumps"]["row"] == 549
    assert "at row 549" in warning(report, "Leaps")
    assert "episode.reset" in warning(report, "Leaps")


def test_an_angle_that_wraps_is_told_from_a_leap() -> None:
    data = Dataset()
    for column in (data.observations, data.next_observations):
        column[:, 2] = (3 * column[:, 2] + np.pi) % (2 * np.pi) - np.pi
    report = data.report()
    assert component(report, "angle")["jumps"]["kind"] == "turn"
    assert "angle." in warning(report, "wraps around")


def test_a_quaternion_that_changes_its_sign_is_told_from_a_leap() -> None:
    data = Dataset()
    for column in (data.observations, data.next_observations):
        column[:, 0] = 0.8 + 0.02 * column[:, 0]
    data.state(slice(550, 600), 0, -data.observations[550:600, 0])
    data.next_observations[599, 0] *= -1
    state = {"topic": "/state", "type": "sensor_msgs/msg/Imu", "max_age_s": 0.25}
    fields = [
        {"name": "turn", "topic": "state", "path": "orientation.{x,y}"},
        {"name": "z", "topic": "state", "path": "linear_acceleration.z"},
    ]
    imu = contract(
        topics={"state": state, "cmd": contract().topics["cmd"].model_dump()},
        observations=fields,
        reward={"expression": "z"},
        episode={"terminal": "z > 8", "max_steps": 100},
    )
    report = data.report(imu)
    told = {"kind": "flip", "count": 1, "row": 549}
    assert told.items() <= component(report, "turn_x")["jumps"].items()
    assert "turn_x, once" in warning(report, "same rotation")


def test_equal_and_nearly_equal_episodes_are_found() -> None:
    data = Dataset()
    for column in (data.observations, data.next_observations, data.actions):
        column[2000:2100] = column[300:400]
        column[5000:5100] = column[700:800] + 0.005
    report = data.report()
    assert report["duplicates"]["equal"] == [[3, 20]]
    assert [pair[:2] for pair in report["duplicates"]["near"]] == [[7, 50]]
    assert "1 episodes repeat another one exactly (in log.mcap)" in warning(report, "exactly")
    text = Tags(render_report(report)).text
    assert "episode 7 of log.mcap" in text


def test_rows_that_do_not_follow_each_other_are_counted() -> None:
    data = Dataset()
    data.next_observations[100:160] += 0.5
    report = data.report()
    assert report["broken_pairs"] == 60
    assert "1.0 %" in warning(report, "next observation")


def test_a_constant_reward_and_an_idle_robot_are_told() -> None:
    data = Dataset()
    data.rewards[:] = -1
    data.actions[:4000] = 0
    report = data.report()
    assert "The reward is -1 in every step" in warning(report, "reward")
    assert report["idle_steps"] == 4000
    assert "66.7 %" in warning(report, "safe action")


def test_endings_that_teach_nothing_are_told() -> None:
    data = Dataset()
    data.terminals[:] = False
    assert "p_x > 8" in warning(data.report(), "terminal rule")
    without = contract(episode={})
    assert "episode.terminal" in warning(data.report(without), "no terminal rule")


def test_what_was_dropped_names_the_topic_and_the_remedy() -> None:
    data = Dataset()
    data.facts = {
        "instants": 10_000,
        "steps": 6_000,
        "dropped_no_observation": 3_900,
        "dropped_reset": 100,
        "stale_state": 3_000,
        "stale_other": 10,
    }
    report = data.report()
    assert report["dropped"] == {"no_observation": 3_900, "reset": 100}
    told = warning(report, "dropped")
    assert "39.0 %" in told
    assert "most often state, 3000 times" in told


def test_uneven_steps_and_failed_logs_and_findings_are_told() -> None:
    data = Dataset()
    data.t_ns += np.where(np.arange(len(data.t_ns)) % 30 == 7, 30_000_000, 0)
    data.failed = [{"path": "bad.mcap", "reason": "no such topic"}]
    data.findings = ["a chunk was damaged"]
    report = data.report()
    assert report["timing"]["rate_hz"] == 20
    assert "intervals" in warning(report, "stutters")
    assert "1 of 2 logs gave nothing (bad.mcap)" in warning(report, "gave nothing")
    assert "log.mcap" in warning(report, "while reading")
    text = Tags(render_report(report)).text
    assert "no such topic" in text
    assert "a chunk was damaged" in text


def test_a_small_dataset_is_told_as_small() -> None:
    assert "100 steps" in warning(Dataset(2, 50).report(), "are few")
