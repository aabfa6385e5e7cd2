import numpy as np
import pytest

from iql_ros.wire import Reader, make_types
from sim.scenarios import Scenario
from sim.stream import Stream
from sim.world import START_NS, load_world

PERIOD_NS = 10_000_000


def arrived(periods=40, seed=0, **changes):
    """The arm's messages of the first periods, as sent and as they arrive, period by period."""
    world = load_world("arm6", 3)
    scenario = Scenario(description="", **changes)
    stream = Stream(scenario, world.contract, START_NS, np.random.default_rng(seed))
    sent, received = [], []
    for _ in range(periods):
        messages = world.advance()
        sent.append(messages)
        received.append(list(stream(messages, world.t_ns + PERIOD_NS // 2)))
    return world, sent, received


def of(alias, periods):
    return [message for messages in periods for message in messages if message.alias == alias]


def read(contract, alias, paths, payload):
    return Reader(make_types({}), contract.topics[alias].type, paths).read(payload)


def test_without_a_fault_everything_arrives_as_it_was_sent():
    _, sent, received = arrived()
    assert received == sent


def test_a_dead_topic_is_heard_until_it_dies_and_the_others_go_on():
    _, sent, received = arrived(fault={"kind": "dead", "topic": "tcp", "at_s": 0.2})
    assert of("tcp", received) == of("tcp", sent)[:19]
    assert of("joints", received) == of("joints", sent)


def test_a_topic_that_heals_is_heard_again():
    fault = {"kind": "dead", "topic": "tcp", "at_s": 0.1, "for_s": 0.1}
    _, sent, received = arrived(fault=fault)
    assert of("tcp", received) == of("tcp", sent)[:9] + of("tcp", sent)[19:]


def test_a_frozen_topic_repeats_its_values_under_new_stamps():
    fault = {"kind": "frozen", "topic": "joints", "at_s": 0.2}
    world, sent, received = arrived(fault=fault)
    frozen, last = of("joints", received)[30], of("joints", sent)[18]
    paths = ["position[0:6]", "header.stamp.nanosec"]
    values = [read(world.contract, "joints", paths, m.payload) for m in (frozen, last)]
    np.testing.assert_array_equal(values[0][:6], values[1][:6])
    assert values[0][6] - values[1][6] == 12 * PERIOD_NS


def test_nan_stands_where_the_policy_reads_and_nowhere_else():
    world, _, received = arrived(fault={"kind": "nan", "topic": "joints", "at_s": 0.2})
    payload = of("joints", received)[-1].payload
    values = read(world.contract, "joints", ["position[0:6]", "velocity[0:6]"], payload)
    assert np.isnan(values[:6]).all()
    assert np.isfinite(values[6:]).all()


def test_two_plugs_change_places():
    world, sent, received = arrived(fault={"kind": "swapped", "topic": "joints", "at_s": 0})
    before, after = (
        read(world.contract, "joints", ["position[0:6]"], of("joints", part)[-1].payload)
        for part in (sent, received)
    )
    np.testing.assert_array_equal(after, before[[1, 0, 2, 3, 4, 5]])


def test_a_delayed_topic_comes_late_and_says_so():
    fault = {"kind": "delayed", "topic": "tcp", "at_s": 0.1, "delay_s": 0.05}
    _, sent, received = arrived(fault=fault)
    last_sound, first_late = of("tcp", sent)[8], of("tcp", received)[9]
    assert first_late.payload == of("tcp", sent)[9].payload
    assert first_late.arrival_ns == last_sound.arrival_ns + PERIOD_NS + 50_000_000


def test_jitter_delays_by_no_more_than_it_says_and_arrival_is_in_order():
    _, sent, received = arrived(periods=100, jitter_s=0.03)
    flat = [message for messages in received for message in messages]
    assert [m.arrival_ns for m in flat] == sorted(m.arrival_ns for m in flat)
    sent_ns = {m.payload: m.arrival_ns for m in of("tcp", sent)}
    late_ns = [m.arrival_ns - sent_ns[m.payload] for m in of("tcp", received)]
    assert min(late_ns) >= 0
    assert 20_000_000 < max(late_ns) < 30_000_000


def test_dropped_messages_are_as_many_as_said():
    _, sent, received = arrived(periods=400, drop=0.25)
    share = len(of("tcp", received)) / len(of("tcp", sent))
    # five deviations of 400 draws
    assert share == pytest.approx(0.75, abs=0.11)


def test_the_topic_that_fails_is_drawn_among_those_that_the_policy_needs():
    failing = set()
    for seed in range(12):
        _, sent, received = arrived(periods=30, seed=seed, fault={"kind": "dead", "at_s": 0.1})
        failing |= {
            a for a in ("joints", "tcp", "target", "episode") if of(a, received) != of(a, sent)
        }
    assert failing == {"joints", "tcp", "target"}
