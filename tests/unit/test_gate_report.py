"""The pages of a gate: built from real runs of a small world."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

pytest.importorskip("mujoco", reason="mujoco is not installed")

from iql_ros.bundle import Bundle
from iql_ros.bundles.gate_record import GateRecord
from iql_ros.errors import ContractError
from sim.compare import POOLED, compare
from sim.film import Filmed, film_apart
from sim.gate import MakeController, Run, controller_of, run_suite
from sim.report import render_gate, write_report
from sim.report_compare import names_of, render_comparison
from sim.report_facts import facts_of, usual_episode, worst_of
from sim.scenarios import load_suite
from sim.verdict import record_of
from tests.small_world import joints_contract, write_joint_bundle, write_world

Ran = tuple[Bundle, GateRecord, Run, MakeController, str]

SUITE = {
    "format": 1,
    "suite": "two_joints",
    "world": "world.yaml",
    "description": "Brings <the first> joint home.",
    "scenarios": {
        "nominal": {"episodes": 4, "must": {"success": 0.2}},
        "delayed": {
            "description": "Commands come late.",
            "episodes": 3,
            "delay_ticks": [2, 2],
            "must": {"success": 0.9},
        },
        "emergency_stop": {
            "episodes": 3,
            "stop_at_s": [0.05, 0.2],
            "must": {"success": None, "stop_ticks": 1},
        },
    },
}


def run(folder: Path, seed: int) -> Ran:
    suite = folder / "suite.yaml"
    if not suite.exists():
        write_world(folder, joints_contract({"trigger": "joints", "every": 5}))
        suite.write_text(yaml.safe_dump(SUITE, sort_keys=False))
    bundle = write_joint_bundle(folder / f"policy_{seed}", {"trigger": "joints", "every": 5}, seed)
    make = partial(controller_of, bundle.path)
    ran = run_suite(load_suite(suite).narrowed(), 0, make)
    command = f"iql-ros gate {bundle.path} --suite {suite}"
    return bundle, record_of(bundle, ran), ran, make, command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def ran(folder: Path) -> Ran:
    return run(folder, 3)


class Whole(HTMLParser):
    """Fails where tags do not close in order; keeps what is fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v for k, v in attrs if k in ("src", "href") and v and v[:5] != "data:"]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_whole(page: str) -> None:
    parser = Whole()
    parser.feed(page)
    assert parser.open == []
    assert parser.fetched == []


def test_the_page_is_whole_and_says_what_the_record_says(ran: Ran) -> None:
    bundle, record, run, make, command = ran
    assert record.verdict == "failed"  # three episodes cannot show 90 %
    page = render_gate(
        facts_of(bundle, record, run, make, command=command),
        {},
    )
    check_whole(page)
    assert "Failed: one criterion does not hold." in page
    criterion = record.scenarios[1].criteria[0]
    assert criterion.count == criterion.of == 3
    assert f"<li>delayed: {criterion.in_words()}; too few episodes to show it</li>" in page
    assert "Brings &lt;the first&gt; joint home." in page
    assert "worst stop <b>" in page
    assert record.bound_to.policy in page
    assert "q_a" in page  # what the task looks at is drawn
    assert "dq_1" in page


def test_the_same_run_gives_the_same_facts(ran: Ran) -> None:
    bundle, record, run, make, command = ran
    first, again = (facts_of(bundle, record, run, make, command=command) for _ in range(2))
    assert first == again


def test_a_strand_is_the_episode_that_was_judged(ran: Ran) -> None:
    bundle, record, run, make, command = ran
    for line in facts_of(bundle, record, run, make, command=command)["strands"]:
        judged = run.episodes[line["scenario"]][line["episode"]]
        assert line["statuses"] == list(judged.trace.statuses)
        assert line["success"] == judged.outcome.success
        # "abs(q_a) < 0.3" ends an episode with success
        assert (abs(line["task"]["q_a"][-1]) < 0.3) == judged.outcome.success


def test_the_worst_come_from_failed_scenarios_first(ran: Ran) -> None:
    _, record, run, _, _ = ran
    worst = worst_of(record, run)
    assert worst[0][0] == "delayed"
    assert all(name != "emergency_stop" for name, _ in worst)
    returns = [run.episodes["delayed"][n].outcome.total_reward for s, n in worst if s == "delayed"]
    failing = set(record.scenarios[1].failing)
    if not failing:
        assert returns == sorted(returns)


def test_the_usual_episode_succeeds_if_any_does(ran: Ran) -> None:
    episodes = ran[2].episodes["nominal"]
    number = usual_episode(episodes)
    assert episodes[number].outcome.success or not any(e.outcome.success for e in episodes)


def test_two_policies_are_set_beside_each_other_on_the_same_seeds(folder: Path, ran: Ran) -> None:
    other = run(folder, 8)
    rows = compare(ran[2], other[2])
    assert [row.scenario for row in rows] == [*SUITE["scenarios"], POOLED]
    for row in rows:
        for gap in (row.gap, row.return_gap, row.interventions_gap):
            assert gap[1] <= gap[0] <= gap[2]
    page = render_comparison((ran[0], other[0]), (ran[1], other[1]), rows)
    check_whole(page)
    assert "policy_3 and policy_8" in page


def test_a_policy_beside_itself_differs_in_nothing(ran: Ran) -> None:
    bundle, record, run, _, _ = ran
    rows = compare(run, run)
    assert all(row.only == (0, 0) for row in rows)
    assert all(row.return_gap == (0.0, 0.0, 0.0) for row in rows)
    # Episodes of one start do not count twice: no narrower than its four starts alone.
    assert rows[-1].episodes == 7
    assert rows[-1].gap[2] >= 0.9 * rows[0].gap[2]
    page = render_comparison((bundle, bundle), (record, record), rows)
    assert "do not tell them apart" in page


def test_bundles_of_one_name_are_told_apart_by_their_paths(ran: Ran, tmp_path: Path) -> None:
    bundle = ran[0]
    other = replace(bundle, path=tmp_path / bundle.path.name)
    assert names_of(bundle, other) == (
        f"{bundle.path.parent.name}/{bundle.path.name}",
        f"{tmp_path.name}/{bundle.path.name}",
    )


def test_runs_of_different_seeds_are_not_paired(ran: Ran) -> None:
    run = ran[2]
    with pytest.raises(ContractError, match="only the same can be paired"):
        compare(run, replace(run, seed=run.seed + 1))


def test_without_rendering_the_page_says_so_and_is_written(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")  # is not installed, or renders: both are answers
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    bundle, record, run, make, command = ran
    out = tmp_path / "gate.html"
    missing = write_report(out, bundle, record, run, make, command=command)
    page = out.read_text()
    check_whole(page)
    if missing is None:
        assert "data:video/mp4;base64," in page
    else:
        assert missing.startswith("rendering is not there (")
        assert "No film: rendering is not there (" in page


def test_a_film_is_an_mp4(ran: Ran) -> None:
    bundle, _, run, _, _ = ran
    film = film_apart(bundle.path, run.suite, run.seed, "nominal", 0)
    if film.mp4 is None:
        pytest.skip(film.missing or "")
    assert film.mp4[4:8] == b"ftyp"
    assert b"avc1" in film.mp4


def test_a_film_that_is_there_is_shown_within_the_page(ran: Ran) -> None:
    bundle, record, run, make, command = ran
    films = {"usual": Filmed(b"film", None), "worst": Filmed(None, "no <screen>")}
    page = render_gate(
        facts_of(bundle, record, run, make, command=command),
        films,
    )
    check_whole(page)
    assert 'src="data:video/mp4;base64,ZmlsbQ=="' in page
    assert "No film: no &lt;screen&gt;" in page
