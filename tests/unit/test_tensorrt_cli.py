"""`iql-ros compile` and `iql-ros engines`, on the doubles: no TensorRT runs here."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from iql_ros.cli import app
from iql_ros.errors import BundleError
from tests.small_bundle import write_bundle
from tests.tensorrt_double import install_doubles


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle").path


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("version", ["8.6.2", "10.3.0"])
def test_compile_says_where_how_long_and_how_near(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    install_doubles(monkeypatch, version)
    told = invoke("compile", bundle, "--cache", tmp_path / "engines")
    assert f"fp32 engine in {tmp_path / 'engines'}" in told
    assert f"s by TensorRT {version} for Double" in told
    assert "256 golden pairs, worst error" in told
    assert "(tolerance 1e-04); launched as graph" in told


def test_compile_takes_precision_and_workspace(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_doubles(monkeypatch)
    cache = ("--cache", tmp_path / "engines")
    told = invoke("compile", bundle, "--precision", "fp16", "--workspace", 32, *cache)
    assert "fp16 engine" in told
    assert "(tolerance 1e-02)" in told
    (sidecar,) = (tmp_path / "engines").glob("*.json")
    assert "workspace=32MB" in sidecar.read_text()


def test_compile_without_a_gpu_says_what_is_missing(bundle: Path) -> None:
    try:
        from cuda.bindings import runtime  # noqa: F401
    except ImportError:
        with pytest.raises(BundleError, match="CUDA for Python cannot be imported"):
            invoke("compile", bundle)
    else:
        pytest.skip("cuda-bindings is installed")


def test_engines_are_listed_with_their_state_and_pruned(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ("--cache", tmp_path / "engines")
    for version in ("10.3.0", "10.16.1"):
        install_doubles(monkeypatch, version)
        invoke("compile", bundle, *cache)
    (tmp_path / "engines" / "stray.engine").write_bytes(b"")
    told = invoke("engines", *cache)
    assert "built for TensorRT 10.3.0, here is 10.16.1" in told
    assert "usable" in told
    assert "no sidecar names it" in told
    assert "removed, built for TensorRT 10.3.0" in invoke("engines", *cache, "--prune")
    told = invoke("engines", *cache)
    assert "usable" in told
    assert "10.3.0" not in told
    assert "stray" not in told


def test_engine_of_another_recipe_is_listed_as_stale_and_not_used(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ("--cache", tmp_path / "engines")
    install_doubles(monkeypatch)
    monkeypatch.setattr("iql_ros.backends.tensorrt._RECIPE", "recipe=0")
    invoke("compile", bundle, *cache)
    monkeypatch.undo()
    install_doubles(monkeypatch)
    told = invoke("engines", *cache)
    assert "built by another version of iql_ros (recipe=0 workspace=256MB" in told
    assert "usable" not in told
    invoke("compile", bundle, *cache)
    assert "usable" in invoke("engines", *cache)


def test_pruning_where_nothing_can_run_keeps_whole_engines(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ("--cache", tmp_path / "engines")
    install_doubles(monkeypatch)
    invoke("compile", bundle, *cache)
    install_doubles(monkeypatch, count=0)
    told = invoke("engines", *cache, "--prune")
    assert "none can be used here: no CUDA device" in told
    install_doubles(monkeypatch)
    assert "usable" in invoke("engines", *cache)
