"""docs/bring-your-own-robot.md shows the files of examples/crane as they are, and they work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="mujoco is not installed")

from iql_ros.contract import load_contract
from sim.loop import fly
from sim.record import record
from sim.scenarios import check_topics, load_suite
from sim.world import load_world

ROOT = Path(__file__).parents[2]
CRANE = ROOT / "examples" / "crane"
DOC = (ROOT / "docs" / "bring-your-own-robot.md").read_text()


@pytest.mark.parametrize("name", ["contract.yaml", "world.yaml", "suite.yaml"])
def test_the_document_shows_the_file_as_it_is(name: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)\n```", DOC, re.DOTALL)
    assert (CRANE / name).read_text().rstrip() in blocks


def test_the_document_links_only_to_what_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)", DOC):
        assert (ROOT / "docs" / target).is_file(), target
    for name in re.findall(r"docs/[a-z-]+\.md", DOC):
        assert (ROOT / name).is_file(), name


def test_a_driver_who_damps_the_swing_brings_the_load_home() -> None:
    world = load_world(CRANE / "world.yaml", seed=1)

    def pilot(fields: dict[str, np.ndarray]) -> np.ndarray:
        wanted = np.clip(1.5 * fields["offset"], -0.6, 0.6) + fields["sway"]
        return np.asarray(np.clip(wanted, -0.6, 0.6))

    outcomes = [fly(world, pilot, episode) for episode in range(3)]
    assert [outcome.ending for outcome in outcomes] == ["success"] * 3
    idle = fly(world, lambda fields: np.zeros(1), 0)
    assert idle.ending == "time limit"


def test_operators_beside_the_world_file_record_bags(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CRANE, tmp_path / "crane"))
    recording = record(tmp_path / "logs", 2, 0, world=str(folder / "world.yaml"))
    assert [bag.name for bag in recording.bags] == ["crane_seed0_00000-00001"]
    assert all(result.steps > 10 for result in recording.results)


def test_the_suite_fits_the_robot() -> None:
    suite = load_suite(CRANE / "suite.yaml")
    check_topics(suite, load_contract(CRANE / "contract.yaml"))
    world = load_world(CRANE / "world.yaml")
    push = suite.scenarios["push"].push
    assert push is not None
    assert world.model.body(push.body).name == "load"
