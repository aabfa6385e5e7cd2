from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from iql_ros.backends.cuda import Device
from iql_ros.backends.engines import (
    Engine,
    EngineKey,
    default_cache,
    find_engine,
    list_engines,
    open_cache,
    remove_entry,
    store_engine,
    timing_cache,
)
from iql_ros.errors import BundleError

KEY = EngineKey("a" * 64, "fp32", "tf32=off", "10.3.0", "8.7", "Orin")
ORIN = Device("Orin", "8.7", True, "12.6")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return open_cache(tmp_path / "cache" / "engines")


def engine(data: bytes = b"engine", key: EngineKey = KEY) -> Engine:
    return Engine(key, data, {"bundle": "b"})


def test_stored_engine_is_found_again(folder: Path) -> None:
    store_engine(folder, engine())
    found = find_engine(folder, KEY)
    assert found is not None
    assert (found.key, found.data, found.facts) == (KEY, b"engine", {"bundle": "b"})


@pytest.mark.parametrize("field", list(EngineKey.__dataclass_fields__))
def test_engine_of_another_key_is_not_found(folder: Path, field: str) -> None:
    store_engine(folder, engine())
    assert find_engine(folder, replace(KEY, **{field: "other"})) is None


def test_engine_that_was_built_anew_replaces_the_old(folder: Path) -> None:
    store_engine(folder, engine(b"old"))
    store_engine(folder, engine(b"new"))
    found = find_engine(folder, KEY)
    assert found is not None
    assert found.data == b"new"
    assert [entry.fault for entry in list_engines(folder)] == ["", "no sidecar names it"]


@pytest.mark.parametrize("keep", [0, 3])
def test_altered_engine_is_not_used(folder: Path, keep: int) -> None:
    path = store_engine(folder, engine())
    path.write_bytes(b"engine"[:keep])
    assert find_engine(folder, KEY) is None
    assert "another SHA-256" in list_engines(folder)[0].fault


@pytest.mark.parametrize("field", list(EngineKey.__dataclass_fields__))
def test_sidecar_with_a_number_for_a_word_is_damaged(folder: Path, field: str) -> None:
    store_engine(folder, engine(key=replace(KEY, **{field: 5})))
    assert "sidecar is damaged" in list_engines(folder)[0].fault


def test_engine_without_its_file_is_not_used(folder: Path) -> None:
    store_engine(folder, engine()).unlink()
    assert find_engine(folder, KEY) is None
    assert "cannot be read" in list_engines(folder)[0].fault


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "key": {}}', "\x00", "null"]
)
def test_damaged_sidecar_is_not_used(folder: Path, text: str) -> None:
    store_engine(folder, engine())
    (folder / f"{KEY.name()}.json").write_text(text)
    assert find_engine(folder, KEY) is None
    assert all(entry.fault for entry in list_engines(folder))


def test_sidecar_reaches_no_file_outside_its_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(b"x")
    store_engine(folder, engine())
    sidecar = folder / f"{KEY.name()}.json"
    document = json.loads(sidecar.read_text())
    document |= {"engine": "../outside", "engine_sha256": hashlib.sha256(b"x").hexdigest()}
    sidecar.write_text(json.dumps(document))
    assert find_engine(folder, KEY) is None


def test_sidecar_that_was_renamed_to_another_key_is_not_used(folder: Path) -> None:
    store_engine(folder, engine())
    other = replace(KEY, tensorrt="10.16.1")
    (folder / f"{KEY.name()}.json").rename(folder / f"{other.name()}.json")
    assert find_engine(folder, other) is None


def test_new_cache_and_its_files_are_the_users_alone(folder: Path) -> None:
    store_engine(folder, engine())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o701, 0o755])
def test_cache_that_others_can_reach_is_refused(folder: Path, mode: int) -> None:
    store_engine(folder, engine())
    folder.chmod(mode)
    with pytest.raises(BundleError, match=f"has mode {mode:04o}, .* chmod 700"):
        find_engine(folder, KEY)


def test_cache_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(BundleError, match="belongs to user"):
        find_engine(folder, KEY)


def test_cache_that_is_a_link_is_refused(folder: Path) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    with pytest.raises(BundleError, match="is a link"):
        open_cache(link)


def test_cache_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot be made"):
        open_cache(tmp_path / "file")


def test_default_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "iql_ros" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "iql_ros" / "engines"


def test_removed_engine_leaves_nothing(folder: Path) -> None:
    store_engine(folder, engine())
    (entry,) = list_engines(folder)
    remove_entry(entry)
    assert list(folder.iterdir()) == []


def test_failed_write_leaves_no_draft_and_the_old_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_engine(folder, engine(b"old"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store_engine(folder, engine(b"new"))
    found = find_engine(folder, KEY)
    assert found is not None
    assert found.data == b"old"
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("tensorrt", "device", "reason"),
    [
        ("10.3.0", ORIN, ""),
        ("10.16.1", ORIN, "built for TensorRT 10.3.0, here is 10.16.1"),
        ("10.3.0", replace(ORIN, compute_capability="11.0"), "compute capability 8.7, here is 11"),
        ("10.3.0", replace(ORIN, name="Thor"), "built for device Orin, here is Thor"),
    ],
)
def test_what_does_not_fit_a_machine_is_named(tensorrt: str, device: Device, reason: str) -> None:
    misfit = KEY.misfit(tensorrt, device)
    assert reason in misfit
    assert bool(misfit) == bool(reason)


def test_timing_caches_of_two_versions_are_two_files(folder: Path) -> None:
    assert timing_cache(folder, "10.3.0", ORIN) != timing_cache(folder, "10.16.1", ORIN)
