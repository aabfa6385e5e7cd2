"""`iql-ros gate` as it is typed, on a robot of two joints that holds still by itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from iql_ros.bundle import load_bundle
from iql_ros.bundles.gate_record import why_not
from iql_ros.cli import app
from sim.world import load_world
from tests.small_world import joints_contract, write_joint_bundle, write_world

TICK = {"trigger": "joints", "every": 5}
SUITE = """
format: 1
suite: small
world: world.yaml
scenarios:
  nominal: {episodes: 6, must: {success: 0.0, interventions: 1.0}}
  topic_dead: {episodes: 3, fault: {at_s: 0.5}}
  emergency_stop: {episodes: 3, stop_at_s: 0.5}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    write_world(folder, joints_contract(TICK))
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "strict.yaml").write_text(SUITE.replace("success: 0.0", "success: 1.0"))
    return folder


@pytest.fixture
def bundle(folder):
    """A bundle without a record."""
    path = folder / "bundle"
    if not path.exists():
        write_joint_bundle(path, TICK)
    (path / "gate.json").unlink(missing_ok=True)
    return path


def gate(*arguments, code=0):
    result = CliRunner().invoke(
        app, ["gate", *map(str, arguments), "--no-films"], env={"COLUMNS": "200"}
    )
    assert result.exit_code == code, result.output
    return result.output


def test_a_passed_suite_lets_the_bundle_act_and_is_the_same_from_two_workers(folder, bundle):
    output = gate(bundle, "--suite", folder / "suite.yaml", "--jobs", 1)
    assert "passed: 12 episodes, seed 0" in output
    loaded = load_bundle(bundle)
    assert why_not(loaded, loaded.gate) is None
    record = json.loads((bundle / "gate.json").read_text())
    assert record["bound_to"]["world"]["sha256"] == load_world(folder / "world.yaml").digest
    assert (bundle.parent / "bundle.gate.html").exists()
    first = (bundle / "gate.json").read_bytes()
    gate(bundle, "--suite", folder / "suite.yaml", "--jobs", 2)
    assert (bundle / "gate.json").read_bytes() == first


def test_a_failed_suite_exits_with_2_says_what_failed_and_how_to_watch_it(folder, bundle):
    output = gate(bundle, "--suite", folder / "strict.yaml", "--jobs", 1, code=2)
    assert re.search(r"failed nominal: success rate .* must be at least 1", output)
    assert re.search(r"watch: iql-ros gate .* --scenario nominal --episode \d", output)
    assert "failed in simulation" in (why_not(load_bundle(bundle), load_bundle(bundle).gate) or "")


def test_a_record_that_is_replaced_is_told_with_its_suite_and_verdict(folder, bundle):
    strict = SUITE.replace("suite: small", "suite: stricter").replace("0.0, inter", "1.0, inter")
    (folder / "stricter.yaml").write_text(strict)
    first = gate(bundle, "--suite", folder / "stricter.yaml", "--jobs", 1, code=2)
    assert "it replaces" not in first
    again = gate(bundle, "--suite", folder / "suite.yaml", "--jobs", 1, "--episodes", 2)
    assert "it replaces the record of suite 'stricter', 12 episodes: failed\n" in again
    third = gate(bundle, "--suite", folder / "suite.yaml", "--jobs", 1)
    assert "it replaces the record of suite 'small', 6 episodes: passed\n" in third
    assert load_bundle(bundle).gate.episodes == 12


def test_a_fault_that_never_came_fails_and_says_what_to_do(folder, bundle):
    late = SUITE.replace("at_s: 0.5}", "at_s: 1.999}")
    (folder / "late.yaml").write_text(late)
    arguments = (bundle, "--suite", folder / "late.yaml", "--scenario", "topic_dead")
    output = gate(*arguments, "--jobs", 1, code=2)
    assert "failed topic_dead: episodes in which fault.at_s came 0 (0 of 3), must be" in output
    assert "let fault.at_s begin earlier" in output


def test_one_episode_is_played_tick_by_tick_and_writes_nothing(folder, bundle):
    arguments = (bundle, "--suite", folder / "suite.yaml", "--scenario", "topic_dead")
    output = gate(*arguments, "--episode", 1)
    assert re.search(r"0\.010 s  ok  dq_0 ", output)
    assert "stale: no tick for" in output
    assert "the policy acted for" in output
    assert not (bundle / "gate.json").exists()


def test_one_scenario_alone_gives_a_verdict_but_no_record(folder, bundle):
    arguments = (bundle, "--suite", folder / "suite.yaml", "--jobs", 1)
    output = gate(*arguments, "--scenario", "nominal")
    assert "passed, of one scenario: no gate.json is written" in output
    assert not (bundle / "gate.json").exists()


def test_an_episode_without_its_scenario_is_refused(folder, bundle):
    output = gate(bundle, "--suite", folder / "suite.yaml", "--episode", 1, code=2)
    assert "--episode needs --scenario" in output


def test_a_world_that_speaks_otherwise_is_refused(folder, bundle):
    result = CliRunner().invoke(app, ["gate", str(bundle), "--suite", "arm6"])
    assert re.search(
        r"the bundle's topic 'joints' is .*joint_states|commands 2 components|topic 'command' is",
        str(result.exception),
    )


def test_a_bundle_without_a_suite_of_its_own_is_asked_for_its_world(bundle):
    result = CliRunner().invoke(app, ["gate", str(bundle)])
    assert re.match(
        r"suite 'any' names no world, and robot 'joints' has no shipped one .*: describe the "
        r"robot in a world file, then give --world WORLD\.yaml, or --suite SUITE\.yaml .*"
        r"docs/bring-your-own-robot\.md",
        str(result.exception),
    )


def test_the_viewer_without_a_display_says_so(folder, bundle, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    arguments = ["gate", str(bundle), "--suite", str(folder / "suite.yaml")]
    arguments += ["--scenario", "nominal", "--episode", "0", "--viewer"]
    result = CliRunner().invoke(app, arguments)
    assert "the viewer needs a display, and DISPLAY is not set" in str(result.exception)


def test_the_viewer_on_a_display_that_cannot_be_opened_says_so(folder, bundle):
    done = _viewed(bundle, folder, [], {"DISPLAY": ":4711"})
    assert done.returncode == 1
    assert "the viewer cannot open the display ':4711': leave out --viewer" in _said(done)


def test_the_viewer_shows_an_episode_and_closes(folder, bundle):
    prefix = [] if shutil.which("xvfb-run") is None else ["xvfb-run", "-a"]
    if not prefix and not os.environ.get("DISPLAY"):
        pytest.skip("needs a display, or xvfb-run")
    done = _viewed(bundle, folder, prefix, {})
    assert done.returncode == 0, done.stderr
    assert "episode 0 of nominal: " in done.stdout


def _viewed(bundle, folder, prefix, environment):
    command = [*prefix, sys.executable, "-m", "iql_ros.cli", "gate", str(bundle)]
    command += ["--suite", str(folder / "suite.yaml"), "--scenario", "nominal"]
    return subprocess.run(
        [*command, "--episode", "0", "--viewer"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def _said(done):
    return " ".join(done.stderr.split())
