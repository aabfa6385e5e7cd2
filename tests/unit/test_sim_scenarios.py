import pytest

from iql_ros.contract import load_contract
from iql_ros.errors import ContractError
from sim.scenarios import LIBRARY, SCENARIOS, Scenario, check_topics, default_suite, load_suite

SUITES = [path.stem for path in SCENARIOS.glob("*.yaml") if path != LIBRARY]


def suite(tmp_path, text):
    path = tmp_path / "suite.yaml"
    path.write_text("format: 1\nsuite: mine\nworld: arm6\nscenarios:\n" + text)
    return path


@pytest.mark.parametrize("name", SUITES)
def test_shipped_suites_can_be_read_and_ask_for_something_everywhere(name):
    for scenario in load_suite(name).scenarios.values():
        assert scenario.must.limit_violations == 0
        assert scenario.description


def test_what_the_issue_names_is_in_the_arms_suite():
    scenarios = load_suite("arm6").scenarios
    assert scenarios["action_delay"].delay_ticks == (0, 3)
    assert scenarios["mass"].physics.mass == (0.8, 1.2)
    kinds = {scenario.fault.kind for scenario in scenarios.values() if scenario.fault}
    assert kinds == {"dead", "frozen", "delayed", "nan", "swapped"}
    assert scenarios["emergency_stop"].must.stop_ticks is not None
    assert scenarios["start_outside"].start_width > 1
    assert scenarios["push"].push is not None
    assert scenarios["obstacle"].obstacle is not None


def test_a_suite_overrides_single_keys_of_the_library(tmp_path):
    own = load_suite(suite(tmp_path, "  topic_dead: {fault: {at_s: 2}, must: {notice_ticks: 3}}\n"))
    theirs = load_suite("any").scenarios["topic_dead"]
    ours = own.scenarios["topic_dead"]
    assert ours.fault.at_s == (2, 2)
    assert ours.fault.kind == theirs.fault.kind
    assert ours.must.notice_ticks == 3
    assert ours.description == theirs.description


def test_the_digest_follows_every_number_and_no_description(tmp_path):
    base = load_suite(suite(tmp_path, "  nominal: {}\n"))
    other = load_suite(suite(tmp_path, "  nominal: {must: {success: 0.86}}\n"))
    assert base.digest != other.digest
    assert base.narrowed(episodes=7).digest != base.digest
    said = base.model_copy(update={"description": "other words"})
    assert said.digest == base.digest


def test_a_world_without_a_suite_gets_the_one_for_any():
    assert default_suite("arm6") == "arm6"
    assert default_suite("path/to/mine.yaml") == "any"


@pytest.mark.parametrize(
    ("robot", "said"),
    [
        (None, ""),
        ("crane", ", and robot 'crane' has no shipped one"),
    ],
)
def test_a_suite_without_a_world_names_the_robot_and_what_to_do(robot, said):
    with pytest.raises(ContractError) as raised:
        load_suite("any").narrowed(robot=robot)
    assert str(raised.value) == (
        f"suite 'any' names no world{said} (arm6, cartpole, diffbot are shipped): describe the "
        f"robot in a world file, then give --world WORLD.yaml, or --suite SUITE.yaml of a suite "
        f"that names it (docs/bring-your-own-robot.md)"
    )


def test_a_suite_without_a_world_for_a_shipped_robot_names_its_world():
    with pytest.raises(ContractError, match="'any' names no world: give --world arm6, the shipped"):
        load_suite("any").narrowed(robot="arm6")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("  calm: {episodes: 3}\n", r"scenarios\.calm: no such scenario"),
        ("  nominal: {mass: 2}\n", r"suite\.yaml:5: scenarios\.nominal\.mass.*unknown key"),
        ("  nominal: {must: {stop_ticks: 1}}\n", "needs stop_at_s: when is the stop pressed"),
        ("  nominal: {must: {notice_ticks: 1}}\n", "notice_ticks needs a fault to be noticed"),
        (
            "  topic_nan: {must: {notice_ticks: null, limit_violations: null, "
            "slew_violations: null, deadline_s: null}}\n",
            "must asks for nothing, and would pass whatever happens: keep a bound",
        ),
        ("  nominal: {delay_ticks: [3, 1]}\n", r"\[3, 1\] must be \[least, most\]"),
        ("  nominal: {physics: {mass: 0}}\n", "greater than 0"),
        ("  topic_dead: {fault: {delay_s: 1}}\n", "belongs to kind: delayed, and only there"),
    ],
)
def test_a_wrong_suite_says_what_is_wrong(tmp_path, text, rule):
    with pytest.raises(ContractError, match=rule):
        load_suite(suite(tmp_path, text))


def test_an_unknown_suite_and_an_unknown_scenario_name_what_there_is():
    with pytest.raises(
        ContractError, match="no suite at moon: give a YAML file or one of any, arm6"
    ):
        load_suite("moon")
    with pytest.raises(ContractError, match="no scenario 'rain': there are nominal"):
        load_suite("arm6").only("rain")


def test_a_fault_of_a_topic_that_the_policy_does_not_hear_is_refused(tmp_path):
    own = load_suite(suite(tmp_path, "  topic_dead: {fault: {topic: episode}}\n"))
    with pytest.raises(ContractError, match="'episode', the policy hears joints, tcp, target"):
        check_topics(own, load_contract("arm6"))


def test_a_scenario_in_which_nothing_happens_needs_only_a_description():
    assert Scenario(description="").delay_ticks == (0, 0)


def test_a_scenario_that_the_library_lacks_needs_a_description(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text("format: 1\nsuite: mine\nscenarios:\n  randomized:\n")
    with pytest.raises(ContractError, match=r"scenarios.randomized: no such scenario in the lib"):
        load_suite(path)
