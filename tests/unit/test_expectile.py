from __future__ import annotations

import pytest
import torch

from training.learning.batch import unpack
from training.learning.config import TrainConfig
from training.learning.expectile import LedExpectile, annealed_expectile
from training.learning.iql import Iql


def led(schedule: str) -> LedExpectile:
    config = TrainConfig(expectile=0.9, expectile_start=0.5, expectile_schedule=schedule)
    return LedExpectile(config)


def some_rows(seed: int = 0) -> torch.Tensor:
    rows = torch.randn(16, 3 + 2 + 3 + 2, generator=torch.Generator().manual_seed(seed))
    rows[:, 3:5].tanh_()
    rows[:, -1] = 1.0
    return rows


def test_annealing_ends_at_half_of_the_run() -> None:
    config = TrainConfig(steps=100, expectile=0.9, expectile_schedule="annealed")

    taus = [annealed_expectile(config, step) for step in (0, 25, 50, 99)]

    assert taus == pytest.approx([0.5, 0.7, 0.9, 0.9], rel=1e-12)


def test_a_policy_that_earns_what_v_promises_raises_tau_and_another_lowers_it() -> None:
    expectile = led("policy_value")

    taus = []
    for policy_value in (1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0):
        expectile.look({"policy_value": policy_value, "value": 0.0})
        taus.append(expectile.tau.item())

    assert taus == pytest.approx([0.54, 0.58, 0.62, 0.58, 0.54, 0.5, 0.5], rel=1e-12)


def test_tau_stops_at_the_expectile() -> None:
    expectile = led("policy_value")

    for _ in range(15):
        expectile.look({"policy_value": 0.0, "value": 0.0})

    assert expectile.tau.item() == 0.9


def test_value_error_compares_held_out_losses_with_those_since_the_last_look() -> None:
    expectile = led("value_error")

    for loss in (1.0, 3.0):  # mean 2: up to 2.5 is tolerated
        expectile.count(torch.tensor(loss))
    expectile.look({"value_loss": 2.4})
    assert expectile.tau.item() == pytest.approx(0.54, rel=1e-12)

    expectile.count(torch.tensor(1.0))  # the 2.4 of before would not be tolerated now
    expectile.look({"value_loss": 1.3})
    assert expectile.tau.item() == pytest.approx(0.5, rel=1e-12)


def test_an_update_takes_the_tau_of_its_step() -> None:
    batch = unpack(some_rows(), action_size=2)
    shared = {"hidden": (8,), "steps": 100}
    losses = {}
    for name, changes, step in (
        ("annealed", {"expectile_schedule": "annealed", "expectile": 0.9}, 25),
        ("constant", {"expectile": 0.7}, 25),
        (
            "led",
            {"expectile_schedule": "policy_value", "expectile_start": 0.7, "expectile": 0.9},
            0,
        ),
    ):
        config = TrainConfig.model_validate({**shared, **changes})
        iql = Iql(config, 3, 2, torch.Generator().manual_seed(0))
        losses[name] = iql.update(batch, step)[0].item()

    assert losses["annealed"] == pytest.approx(losses["constant"], rel=1e-6)
    assert losses["led"] == pytest.approx(losses["constant"], rel=1e-6)


def test_a_led_tau_belongs_to_the_state_and_a_constant_one_does_not() -> None:
    constant = Iql(TrainConfig(), 3, 2, torch.Generator())
    changing = Iql(TrainConfig(expectile_schedule="value_error"), 3, 2, torch.Generator())

    more = changing.state_dict().keys() - constant.state_dict().keys()

    assert more == {f"led_expectile.{name}" for name in ("tau", "loss_sum", "updates")}


def test_warm_up_trains_v_alone() -> None:
    iql = Iql(TrainConfig(hidden=(8,), value_warm_up=2), 3, 2, torch.Generator().manual_seed(0))
    batch = unpack(some_rows(), action_size=2)

    def moved(step: int) -> dict[str, bool]:
        nets = {"value": iql.value, "actor": iql.actor, "critic": iql.critic}
        nets["target"] = iql.target_critic
        before = {name: [p.clone() for p in net.parameters()] for name, net in nets.items()}
        iql.update(batch, step)
        return {
            name: any(
                not torch.equal(p, old)
                for p, old in zip(net.parameters(), before[name], strict=True)
            )
            for name, net in nets.items()
        }

    still = {"value": True, "actor": False, "critic": False, "target": False}
    assert moved(0) == still
    assert moved(1) == still
    assert all(moved(2).values())
