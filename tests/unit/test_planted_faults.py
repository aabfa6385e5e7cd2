from functools import partial

import pytest

from benchmarks.planted_faults import FAULTS, SHOWS, caught_by, controller
from sim.gate import run_suite
from sim.scenarios import load_suite
from sim.verdict import judge_run
from tests.arm_policy import straight


@pytest.fixture(scope="module")
def nominal():
    return load_suite("arm6").narrowed(scenario="nominal", episodes=30)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_in_the_nominal_scenario_by_what_it_breaks(nominal, fault):
    (record,) = judge_run(run_suite(nominal, 0, partial(controller, straight, fault)))
    assert not record.passed
    assert caught_by(record, SHOWS[fault]), [c.in_words() for c in record.criteria]


@pytest.mark.slow
def test_a_good_policy_passes_the_whole_suite():
    records = judge_run(run_suite(load_suite("arm6"), 1, partial(controller, straight)))
    failures = [f"{r.name}: {c.in_words()}" for r in records for c in r.criteria if not c.passed]
    assert not failures
