from __future__ import annotations

import re
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from iql_ros.contract import Contract
from iql_ros.errors import DatasetError
from tests.small_dataset import Columns, point_columns, point_contract, write_point_dataset
from training.datasets.dataset import load_dataset, split_episodes, write_dataset
from training.datasets.scaling import Normaliser, to_unit

SHARED = Path(__file__).parents[3] / "shared" / "datasets"


def write_d4rl(path: Path, columns: Columns) -> Path:
    """A plain D4RL file: no contract, no attributes, only the columns given."""
    write_dataset(path, columns, infos={}, attributes={})
    return path


def without(columns: Columns, *names: str) -> Columns:
    return {name: array for name, array in columns.items() if name not in names}


def test_a_converted_file_loads_without_a_finding(tmp_path: Path) -> None:
    columns = point_columns()
    dataset = load_dataset(write_point_dataset(tmp_path / "d.h5", columns))

    assert dataset.findings == ()
    assert dataset.contract == point_contract()
    for name, array in columns.items():
        np.testing.assert_array_equal(getattr(dataset, name), array)
    starts, ends = dataset.episodes
    assert starts.tolist() == list(range(0, 300, 25))
    assert ends.tolist() == list(range(25, 301, 25))


def test_columns_of_a_dataset_cannot_be_written(tmp_path: Path) -> None:
    dataset = load_dataset(write_point_dataset(tmp_path / "d.h5"))

    with pytest.raises(ValueError, match="read-only"):
        dataset.observations[0, 0] = 1.0


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    columns = point_columns()
    infos = {"t_ns": np.arange(300), "distance": np.ones((300, 1), np.float32)}
    reversed_columns = dict(reversed(columns.items()))
    # A contract with message definitions may exceed the 64 kB of a plain attribute.
    attributes = {"sources": "x" * 100_000, "format": 1}

    write_dataset(tmp_path / "a.h5", columns, infos=infos, attributes=attributes)
    time.sleep(1.1)  # HDF5 time stamps count seconds
    write_dataset(tmp_path / "b.h5", reversed_columns, infos=infos, attributes=attributes)

    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = write_d4rl(tmp_path / "d.h5", point_columns(seed=0))

    with pytest.raises(DatasetError, match=r"d\.h5 exists and would be replaced.*--force"):
        write_d4rl(path, point_columns(seed=1))
    write_dataset(path, point_columns(seed=1), infos={}, attributes={}, force=True)

    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["actions"], point_columns(seed=1)["actions"])


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    unwritable = {"observations": np.array([object()])}

    with pytest.raises(TypeError):
        write_dataset(tmp_path / "d.h5", unwritable, infos={}, attributes={})

    assert list(tmp_path.iterdir()) == []


def test_columns_of_unequal_length_are_not_written(tmp_path: Path) -> None:
    columns = {**point_columns(), "rewards": np.zeros(3, np.float32)}

    with pytest.raises(DatasetError, match=r"one length.*'rewards': 3"):
        write_d4rl(tmp_path / "d.h5", columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: without(c, "rewards"), r"lacks rewards; it holds actions, next_observations"),
        (lambda c: {**c, "actions": c["actions"][:, 0]}, r"'actions' has shape \(300,\), must be"),
        (lambda c: {n: a[:0] for n, a in c.items()}, r"is empty: 'observations' has no row"),
        (
            lambda c: {**c, "next_observations": c["next_observations"][:, :2]},
            r"shapes must agree.*\(300, 3\).*\(300, 2\)",
        ),
        (
            lambda c: {**c, "actions": c["actions"][:, :1]},
            r"'actions' has 1 columns, its contract 'point' declares 2: v_x, v_y",
        ),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, change, message: str) -> None:
    path = write_point_dataset(tmp_path / "d.h5", change(point_columns()))

    with pytest.raises(DatasetError, match=message):
        load_dataset(path)


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    columns = point_columns()
    columns["observations"][7, 1] = np.nan
    path = write_point_dataset(tmp_path / "d.h5", columns)

    with pytest.raises(DatasetError, match=r"'observations'\[7, 1\] \(p_y\) is nan.*finite"):
        load_dataset(path)


@pytest.mark.parametrize("content", [None, b"", b"\x89HDF\r\n\x1a\n" + bytes(50)])
def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "d.h5"
    if content is not None:
        path.write_bytes(content)

    reason = "does not exist" if content is None else "is no readable HDF5 file"
    with pytest.raises(DatasetError, match=rf"d\.h5 {reason}"):
        load_dataset(path)


def test_an_altered_contract_is_refused(tmp_path: Path) -> None:
    path = write_point_dataset(tmp_path / "d.h5")
    with h5py.File(path, "a") as file:
        file.attrs["contract"] = point_contract(limit=0.7).canonical_json()

    with pytest.raises(DatasetError, match=r"contract_digest .* is not that of the contract"):
        load_dataset(path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = write_point_dataset(tmp_path / "d.h5")
    with h5py.File(path, "a") as file:
        file.attrs["format"] = 2

    with pytest.raises(DatasetError, match="format 2, this version reads 1"):
        load_dataset(path)


def test_actions_beyond_the_contract_s_limits_are_clipped_and_reported(tmp_path: Path) -> None:
    columns = point_columns()
    columns["actions"][3] = [0.1, -2.0]
    dataset = load_dataset(write_point_dataset(tmp_path / "d.h5", columns))

    assert dataset.actions[3].tolist() == pytest.approx([0.1, -0.5])
    assert dataset.findings == (
        "action 'v_y': 1 of 300 values lie outside [-0.5, 0.5], the farthest -2: clipped",
    )


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ([-1e308, 1e308], "ends before them"),
        ([-3e38, 3e38], "ends before them"),
        ([1e6, 1e6 + 0.1], "is too coarse there"),
    ],
)
def test_limits_that_float32_cannot_span_are_refused(
    tmp_path: Path, limits: list[float], why: str
) -> None:
    keys = point_contract().canonical()
    keys["actions"][0] |= {"limits": limits, "safe": limits[0]}
    file = write_point_dataset(tmp_path / "d.h5", contract=Contract.model_validate(keys))
    with pytest.raises(DatasetError, match=f"action 'v_x' has limits .*{why}: declare limits"):
        load_dataset(file)


def test_actions_without_a_contract_span_the_data(tmp_path: Path) -> None:
    columns = without(point_columns(), "timeouts", "next_observations")
    columns["actions"] = columns["actions"] * 8
    columns["actions"][:, 1] = 3.0
    dataset = load_dataset(write_d4rl(tmp_path / "d.h5", columns))

    assert dataset.action_high[0] == columns["actions"][:, 0].max()
    assert (dataset.action_low[1], dataset.action_high[1]) == (2.0, 4.0)
    assert any("action limits taken from the data" in finding for finding in dataset.findings)


def test_constant_rewards_are_reported(tmp_path: Path) -> None:
    columns = {**point_columns(), "rewards": np.ones(300, np.float32)}

    findings = load_dataset(write_point_dataset(tmp_path / "d.h5", columns)).findings

    assert re.match("every reward is 1: .*IQL can only imitate", findings[0])


def test_constant_rewards_say_something_where_episodes_end_for_good(tmp_path: Path) -> None:
    columns = {**point_columns(), "rewards": np.ones(300, np.float32)}
    columns["terminals"][[24, 299]] = True
    assert load_dataset(write_point_dataset(tmp_path / "d.h5", columns)).findings == ()
    columns["rewards"][:] = 0.0
    (told,) = load_dataset(write_point_dataset(tmp_path / "e.h5", columns)).findings
    assert "every reward is 0" in told


def test_missing_next_observations_come_from_the_same_episode(tmp_path: Path) -> None:
    columns = point_columns(episodes=3, steps=4)
    columns["terminals"][7] = columns["timeouts"][7] = True  # ends for good: needs no successor
    dataset = load_dataset(write_d4rl(tmp_path / "d.h5", without(columns, "next_observations")))

    # Rows 3 and 11 ended by a timeout, with no successor in the file.
    kept = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    np.testing.assert_array_equal(dataset.observations, columns["observations"][kept])
    living = ~dataset.terminals
    np.testing.assert_array_equal(
        dataset.next_observations[living], columns["next_observations"][kept][living]
    )
    assert dataset.episodes[1].tolist() == [3, 7, 10]
    assert any("the 2 row(s) at a timeout" in finding for finding in dataset.findings)


def test_missing_timeouts_are_found_where_the_next_observation_is_another(tmp_path: Path) -> None:
    columns = point_columns(episodes=3, steps=4)
    dataset = load_dataset(write_d4rl(tmp_path / "d.h5", without(columns, "timeouts")))

    assert dataset.episodes[1].tolist() == [4, 8, 12]
    assert "no 'timeouts': " in dataset.findings[0]
    assert "2 place(s)" in dataset.findings[0]


def test_an_episode_end_that_is_not_marked_is_reported(tmp_path: Path) -> None:
    columns = point_columns(episodes=3, steps=4)
    columns["timeouts"][3] = False
    dataset = load_dataset(write_point_dataset(tmp_path / "d.h5", columns))

    assert "not the row that follows at 1 row(s) within episodes, first 3" in dataset.findings[0]


@pytest.mark.skipif(not SHARED.exists(), reason=f"no public datasets at {SHARED}")
def test_a_public_d4rl_file_of_a_physical_robot_loads() -> None:
    dataset = load_dataset(SHARED / "soccer_physical_10_episodes.hdf5")

    # Its 10 terminals hide 19 jumps (SOURCES.md); wherever both meet it is one end.
    jumps = (dataset.next_observations[:-1] != dataset.observations[1:]).any(axis=1)
    assert len(dataset) == 20_000
    assert (dataset.terminals | dataset.timeouts)[:-1][jumps].all()
    assert dataset.timeouts.any()


def test_episodes_are_held_out_whole(tmp_path: Path) -> None:
    dataset = load_dataset(write_point_dataset(tmp_path / "d.h5"))

    train, held_out = split_episodes(dataset, 0.25, np.random.default_rng(0))

    assert held_out is not None
    assert (len(train), len(held_out)) == (225, 75)
    assert len(held_out.episodes[0]) == 3
    together = np.concatenate([train.observations, held_out.observations])
    assert len(np.unique(together, axis=0)) == len(np.unique(dataset.observations, axis=0))


def test_a_single_episode_is_not_split(tmp_path: Path) -> None:
    dataset = load_dataset(write_point_dataset(tmp_path / "d.h5", point_columns(episodes=1)))

    with pytest.raises(DatasetError, match=r"1 episode\(s\).*set held_out_fraction to 0"):
        split_episodes(dataset, 0.1, np.random.default_rng(0))
    assert split_episodes(dataset, 0.0, np.random.default_rng(0)) == (dataset, None)


def test_digest_changes_with_any_value(tmp_path: Path) -> None:
    columns = point_columns()
    before = load_dataset(write_point_dataset(tmp_path / "a.h5", columns))
    columns["rewards"][0] += 1e-6
    after = load_dataset(write_point_dataset(tmp_path / "b.h5", columns))

    assert before.digest != after.digest
    changed = [n for n, d in before.column_digests.items() if after.column_digests[n] != d]
    assert changed == ["rewards"]


def test_normalised_observations_have_mean_0_and_std_1() -> None:
    observations = np.random.default_rng(0).normal(5, 3, (1000, 2)).astype(np.float32)
    normalised = Normaliser.fit(observations)(observations)

    np.testing.assert_allclose(normalised.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -12345.678])
def test_a_component_that_never_varies_keeps_its_scale(value: float) -> None:
    normaliser = Normaliser.fit(np.full((1000, 1), value, np.float32))

    assert normaliser.constant == (0,)
    assert normaliser.std.tolist() == [1.0]
    assert normaliser(np.full((1, 1), value + 0.5, np.float32)) == pytest.approx(0.5, abs=1e-3)


def test_actions_are_scaled_to_the_open_unit_interval() -> None:
    actions = np.array([[-2.0], [1.0], [4.0]], np.float32)

    unit = to_unit(actions, np.array([-2.0]), np.array([4.0]))

    assert unit[:, 0].tolist() == pytest.approx([-1 + 1e-5, 0.0, 1 - 1e-5])
