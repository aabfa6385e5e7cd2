"""The live sampler and the whole-log one give the same bits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from iql_ros.contract import Contract
from iql_ros.fields import FieldPlan
from iql_ros.sampler import MAX_AHEAD, Messages, Sampler, hold, max_age_ns, resample, ticks, visible

MS = 1_000_000
TOPICS = {"a": 2, "b": 1}


def contract(tick: dict, clock: str, on_nonfinite: str, *, remembers: bool) -> Contract:
    memory = [
        {"name": "last", "previous_action": True},
        {"name": "before", "history_of": "size", "steps": 3},
    ]
    return Contract.model_validate(
        {
            "format": 1,
            "robot": "toy",
            "tick": tick,
            "topics": {
                "a": {
                    "topic": "/a",
                    "type": "geometry_msgs/msg/PointStamped",
                    "max_age_s": 0.03,
                    "clock": clock,
                },
                "b": {
                    "topic": "/b",
                    "type": "std_msgs/msg/Float64",
                    "max_age_s": 0.05,
                    "on_nonfinite": on_nonfinite,
                },
                "c": {"topic": "/c", "type": "geometry_msgs/msg/Vector3"},
            },
            "observations": [
                {"name": "a", "topic": "a", "path": "point.{x,y}"},
                {"name": "size", "derive": "norm", "of": ["a"]},
                {"name": "turn", "derive": "sincos", "of": ["b"]},
                *(memory if remembers else []),
                {"name": "b", "topic": "b", "path": "data"},
            ],
            "actions": [
                {"name": "u", "topic": "c", "path": "{x,y}", "limits": [-9, 9], "safe": [1, 2]}
            ],
            "reward": {"expression": "-size"},
        }
    )


value = st.one_of(st.floats(-10, 10), st.sampled_from([np.nan, np.inf]))
moment = st.integers(0, 200 * MS)


@st.composite
def messages(draw: st.DrawFn, width: int, skewed: bool, values: st.SearchStrategy) -> Messages:
    arrival = np.sort(np.array(draw(st.lists(moment, min_size=1, max_size=25)), np.int64))
    skew = st.integers(-20 * MS, 60 * MS) if skewed else st.just(0)
    stamp = arrival + [draw(skew) for _ in arrival]
    rows = np.array([[draw(values) for _ in range(width)] for _ in arrival], np.float64)
    return Messages(arrival, np.maximum(stamp, 0), rows)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_live_and_offline_sampling_agree_to_the_bit(data: st.DataObject) -> None:
    tick = data.draw(
        st.sampled_from([{"rate_hz": 100}, {"rate_hz": 77.7}, {"trigger": "a", "every": 2}])
    )
    clock = data.draw(st.sampled_from(["receive", "header"]))
    on_nonfinite = data.draw(st.sampled_from(["hold", "break"]))
    toy = contract(tick, clock, on_nonfinite, remembers=data.draw(st.booleans()))
    plan = FieldPlan(toy, [field.name for field in toy.observations])
    raw = {
        "a": data.draw(messages(2, clock == "header", value)),
        "b": data.draw(messages(1, False, value)),
    }
    commands = data.draw(messages(2, False, st.floats(-9, 9)))

    effective = {
        alias: visible(part, toy.topics[alias].on_nonfinite == "hold", max_age_ns(toy, alias))
        for alias, part in raw.items()
    }
    if any(not len(part.rows) for part in effective.values()):
        return
    t_ns = ticks(toy, effective)
    held = hold(visible(commands, False), t_ns, before=True).rows
    grid = resample(plan, effective, t_ns, held)
    offline = np.concatenate([grid.fields[name] for name in plan.names], axis=1)

    live = Sampler(plan)
    queue = sorted(
        ((int(t), alias, i) for alias, part in raw.items() for i, t in enumerate(part.arrival_ns)),
        key=lambda item: item[0],
    )
    for k, now in enumerate(t_ns):
        while queue and queue[0][0] <= now:
            _, alias, i = queue.pop(0)
            part = raw[alias]
            live.put(alias, int(part.arrival_ns[i]), int(part.stamp_ns[i]), part.rows[i])
        action = held[k] if np.isfinite(held[k]).all() else None
        sample = live.sample(int(now), action)
        assert sample.status.acts == grid.valid[k], (k, sample.detail)
        if sample.status.acts:
            assert sample.observation.tobytes() == offline[k].tobytes()


def test_stamps_that_lie_ahead_do_not_fill_the_memory_and_take_effect_in_time() -> None:
    toy = contract({"rate_hz": 100}, "header", "break", remembers=False)
    live = Sampler(FieldPlan(toy, [field.name for field in toy.observations]))
    for i in range(3 * MAX_AHEAD):  # each 20 ms ahead, and all but the last few of them due
        live.put("a", i * MS, (i + 20) * MS, np.array([i, 0.0]))
        live.put("b", i * MS, i * MS, np.zeros(1))
    waiting = {alias: len(topic[2]) for alias, topic in live.snapshot()["topics"].items()}
    assert 20 <= waiting["a"] <= MAX_AHEAD
    assert waiting["b"] == 0
    last = 3 * MAX_AHEAD - 1
    assert live.sample(last * MS, None).observation[0] == last - 20
    assert live.sample((last + 5) * MS, None).observation[0] == last - 15
