"""The files of the quality benchmark: where episodes end, what is medium, what an interval is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.datasets.dataset import load_dataset

pytest.importorskip("gymnasium", reason="the quality benchmark's robots come with the bench extra")

from benchmarks._locomotion import (
    Episode,
    load_episodes,
    normalised,
    run_episodes,
    run_steps,
    save_episodes,
)
from benchmarks._locomotion_datasets import choose, until
from benchmarks._quality_intervals import difference, mean_interval


def still(observations: np.ndarray) -> np.ndarray:
    """Motors off; the robot stands for a moment, then falls."""
    return np.zeros((len(observations), 3), np.float32)


def episode(steps: int, *, fell: bool, first: float = 0.0) -> Episode:
    """One coordinate that counts up by 1 a step; every reward is 2."""
    position = np.arange(first, first + steps + 1, dtype=np.float32)[:, None]
    actions = np.full((steps, 1), 0.5, np.float32)
    rewards = np.full(steps, 2.0, np.float32)
    return Episode(position[:-1], actions, rewards, position[1:], fell)


def test_episodes_run_side_by_side_are_those_run_alone() -> None:
    together = run_episodes("Hopper-v5", still, 3, seed=5)
    alone = [run_episodes("Hopper-v5", still, 1, seed=5 + i)[0] for i in range(3)]
    assert len({len(each) for each in together}) > 1, "they must end at different times"
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.next_observations, other.next_observations)
        assert one.score == other.score


def test_an_episode_ends_with_what_came_after_the_fall() -> None:
    (fallen,) = run_episodes("Hopper-v5", still, 1, seed=0)
    assert fallen.fell
    np.testing.assert_array_equal(fallen.next_observations[:-1], fallen.observations[1:])
    height, angle = fallen.next_observations[-1, :2]
    assert height < 0.7 or abs(angle) > 0.2, "gymnasium's rule for a fallen Hopper"
    assert (fallen.observations[:, 0] > 0.7).all(), "it stood at every step it acted in"


def test_no_more_episodes_are_run_than_needed() -> None:
    episodes = run_steps("Hopper-v5", still, 400, seed=0)
    lengths = [len(each) for each in episodes]
    assert sum(lengths) >= 400 > sum(lengths[:-1])


def test_a_file_loads_for_training_without_complaint(tmp_path: Path) -> None:
    episodes = [episode(3, fell=True), episode(4, fell=False, first=10.0)]
    save_episodes(tmp_path / "d4rl.h5", episodes)
    dataset = load_dataset(tmp_path / "d4rl.h5")
    assert dataset.terminals.tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert dataset.timeouts.tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert dataset.next_observations[[2, 6], 0].tolist() == [3.0, 14.0]
    complaints = [finding for finding in dataset.findings if "every reward" not in finding]
    assert complaints == ["no contract: action limits taken as [-1, 1]"]
    again = load_episodes(tmp_path / "d4rl.h5")
    assert [(len(each), each.fell, each.score) for each in again] == [(3, True, 6), (4, False, 8)]


def test_medium_is_the_first_checkpoint_with_a_third_of_the_best_score() -> None:
    scores = {10: 1.0, 20: 35.0, 30: 29.0, 40: 90.0, 50: 60.0}
    assert choose(scores) == (20, 40)


def test_replay_stops_at_the_medium_checkpoint() -> None:
    episodes = [episode(3, fell=True), episode(4, fell=True), episode(2, fell=True)]
    assert [len(each) for each in until(episodes, 8)] == [3, 4]


def test_the_scale_is_d4rls() -> None:
    assert normalised("Hopper-v5", -20.27) == 0.0
    assert normalised("Walker2d-v5", 4592.3) == 100.0


def test_an_interval_spans_both_seeds_and_episodes() -> None:
    same = mean_interval([[50.0, 50.0], [50.0, 50.0]])
    assert (same["low"], same["mean"], same["high"]) == (50.0, 50.0, 50.0)
    seeds = mean_interval([[0.0] * 20, [100.0] * 20, [50.0] * 20])
    assert seeds["low"] < 20
    assert seeds["high"] > 80
    far = difference([[80.0, 90.0], [85.0, 95.0]], [[10.0, 20.0], [15.0, 25.0]])
    assert far["low"] > 0
    assert far["mean"] == pytest.approx(70.0)
