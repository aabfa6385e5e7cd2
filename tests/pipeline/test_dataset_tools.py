"""Dataset tools, each layout read back by its own library where that is installed.

`minari` and `robomimic` (0.3.0, --no-deps) are no dependency; their tests skip without them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from iql_ros.errors import DatasetError
from iql_ros.verbs.dataset import dataset_app
from tests.small_dataset import Columns, point_columns, point_contract
from training.datasets.dataset import load_dataset, write_dataset
from training.datasets.facts import facts, statistics
from training.datasets.file import COLUMNS
from training.datasets.merge import merge
from training.datasets.table import Table, read_table
from training.datasets.tools import EXPORTS, export_dataset, import_dataset, split

SHARED = Path(__file__).parents[3] / "shared" / "datasets"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"no public datasets at {SHARED}")


def write_converted(
    path: Path, columns: Columns | None = None, *, log: str = "run1", limit: float = 0.5
) -> Path:
    """A dataset as convert leaves it: contract, times, signals, two sources."""
    columns = columns or mixed_columns()
    rows, contract = len(columns["rewards"]), point_contract(limit)
    rng = np.random.default_rng(int(log[-1]))
    ended = columns["terminals"] | columns["timeouts"]
    episode = np.concatenate([[0], np.cumsum(ended[:-1])]).astype(np.int32)
    infos = {
        "t_ns": 1_700_000_000_000_000_000 + np.arange(rows) * 100_000_000,
        "episode": episode,
        "source": (episode >= 2).astype(np.int32),
        "signals/hand": rng.normal(size=(rows, 2)).astype(np.float32),
    }
    sources = [{"name": f"{log}{part}", "sha256": f"{log}{part}"} for part in "ab"]
    attributes = {
        "format": 1,
        "contract": contract.canonical_json(),
        "contract_digest": contract.digest(),
        "sources": json.dumps(sources, sort_keys=True),
        "created_by": "iql_ros 0.1.0",
    }
    write_dataset(path, columns, infos=infos, attributes=attributes)
    return path


def mixed_columns(seed: int = 0) -> Columns:
    """Four episodes of unequal length, the second and last of which end terminal."""
    columns = point_columns(episodes=4, steps=6, seed=seed)
    keep = np.ones(24, bool)
    keep[[5, 17]] = False  # the first and third are five steps long
    columns = {name: array[keep] for name, array in columns.items()}
    ends = [4, 10, 15, 21]
    columns["terminals"][[10, 21]] = True
    columns["timeouts"][:] = False
    columns["timeouts"][[ends[0], ends[2]]] = True
    columns["actions"][3] = [1e-30, -1e-42]  # scaled about the middle, even these survive
    return columns


def assert_same(left: Path, right: Path) -> None:
    """All arrays and attributes are equal to the bit."""
    with h5py.File(left) as ours, h5py.File(right) as theirs:
        names: list[str] = []
        ours.visit(names.append)
        others: list[str] = []
        theirs.visit(others.append)
        assert names == others
        assert dict(ours.attrs) == dict(theirs.attrs)
        for name in names:
            if isinstance(ours[name], h5py.Dataset):
                assert ours[name].dtype == theirs[name].dtype
                assert ours[name][()].tobytes() == theirs[name][()].tobytes(), name


def name_for(layout: str) -> str:
    return "point-v0" if layout == "minari" else "point.h5"


@pytest.mark.parametrize("layout", EXPORTS)
def test_a_dataset_comes_back_from_every_layout_to_the_bit(tmp_path: Path, layout: str) -> None:
    ours = write_converted(tmp_path / "ours.h5")
    foreign = tmp_path / "foreign" / name_for(layout)

    assert export_dataset(layout, ours, foreign) == []
    findings = import_dataset(layout, foreign, tmp_path / "back.h5")

    assert findings == []
    assert_same(ours, tmp_path / "back.h5")
    assert [p.name for p in foreign.parent.iterdir()] == [foreign.name]


@pytest.mark.parametrize("layout", EXPORTS)
def test_an_export_replaces_only_by_force(tmp_path: Path, layout: str) -> None:
    first = write_converted(tmp_path / "a.h5")
    second = write_converted(tmp_path / "b.h5", mixed_columns(seed=1))
    out = tmp_path / name_for(layout)
    export_dataset(layout, first, out)

    with pytest.raises(DatasetError, match=r"exists and would be replaced.*--force"):
        export_dataset(layout, second, out)
    export_dataset(layout, second, out, force=True)

    import_dataset(layout, out, tmp_path / "back.h5")
    assert_same(second, tmp_path / "back.h5")


def q_learning_rows(path: Path) -> dict[str, np.ndarray]:
    """D4RL's documented rule: the row that follows is next; timeouts and the last row go."""
    with h5py.File(path) as file:
        data = {name: file[name][()] for name in COLUMNS if name != "next_observations"}
    kept = [i for i in range(len(data["rewards"]) - 1) if not data["timeouts"][i]]
    following = [i + 1 for i in kept]
    return {
        "row": np.array(kept),
        "observations": data["observations"][kept],
        "actions": data["actions"][kept],
        "next_observations": data["observations"][following],
        "rewards": data["rewards"][kept],
        "terminals": data["terminals"][kept],
    }


def test_d4rl_s_q_learning_rule_reads_our_transitions(tmp_path: Path) -> None:
    ours = write_converted(tmp_path / "ours.h5")
    export_dataset("d4rl", ours, tmp_path / "d4rl.h5")

    theirs = q_learning_rows(tmp_path / "d4rl.h5")

    table = read_table(ours)
    row = theirs.pop("row")
    assert set(range(22)) - set(row.tolist()) == {4, 15, 21}
    living = ~theirs["terminals"]
    for name, array in theirs.items():
        np.testing.assert_array_equal(array[living], table.columns[name][row][living])


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_minari_s_loader_reads_our_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari", reason="minari is not installed: pip install minari")
    ours = write_converted(tmp_path / "ours.h5")
    export_dataset("minari", ours, tmp_path / "root" / "point-v0")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))

    listed = minari.list_local_datasets()
    dataset = minari.load_dataset("point-v0")

    assert list(listed) == ["point-v0"]
    assert (dataset.total_episodes, dataset.total_steps) == (4, 22)
    assert dataset.action_space.low.tolist() == [-0.5, -0.5]
    table = read_table(ours)
    for rows, episode in zip(table.episodes, dataset.iterate_episodes(), strict=True):
        columns = {name: array[rows] for name, array in table.columns.items()}
        assert all(dataset.observation_space.contains(seen) for seen in episode.observations)
        assert all(dataset.action_space.contains(action) for action in episode.actions)
        np.testing.assert_array_equal(episode.observations[:-1], columns["observations"])
        np.testing.assert_array_equal(episode.observations[1:], columns["next_observations"])
        np.testing.assert_array_equal(episode.actions, columns["actions"])
        np.testing.assert_array_equal(episode.rewards, columns["rewards"])
        np.testing.assert_array_equal(episode.terminations, columns["terminals"])
        np.testing.assert_array_equal(episode.truncations, columns["timeouts"])
        np.testing.assert_array_equal(episode.infos["t_ns"][:-1], table.infos["t_ns"][rows])
        assert np.isnan(episode.infos["signals"]["hand"][-1]).all()
        assert len(episode.infos["t_ns"]) == len(episode.observations)


@pytest.mark.filterwarnings("ignore")
def test_what_minari_wrote_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari", reason="minari is not installed: pip install minari")
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    box = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    spaces = gymnasium.spaces.Dict({"goal": box, "arm": box})
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=i,
            observations={k: rng.uniform(-1, 1, (5, 2)).astype(np.float32) for k in spaces},
            actions=rng.uniform(-1, 1, (4, 2)).astype(np.float32),
            rewards=[0.0, 0.0, 0.0, 1.0],
            terminations=[False, False, False, i == 0],
            truncations=[False, False, False, i == 1],
            infos={"success": [False] * 4 + [True]},
        )
        for i in range(2)
    ]
    minari.create_dataset_from_buffers(
        "theirs-v0", buffers, observation_space=spaces, action_space=box
    )

    import_dataset("minari", tmp_path / "theirs-v0", tmp_path / "ours.h5")

    table = read_table(tmp_path / "ours.h5")
    first = buffers[0].observations
    expected = np.concatenate([first["arm"], first["goal"]], axis=1)
    np.testing.assert_array_equal(table.columns["observations"][:4], expected[:-1])
    np.testing.assert_array_equal(table.columns["next_observations"][:4], expected[1:])
    assert np.flatnonzero(table.columns["terminals"]).tolist() == [3]
    assert np.flatnonzero(table.columns["timeouts"]).tolist() == [7]
    assert table.infos["success"].tolist() == [False] * 8


@pytest.mark.filterwarnings("ignore")
def test_robomimic_s_loader_reads_our_demonstrations(tmp_path: Path) -> None:
    robomimic = pytest.importorskip(
        "robomimic.utils.dataset",
        reason="robomimic is not installed: pip install --no-deps robomimic",
    )
    ours = write_converted(tmp_path / "ours.h5")
    export_dataset("robomimic", ours, tmp_path / "r.h5")

    data = robomimic.SequenceDataset(
        hdf5_path=str(tmp_path / "r.h5"),
        obs_keys=("p",),
        dataset_keys=("actions", "rewards", "dones"),
        seq_length=1,
        hdf5_cache_mode=None,
        hdf5_use_swmr=False,
        load_next_obs=True,
    )
    items = [data[i] for i in range(len(data))]

    columns = read_table(ours).columns
    assert (data.n_demos, len(data)) == (4, 22)
    stacked = {key: np.concatenate([item[key] for item in items]) for key in data.dataset_keys}
    np.testing.assert_array_equal(stacked["rewards"], columns["rewards"])
    np.testing.assert_array_equal(stacked["dones"], columns["terminals"])
    np.testing.assert_array_equal(stacked["actions"] * 0.5, columns["actions"])
    for part, name in (("obs", "observations"), ("next_obs", "next_observations")):
        seen = np.concatenate([item[part]["p"] for item in items])
        np.testing.assert_array_equal(seen, columns[name])


def write_foreign_robomimic(path: Path, *, dones: list[int], next_obs: bool) -> Path:
    """Two demonstrations as another recorder leaves them: two keys, an image, no limits."""
    with h5py.File(path, "w") as file:
        for i in range(2):
            demo = file.create_group(f"data/demo_{i}")
            demo.attrs["num_samples"] = 5
            demo["actions"] = np.full((5, 1), 0.1 * i)
            demo["rewards"] = np.arange(5.0)
            demo["dones"] = dones
            for part, shift in (("obs", 0), ("next_obs", 1)) if next_obs else (("obs", 0),):
                demo[f"{part}/b"] = np.arange(5.0)[:, None] + shift + 10 * i
                demo[f"{part}/a"] = np.arange(10.0).reshape(5, 2) + 2 * shift
                demo[f"{part}/camera"] = np.zeros((5, 4, 4, 3), np.uint8)
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {}})
    return path


def test_a_foreign_robomimic_file_tells_what_was_decided(tmp_path: Path) -> None:
    src = write_foreign_robomimic(tmp_path / "r.h5", dones=[0, 0, 0, 1, 1], next_obs=True)

    findings = import_dataset("robomimic", src, tmp_path / "ours.h5")

    told = "\n".join(findings)
    assert "the observation is a, b of obs" in told
    assert "no vectors: obs/camera" in told
    assert "no action limits" in told
    assert "2 step(s) after a done" in told
    dataset = load_dataset(tmp_path / "ours.h5")
    assert dataset.observations[4:5].tolist() == [[0.0, 1.0, 10.0]]
    assert np.flatnonzero(dataset.terminals).tolist() == [3, 7]


def test_robomimic_keys_can_be_chosen(tmp_path: Path) -> None:
    src = write_foreign_robomimic(tmp_path / "r.h5", dones=[0, 0, 0, 0, 1], next_obs=True)

    import_dataset("robomimic", src, tmp_path / "ours.h5", keys=["b"])

    assert load_dataset(tmp_path / "ours.h5").observations.shape == (10, 1)
    with pytest.raises(DatasetError, match=r"lacks /data/demo_0/obs/c; .* holds a, b, camera"):
        import_dataset("robomimic", src, tmp_path / "other.h5", keys=["c"])


def test_demonstrations_without_next_obs_lose_their_last_step(tmp_path: Path) -> None:
    src = write_foreign_robomimic(tmp_path / "r.h5", dones=[0] * 5, next_obs=False)

    findings = import_dataset("robomimic", src, tmp_path / "ours.h5", keys=["b"])

    dataset = load_dataset(tmp_path / "ours.h5")
    assert dataset.next_observations[:, 0].tolist() == [1, 2, 3, 4, 11, 12, 13, 14]
    assert np.flatnonzero(dataset.timeouts).tolist() == [3, 7]
    assert any("the 2 row(s) at a timeout, which have none, are dropped" in f for f in findings)


def test_actions_beyond_the_limits_are_told_when_scaled(tmp_path: Path) -> None:
    columns = mixed_columns()
    columns["actions"][2] = [0.7, 0.1]
    ours = write_converted(tmp_path / "ours.h5", columns)

    (finding,) = export_dataset("robomimic", ours, tmp_path / "r.h5")
    assert "1 action value(s) lie outside the limits" in finding
    with h5py.File(tmp_path / "r.h5") as file:
        assert file["data/demo_0/actions"][2].tolist() == pytest.approx([1.0, 0.2])
    (finding,) = export_dataset("minari", ours, tmp_path / "point-v0")
    assert "1 steps have an action outside action_space: kept" in finding


def test_minari_refuses_what_is_no_chain(tmp_path: Path) -> None:
    columns = mixed_columns()
    columns["next_observations"][1] += 1.0
    ours = write_converted(tmp_path / "ours.h5", columns)

    with pytest.raises(DatasetError, match=r"next_observations\[1\] is not observations\[2\]"):
        export_dataset("minari", ours, tmp_path / "point-v0")
    with pytest.raises(DatasetError, match=r"no Minari id.*--out .*point-v0"):
        export_dataset("minari", write_converted(tmp_path / "b.h5"), tmp_path / "point")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.h5", "ours.h5"]


def test_force_deletes_no_folder_of_another_kind(tmp_path: Path) -> None:
    home = tmp_path / "home-v0"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")

    with pytest.raises(DatasetError, match="is no Minari dataset and is not replaced"):
        export_dataset("minari", write_converted(tmp_path / "a.h5"), home, force=True)
    assert (home / "thesis.txt").exists()


def spoil_robomimic(path: Path, key: str, change: Any) -> None:
    with h5py.File(path, "a") as file:
        value = None if change is None else change(file[key][()])
        del file[key]
        if value is not None:
            file[key] = value


def with_nan(array: np.ndarray) -> np.ndarray:
    array[1] = np.nan
    return array


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("data/demo_1/rewards", None, r"r\.h5 lacks /data/demo_1/rewards; .* holds actions"),
        ("data/demo_1/rewards", with_nan, r"/data/demo_1/rewards\[1\] is nan.*must be finite"),
        ("data/demo_1/obs/p", lambda a: a[1:], r"/obs/p has shape \(5, 3\), must be \(6, columns"),
        ("data/demo_1/dones", lambda a: a[:, None], r"/dones has shape \(6, 1\), must be \(6,\)"),
        ("data/demo_0/actions", lambda a: a.astype(int), "is of type int64, discrete actions"),
        ("data/demo_0/actions", lambda a: a * 1e300, r"value\(s\) of its kind.*in float32"),
        ("data", None, r"r\.h5 lacks /data; / holds nothing: is it of the layout"),
    ],
)
def test_a_malformed_key_is_named(tmp_path: Path, key: str, change: Any, message: str) -> None:
    src = tmp_path / "r.h5"
    export_dataset("robomimic", write_converted(tmp_path / "ours.h5"), src)
    spoil_robomimic(src, key, change)

    with pytest.raises(DatasetError, match=message):
        import_dataset("robomimic", src, tmp_path / "back.h5")
    assert not (tmp_path / "back.h5").exists()


@pytest.mark.parametrize("layout", ["d4rl", "minari", "robomimic", "imitation"])
@pytest.mark.parametrize("content", [None, b"", b"no such format"])
def test_what_cannot_be_read_is_named(tmp_path: Path, layout: str, content: bytes | None) -> None:
    src = tmp_path / "x-v0"
    file = src / "data" / "main_data.hdf5" if layout == "minari" else src
    if layout == "minari":
        file.parent.mkdir(parents=True)
        (file.parent / "metadata.json").write_text("{}")
    if content is not None:
        file.write_bytes(content)

    reason = "does not exist" if content is None else "is no readable"
    with pytest.raises(DatasetError, match=f"{file.name} {reason}"):
        import_dataset(layout, src, tmp_path / "ours.h5")


def test_a_lost_minari_episode_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "point-v0"
    export_dataset("minari", write_converted(tmp_path / "ours.h5"), folder)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1"]

    findings = import_dataset("minari", folder, tmp_path / "back.h5")

    assert findings == ["metadata.json tells of 22 steps, there are 16"]


def episodes_of(table: Table) -> set[bytes]:
    names = sorted(table.columns)
    return {
        b"".join(table.columns[name][rows].tobytes() for name in names) for rows in table.episodes
    }


def test_halves_of_a_split_merge_to_the_whole(tmp_path: Path) -> None:
    whole, a, b = write_converted(tmp_path / "w.h5"), tmp_path / "a.h5", tmp_path / "b.h5"

    assert split(whole, 0.5, 3, a, b) == (2, 2)
    merge([a, b], tmp_path / "m.h5")

    halves = [read_table(path) for path in (a, b)]
    merged, original = read_table(tmp_path / "m.h5"), read_table(whole)
    assert not episodes_of(halves[0]) & episodes_of(halves[1])
    assert episodes_of(merged) == episodes_of(original)
    assert sorted(s["name"] for s in merged.sources) == ["run1a", "run1b"]
    of_time = dict(zip(original.infos["t_ns"], original.infos["source"], strict=True))
    for t, source in zip(merged.infos["t_ns"], merged.infos["source"], strict=True):
        assert merged.sources[source] == original.sources[of_time[t]]
    with h5py.File(tmp_path / "m.h5") as file:
        assert np.unique(file["infos/episode"]).tolist() == [0, 1, 2, 3]
        assert (np.diff(file["infos/episode"]) >= 0).all()


def test_a_split_is_decided_by_its_seed_alone(tmp_path: Path) -> None:
    whole = write_converted(tmp_path / "w.h5")
    for name, seed in (("x", 0), ("y", 0), ("z", 1)):
        split(whole, 0.5, seed, tmp_path / f"{name}a.h5", tmp_path / f"{name}b.h5")

    first, again, other = ((tmp_path / f"{n}b.h5").read_bytes() for n in "xyz")
    assert first == again != other


def test_a_split_needs_episodes_and_two_names(tmp_path: Path) -> None:
    whole, a, b = write_converted(tmp_path / "w.h5"), tmp_path / "a.h5", tmp_path / "b.h5"

    with pytest.raises(DatasetError, match=r"has 4 episode\(s\), fraction 0.9 would take 4"):
        split(whole, 0.9, 0, a, b)
    with pytest.raises(DatasetError, match="give two names"):
        split(whole, 0.5, 0, a, a)
    with pytest.raises(DatasetError, match=r"fraction is 20, must lie between"):
        split(whole, 20, 0, a, b)


def test_merged_datasets_lie_one_after_another(tmp_path: Path) -> None:
    paths = [
        write_converted(tmp_path / f"{i}.h5", mixed_columns(seed=i), log=f"run{i}") for i in (1, 2)
    ]

    assert merge(paths, tmp_path / "m.h5") == []

    tables, merged = [read_table(path) for path in paths], read_table(tmp_path / "m.h5")
    for name in COLUMNS:
        expected = np.concatenate([table.columns[name] for table in tables])
        np.testing.assert_array_equal(merged.columns[name], expected)
    assert [s["name"] for s in merged.sources] == ["run1a", "run1b", "run2a", "run2b"]
    assert np.unique(merged.infos["source"]).tolist() == [0, 1, 2, 3]
    assert merged.contract == point_contract()


def test_contracts_that_differ_are_not_merged(tmp_path: Path) -> None:
    a = write_converted(tmp_path / "a.h5", log="run1")
    b = write_converted(tmp_path / "b.h5", log="run2", limit=0.7)
    plain = tmp_path / "plain.h5"
    write_dataset(plain, mixed_columns(seed=5), infos={}, attributes={})

    with pytest.raises(DatasetError, match=r"a\.h5 and .*b\.h5 differ in actions\[v\]\.limits"):
        merge([a, b], tmp_path / "m.h5")
    with pytest.raises(DatasetError, match=r"plain\.h5 has no contract"):
        merge([a, plain], tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()


def test_a_log_that_is_given_twice_is_noticed(tmp_path: Path) -> None:
    a = write_converted(tmp_path / "a.h5")
    split(a, 0.5, 0, tmp_path / "half.h5", tmp_path / "other.h5")

    with pytest.raises(DatasetError, match=r"4 of its 4 episode\(s\) are in .*a\.h5 too, from"):
        merge([a, a], tmp_path / "m.h5")
    with pytest.raises(DatasetError, match=r"half\.h5: 2 of its 2 episode"):
        merge([a, tmp_path / "half.h5"], tmp_path / "m.h5")


def test_statistics_and_facts_tell_what_is_there(tmp_path: Path) -> None:
    path = write_converted(tmp_path / "d.h5")
    columns = read_table(path).columns

    told, spread = facts(path), statistics(path)

    assert (told["steps"], told["episodes"], told["terminals"], told["timeouts"]) == (22, 4, 2, 2)
    assert told["actions"] == ["v_x", "v_y"]
    assert told["infos"]["signals/hand"] == ["float32", 22, 2]
    assert (told["episode_steps"]["min"], told["episode_steps"]["max"]) == (5, 6)
    assert told["findings"] == []
    assert spread["observations"]["p_y"]["max"] == columns["observations"][:, 1].max()
    assert spread["returns"]["min"] == pytest.approx(
        min(columns["rewards"][r].astype(float).sum() for r in read_table(path).episodes)
    )
    on_limit = np.abs(columns["actions"][:, 0]) == np.float32(0.5)
    assert spread["at_limit"]["v_x"] == on_limit.mean() > 0


@needs_shared
def test_a_public_file_s_breaks_and_missing_timeouts_are_reported() -> None:
    told = facts(SHARED / "soccer_physical_10_episodes.hdf5")

    # 19 breaks and an end: 10 terminals, 9 breaks between them, and the last row.
    assert (told["episodes"], told["terminals"], told["timeouts"]) == (20, 10, 10)
    assert any("no 'timeouts'" in f and "9 place(s)" in f for f in told["findings"])
    assert "the last row ends no episode: counted as a timeout" in told["findings"]


@needs_shared
@pytest.mark.parametrize("layout", EXPORTS)
def test_a_public_file_comes_back_from_every_layout(tmp_path: Path, layout: str) -> None:
    src = SHARED / "soccer_physical_10_episodes.hdf5"
    import_dataset("d4rl", src, tmp_path / "ours.h5")
    export_dataset(layout, tmp_path / "ours.h5", tmp_path / name_for(layout))
    import_dataset(layout, tmp_path / name_for(layout), tmp_path / "back.h5")

    with h5py.File(src) as theirs, h5py.File(tmp_path / "back.h5") as back:
        for name in ("observations", "next_observations", "rewards", "terminals"):
            np.testing.assert_array_equal(back[name], theirs[name])
        changed = (back["actions"][()] != theirs["actions"][()]).sum()
        # Limits of these data are not symmetric, so values very near 0 may move by 1e-16.
        np.testing.assert_allclose(back["actions"], theirs["actions"], rtol=0, atol=1e-15)
        assert changed <= (0 if layout != "robomimic" else 100)


@needs_shared
def test_a_time_limit_written_as_terminal_is_noticed_and_mended(tmp_path: Path) -> None:
    src = SHARED / "soccer_expert_50k.hdf5"

    plain = import_dataset("d4rl", src, tmp_path / "plain.h5")
    mended = import_dataset("d4rl", src, tmp_path / "mended.h5", time_limit=500)

    assert any("after exactly 500 steps" in f and "--time-limit 500" in f for f in plain)
    assert "100 terminal(s) after 500 steps: now timeouts" in mended
    dataset = load_dataset(tmp_path / "mended.h5")
    assert (dataset.terminals.sum(), dataset.timeouts.sum()) == (0, 100)


@needs_shared
def test_a_file_of_imitation_is_imported(tmp_path: Path) -> None:
    import_dataset("imitation", SHARED / "pendulum_expert.npz", tmp_path / "p.h5")

    dataset = load_dataset(tmp_path / "p.h5")
    with np.load(SHARED / "pendulum_expert.npz") as archive:
        seen = archive["obs"]
    assert len(dataset) == 11_200
    assert (np.diff(dataset.episodes, axis=0) == 200).all()
    np.testing.assert_array_equal(dataset.next_observations[199], seen[200])
    np.testing.assert_array_equal(dataset.observations[200], seen[201])
    with pytest.raises(DatasetError, match=r"acts is of type int64, discrete actions"):
        import_dataset("imitation", SHARED / "cartpole_expert_discrete.npz", tmp_path / "c.h5")


def test_every_verb_runs_from_the_command_line(tmp_path: Path) -> None:
    ours = str(write_converted(tmp_path / "d.h5"))
    a, b, m = (str(tmp_path / f"{name}.h5") for name in "abm")
    folder, back = str(tmp_path / "point-v0"), str(tmp_path / "back.h5")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(dataset_app, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    call("split", ours, "--fraction", "0.25", "--seed", "1", "--out-a", a, "--out-b", b)
    call("merge", a, b, "--out", m)
    call("export", "--to", "minari", ours, "--out", folder)
    call("import", "--from", "minari", folder, "--out", back)

    told = json.loads(call("info", m, "--json"))
    assert (told["steps"], told["robot"]) == (22, "point")
    assert json.loads(call("stats", back, "--json"))["rewards"]["max"] <= 0
    assert "run1" in call("info", ours)
    assert "v_x" in call("stats", ours)
