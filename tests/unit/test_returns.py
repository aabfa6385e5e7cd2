from __future__ import annotations

import numpy as np
import pytest

from iql_ros.errors import DatasetError
from training.datasets.dataset import Dataset
from training.datasets.returns import best_episodes, episode_returns, scale_to_span


def episodes_of(*rewards: list[float]) -> Dataset:
    """One episode for each list, with rows numbered in the observation; the first ends for good."""
    flat = np.concatenate(rewards).astype(np.float32)
    rows = np.arange(len(flat), dtype=np.float32)[:, None]
    ends = np.zeros(len(flat), bool)
    ends[np.cumsum([len(part) for part in rewards]) - 1] = True
    terminals = ends & (rows[:, 0] < len(rewards[0]))
    return Dataset(
        observations=rows,
        actions=np.zeros_like(rows),
        rewards=flat,
        terminals=terminals,
        timeouts=ends & ~terminals,
        next_observations=rows + 1,
        action_low=np.array([-1.0]),
        action_high=np.array([1.0]),
    )


def test_a_return_is_the_sum_over_an_episode_however_it_ended() -> None:
    dataset = episodes_of([1.0, 2.0], [5.0], [-1.0, 0.5, -1.0])

    assert episode_returns(dataset).tolist() == [3.0, 5.0, -1.5]


def test_the_best_episodes_are_kept_whole_and_in_order() -> None:
    dataset = episodes_of([1.0, 2.0], [-1.0], [0.0, 9.0], [2.0])

    best = best_episodes(dataset, 0.5)

    assert best.observations[:, 0].tolist() == [0.0, 1.0, 3.0, 4.0]
    assert best.episodes[1].tolist() == [2, 4]


def test_of_equal_returns_the_earlier_is_kept_and_at_least_one() -> None:
    dataset = episodes_of([1.0], [1.0], [1.0])

    assert best_episodes(dataset, 0.01).observations[:, 0].tolist() == [0.0]
    assert best_episodes(dataset, 1.0) is dataset


def test_scaled_returns_span_what_was_asked() -> None:
    dataset = episodes_of([1.0, 2.0], [5.0], [-1.0, 0.5, -1.0])

    scale = scale_to_span(dataset, 1000.0)

    assert scale == pytest.approx(1000.0 / 6.5, rel=1e-12)


def test_equal_returns_have_no_span() -> None:
    with pytest.raises(DatasetError, match=r"all 2 episode\(s\) return 3; set return_span to null"):
        scale_to_span(episodes_of([1.0, 2.0], [3.0]), 1000.0)
