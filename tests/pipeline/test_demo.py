"""`iql-ros demo` with a recipe so small that nothing is learnt: every step and what it leaves."""

import json

import pytest

from iql_ros.bundle import load_bundle
from iql_ros.cli import app
from iql_ros.errors import IqlRosError
from iql_ros.verbs.demo import run_demo
from iql_ros.verbs.recipes import RECIPES, Recipe

SUITE = """
format: 1
suite: small
world: cartpole
scenarios:
  nominal: {episodes: 2}
  emergency_stop: {episodes: 2, stop_at_s: [0.5, 1.0]}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    (folder / "small.yaml").write_text(SUITE)
    options = ["--steps", "100", "--set", "hidden=[16,16]", "--set", "evaluate_every=100"]
    options += ["--set", "checkpoint_every=100"]
    recipe = Recipe(
        robot="cartpole",
        suite=str(folder / "small.yaml"),
        out=folder / "runs",
        dataset="small.h5",
        recorded=8,
        training={"bc": options, "iql": options},
        judged=3,
        verb=("swing up", "swings up", "swung up"),
    )
    return recipe, run_demo(recipe, recipe.out, fresh=True)


def test_a_policy_that_learnt_nothing_fails_its_gate_and_the_table_says_so(small):
    recipe, passed = small
    assert not passed
    summary = json.loads((recipe.out / "summary.json").read_text())
    assert summary["gate"] == "failed"
    assert summary["behaviour"]["episodes"] == 8
    assert {summary[kind]["episodes"] for kind in ("bc", "iql")} == {3}
    assert set(summary["margins"]) == {"behaviour", "bc"}
    record = load_bundle(recipe.out / "bundle_iql").gate
    assert [scenario.name for scenario in record.scenarios] == ["nominal", "emergency_stop"]


def test_what_is_done_is_not_done_again(small, capsys):
    recipe, _ = small
    before = {p: p.stat().st_mtime_ns for p in recipe.out.rglob("*.onnx")}
    assert not run_demo(recipe, recipe.out, fresh=False)
    said = capsys.readouterr().out
    assert "run " not in said
    assert said.count("done") == 8
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_an_unknown_robot_has_no_demo(capsys):
    with pytest.raises(IqlRosError, match="'tank' has no demo: there are arm6, diffbot, cartpole"):
        app(["demo", "--robot", "tank"], standalone_mode=False)


@pytest.mark.parametrize("robot", RECIPES)
def test_every_recipe_has_its_contract_world_and_suite(robot):
    from sim.scenarios import load_suite
    from sim.world_file import load_world_file

    recipe = RECIPES[robot]
    file, contract = load_world_file(recipe.robot)
    assert file.behaviour is not None
    assert contract.robot == recipe.robot
    assert load_suite(recipe.suite).world == recipe.robot
