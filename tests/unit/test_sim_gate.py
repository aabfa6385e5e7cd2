import dataclasses
import signal
from functools import partial

import numpy as np
import pytest

from benchmarks.planted_faults import Good, controller
from iql_ros.errors import ContractError
from sim.compare import compare
from sim.episode import Clocked
from sim.gate import make_trial, run_suite
from sim.replay import in_words, replay
from sim.scenarios import Must, Scenario, load_suite
from sim.verdict import FAULT_BEGAN, STOP_CAME, judge, judge_run
from sim.verdict import advice as verdict_advice
from tests.arm_policy import straight, straight_controller


def suite(scenario=None, episodes=None, **changes):
    """The arm's suite, or one scenario of it with other keys."""
    found = load_suite("arm6").narrowed(scenario=scenario, episodes=episodes)
    if not changes:
        return found
    changed = {n: s.model_copy(update=changes) for n, s in found.scenarios.items()}
    return found.model_copy(update={"scenarios": changed})


def episodes(scenario, count=4, seed=5, make=straight_controller, **changes):
    return run_suite(suite(scenario, count, **changes), seed, make).episodes[scenario]


def still():
    good = straight()
    return Good(good.contract, lambda observation: np.zeros(6, np.float32))


def test_one_worker_or_two_give_the_same_episodes_to_the_bit():
    whole = suite(episodes=6)
    drawn = ("late_and_lost", "topic_dead", "randomised", "push", "emergency_stop", "obstacle")
    scenarios = {name: whole.scenarios[name] for name in drawn}
    small = whole.model_copy(update={"scenarios": scenarios})
    alone = run_suite(small, 5, straight_controller)
    together = run_suite(small, 5, straight_controller, jobs=2)
    assert alone.episodes == together.episodes
    for name, ours in alone.episodes.items():
        for one, other in zip(ours, together.episodes[name], strict=True):
            for key in ("t_s", "observations", "actions"):
                first, second = getattr(one.trace, key), getattr(other.trace, key)
                assert first.tobytes() == second.tobytes()
    assert judge_run(alone) == judge_run(together)


def test_an_episode_alone_is_the_same_as_among_others():
    for name in ("randomised", "late_and_lost", "push", "obstacle"):
        among = episodes(name, 4)[3]
        alone = make_trial(suite(name), 5, straight_controller, name).run(3)
        assert alone == among
        assert alone.trace.actions.tobytes() == among.trace.actions.tobytes()


def test_another_seed_gives_other_episodes():
    assert episodes("nominal", seed=5) != episodes("nominal", seed=6)


def test_two_controllers_meet_the_same_starts_and_noise():
    ours = episodes("nominal")
    theirs = episodes("nominal", make=partial(controller, still))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.trace.observations[0], other.trace.observations[0])
        assert not other.outcome.success


def test_a_delay_of_three_steps_moves_the_arm_three_steps_later():
    def moved(delay):
        trial = make_trial(
            *(suite("action_delay", delay_ticks=(delay, delay)), 5, straight_controller),
            "action_delay",
        )
        times = []
        trial.run(2, seen=lambda world: times.append((world.t_ns, world.action.any())))
        return next(t_ns for t_ns, moves in times if moves)

    assert moved(3) - moved(0) == 150_000_000


def test_the_emergency_stop_holds_the_safe_action_from_the_next_period_on():
    for episode in episodes("emergency_stop", 8, stop_at_s=(0.1, 0.2)):
        if episode.stop_ticks is not None:
            assert episode.stop_ticks == 0
            assert episode.trace.statuses[-1] == "halted"
            assert not episode.trace.actions[-1].any()


def test_a_stop_that_travels_for_two_steps_is_counted_so():
    found = episodes("emergency_stop", 8, stop_at_s=(0.1, 0.2), delay_ticks=(2, 2))
    assert max(e.stop_ticks for e in found if e.stop_ticks is not None) == 2


def test_a_dead_topic_is_noticed_and_the_robot_stands():
    found = episodes("topic_dead", 8)
    noticed = [e for e in found if e.notice_ticks is not None and e.outcome.steps == 60]
    assert noticed
    for episode in noticed:
        assert episode.notice_ticks <= 12
        assert episode.trace.statuses[-1] == "stale"
        assert not episode.trace.actions[-1].any()


def test_a_frozen_sensor_is_noticed():
    found = [e for e in episodes("topic_frozen", 8) if "frozen" in e.statuses]
    assert found
    assert max(e.notice_ticks for e in found) <= 8


def test_randomised_machines_differ_and_the_next_scenario_finds_the_model_as_compiled():
    trial = make_trial(suite("mass"), 5, straight_controller, "mass")
    model, masses = trial.world.model, []
    compiled = model.body_mass.copy()
    for number in (0, 1):
        trial.run(number)
        masses.append(model.body_mass.copy())
    assert not np.array_equal(*masses)
    for mass in masses:
        factors = mass[compiled > 0] / compiled[compiled > 0]
        assert ((factors >= 0.8) & (factors <= 1.2)).all()
        assert np.unique(factors).size == factors.size


def test_a_push_moves_the_arm():
    def farthest(**changes):
        trial = make_trial(suite("push", **changes), 5, partial(controller, still), "push")
        start, way = [], []

        def seen(world):
            start.append(world.data.qpos.copy())
            way.append(np.abs(start[-1] - start[0]).max())

        trial.run(0, seen=seen)
        return max(way)

    assert farthest() > 5 * farthest(push=None)


def test_bias_and_noise_reach_the_policy():
    calm = episodes("nominal", noise=0.0)[2].trace.observations[0]
    biased = episodes("nominal", noise=0.0, bias=3.0)[2].trace.observations[0]
    off = np.abs(biased[:6] - calm[:6])
    assert (off > 0).all()
    assert off.max() <= 3 * 2e-4 * 1.001  # float32


def test_an_obstacle_stands_in_the_world_and_can_be_hit():
    world = make_trial(suite("obstacle"), 5, straight_controller, "obstacle").world
    geom = world.model.body("gate_obstacle").geomadr[0]
    assert world.model.geom_size[geom][0] == pytest.approx(0.06)
    assert world.model.geom_contype[geom] == 1


def test_criteria_are_counted_over_all_episodes():
    found = episodes("nominal", 6)
    scenario = Scenario(description="", must=Must(success=0.9, interventions=0.0))
    record = judge("nominal", scenario, found, Clocked(ticks_s=[1e-4]))
    rate, limits, slews, interventions, deadline = record.criteria
    assert (rate.count, rate.of, rate.passed) == (6, 6, False)  # 6 of 6 show no more than 54 %
    assert (limits.judged, slews.judged) == (0, 0)
    assert interventions.count == sum(n for e in found for s, n in e.statuses.items() if s != "ok")
    assert not interventions.passed
    assert deadline.passed
    late = judge("nominal", scenario, found, Clocked(ticks_s=[1e-4] * 98 + [0.03] * 2))
    assert not late.criteria[-1].passed
    once = judge("nominal", scenario, found, Clocked(ticks_s=[1e-4] * 80 + [0.03]))
    assert once.criteria[-1].passed
    assert record.failing == ()


def test_episodes_that_break_a_criterion_are_named():
    (record,) = judge_run(run_suite(suite("nominal", 4), 5, partial(controller, still)))
    assert record.failing == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("name", "late", "criterion", "advice"),
    [
        ("topic_hiccup", "fault", FAULT_BEGAN, "let fault.at_s begin earlier"),
        ("topic_frozen", "fault", FAULT_BEGAN, "let fault.at_s begin earlier"),
        ("emergency_stop", "stop_at_s", STOP_CAME, "let stop_at_s begin earlier"),
    ],
)
def test_a_fault_or_a_stop_that_comes_in_no_episode_fails_the_scenario(
    name, late, criterion, advice
):
    at_s = (2.9, 2.9)  # all reach the target before
    fault = suite(name).scenarios[name].fault
    then = at_s if fault is None else fault.model_copy(update={"at_s": at_s})
    small = suite(name, 4, **{late: then})
    (record,) = judge_run(run_suite(small, 5, straight_controller))
    assert not record.passed
    failed = next(c for c in record.criteria if not c.passed)
    assert failed.in_words() == f"{criterion} 0 (0 of 4), must be at least 1"
    assert advice in verdict_advice(failed)
    assert not any("worst" in c.name for c in record.criteria)


def test_a_fault_that_comes_in_some_episodes_says_in_how_many():
    found = episodes("topic_dead", 8)
    record = judge(
        "topic_dead", suite("topic_dead").scenarios["topic_dead"], found, Clocked(ticks_s=[1e-4])
    )
    began, *_ = record.criteria
    assert (began.name, began.of, began.passed) == (FAULT_BEGAN, 8, True)
    assert began.count == sum(e.notice_ticks is not None for e in found) > 0


def test_a_controller_that_never_ticks_fails_even_where_no_success_is_asked():
    silent = [dataclasses.replace(e, statuses={}) for e in episodes("nominal", 2)]
    must = Must(interventions=1.0)
    record = judge("calm", Scenario(description="", must=must), silent, Clocked())
    failed = [c.in_words() for c in record.criteria if not c.passed]
    assert failed == ["decisions 0 (0), must be at least 1"]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("topic_dead", "fault.at_s", (3.0, 4.0)),
        ("emergency_stop", "stop_at_s", (3.0, 4.0)),
        ("push", "push.every_s", 3.0),
    ],
)
def test_what_can_come_in_no_episode_is_refused(name, key, value):
    field, _, part = key.partition(".")
    before = getattr(suite(name).scenarios[name], field)
    late = suite(name, **{field: before.model_copy(update={part: value}) if part else value})
    with pytest.raises(ContractError, match=rf"scenario '{name}': {key} is 3 s or more, but episo"):
        run_suite(late, 0, straight_controller)


def test_a_replay_says_every_decision_and_gives_the_same_episode():
    lines = []
    found = replay(suite(), 5, straight_controller, "topic_dead", 3, say=lines.append)
    assert found == episodes("topic_dead")[3]
    *decisions, last = lines
    assert len(decisions) == len(found.trace.statuses)
    assert last.startswith("success is: ")
    assert "; measured last: " in last
    assert "s  limited: command_1 = -0.7018 became" in lines[1]
    assert "steps); return" in in_words(found)


def test_two_policies_are_compared_in_pairs():
    small = suite("nominal", 12)
    good = run_suite(small, 5, straight_controller)
    lame = run_suite(small, 5, partial(controller, still))
    (pair,) = compare(good, lame)
    assert pair.successes == (12, 0)
    assert pair.only == (12, 0)
    assert 0.6 < pair.gap[1] < pair.gap[0] == 1.0
    assert 0 < pair.return_gap[1] < pair.return_gap[0] < pair.return_gap[2]
    (same,) = compare(good, good)
    assert same.return_gap == (0, 0, 0)
    with pytest.raises(ContractError, match="only the same can be paired"):
        compare(good, run_suite(small, 6, straight_controller))


def test_a_push_on_a_body_that_is_not_there_is_refused():
    push = suite("push").scenarios["push"].push.model_copy(update={"body": "nose"})
    with pytest.raises(ContractError, match=r"push\.body 'nose' is none of target, shoulder"):
        run_suite(suite("push", push=push), 0, straight_controller)


def test_ctrl_c_ends_the_workers_and_is_raised():
    def interrupt(done, total):
        if done:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_suite(suite(), 5, straight_controller, jobs=2, progress=interrupt)
