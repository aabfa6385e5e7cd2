"""Training on a GPU: the captured update against the same steps on a CPU, and its speed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_dataset import write_point_dataset
from training.learning.captured import CapturedUpdates
from training.learning.config import TrainConfig
from training.learning.fast import FastIql
from training.learning.iql import Iql
from training.learning.learner import run_block
from training.learning.run import load_run
from training.learning.together import train_together
from training.learning.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]

CONFIG = TrainConfig(hidden=(256, 256), steps=10_000, value_warm_up=20)
SIZES = 11, 3
EVERY = {"log_every": 10, "evaluate_every": 20, "checkpoint_every": 20}
SHORT = TrainConfig(steps=60, hidden=(16,), batch_size=32, device="cuda", **EVERY)


def members(seeds: int, device: str, dtype: torch.dtype = torch.float32) -> list[Iql]:
    made = [Iql(CONFIG, *SIZES, torch.Generator().manual_seed(seed)) for seed in range(seeds)]
    return [member.to(device, dtype) for member in made]


def transitions(rows: int = 5000) -> torch.Tensor:
    data = torch.randn(rows, 2 * 11 + 3 + 2, generator=torch.Generator().manual_seed(0))
    data[:, 11:14].tanh_()
    data[:, -1] = 1.0
    return data


def draws(updates: int, *seeds: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randint(5000, (updates, *seeds, 256), generator=rng)


def stop(step: int, losses: object, rate: float) -> None:
    if step == 30:
        raise KeyboardInterrupt


def quiet(step: int, losses: object, rate: float) -> None:
    """Shows nothing."""


@pytest.mark.parametrize("seeds", [(), (3,)])
def test_a_captured_run_is_the_cpu_s(seeds: tuple[int, ...]) -> None:
    count = seeds[0] if seeds else 1
    on_gpu = FastIql(members(count, "cuda", torch.float64))
    on_cpu = FastIql(members(count, "cpu", torch.float64))
    updates = CapturedUpdates(on_gpu)
    data, rows = transitions().double(), draws(50, *seeds)
    on_device = data.cuda()

    for first_step, block in ((0, rows), (50, rows[:20])):  # warm-up ends within the first
        ours = updates.run(on_device, block, first_step)
        theirs = run_block(on_cpu, data, block, first_step)
        # The learning rate passes through float32.
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)

    for one, other in zip(on_gpu.members, on_cpu.members, strict=True):
        theirs_by_name = other.state_dict()
        for name, value in one.state_dict().items():
            np.testing.assert_allclose(value.cpu(), theirs_by_name[name], rtol=1e-5, atol=1e-8)


def test_a_captured_run_is_the_same_twice() -> None:
    states = []
    for _ in range(2):
        learner = FastIql(members(1, "cuda"))
        CapturedUpdates(learner).run(transitions().cuda(), draws(100), 0)
        states.append(learner.state_dict())

    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_on_the_gpu_resumes_exactly_and_loads_on_the_cpu(tmp_path: Path) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5")
    train(dataset, tmp_path / "whole", SHORT, progress=quiet)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "stopped", SHORT, progress=stop)
    train(dataset, tmp_path / "stopped", SHORT, resume=True, progress=quiet)

    ours, theirs = (load_run(tmp_path / name).learner.state_dict() for name in ("stopped", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {value.device.type for value in theirs.values()} == {"cpu"}


def test_seeds_on_the_gpu_resume_exactly_and_load_on_the_cpu(tmp_path: Path) -> None:
    dataset = write_point_dataset(tmp_path / "data.h5")
    seeds = 0, 1, 2
    train_together(dataset, tmp_path / "whole", SHORT, seeds, progress=quiet)
    with pytest.raises(KeyboardInterrupt):
        train_together(dataset, tmp_path / "stopped", SHORT, seeds, progress=stop)
    train_together(dataset, tmp_path / "stopped", SHORT, seeds, resume=True, progress=quiet)
    train(dataset, tmp_path / "alone", SHORT, progress=quiet)

    for seed in seeds:
        ours, theirs = (
            load_run(tmp_path / name / f"seed-{seed}").learner.state_dict()
            for name in ("stopped", "whole")
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    alone, among = (load_run(tmp_path / n).learner.state_dict() for n in ("alone", "whole/seed-0"))
    for name in alone:  # products of three networks at once add in another order
        torch.testing.assert_close(among[name], alone[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "goal"), [((), 4_000), ((16,), 20_000)])
def test_updates_per_second(seeds: tuple[int, ...], goal: int) -> None:
    count = seeds[0] if seeds else 1
    updates = CapturedUpdates(FastIql(members(count, "cuda")))
    data, rows = transitions().cuda(), draws(100, *seeds).cuda()
    updates.run(data, rows, CONFIG.value_warm_up)

    began = time.perf_counter()
    for _ in range(20):
        updates.run(data, rows, CONFIG.value_warm_up)
    assert count * 2000 / (time.perf_counter() - began) > goal
