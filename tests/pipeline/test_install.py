"""Each way to install puts executables and shared files where ROS looks for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLCON = Path(sys.executable).with_name("colcon")

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the repository, so that no build leaves anything in the real one."""
    left = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "build", "dist", "install", "log", "runs"
    )
    return shutil.copytree(ROOT, tmp_path / "source", ignore=left)


@pytest.fixture
def environment() -> dict[str, str]:
    """This process's environment without what ties a child to this virtual environment."""
    ties = {"LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PYTHONPATH", "AMENT_PREFIX_PATH"}
    return {name: value for name, value in os.environ.items() if name not in ties}


def run(*command: object, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_ros_finds(prefix: Path) -> None:
    """Check an ament prefix by the paths that ros2 run, ros2 launch and the index use."""
    share = prefix / "share" / "iql_ros"
    assert (prefix / "share/ament_index/resource_index/packages/iql_ros").is_file()
    assert (share / "package.xml").is_file()
    for name in ["controller.launch.py", "sim.launch.py", "controller.params.yaml"]:
        assert (share / "launch" / name).is_file()
    for folder, kept in [("robots", ROOT / "iql_ros/robots"), ("models", ROOT / "sim/models")]:
        names = {file.name for file in kept.iterdir() if file.suffix in {".yaml", ".xml"}}
        assert {file.name for file in (share / folder).iterdir()} == names != set()
    for name in ["controller", "simulator"]:
        assert os.access(prefix / "lib" / "iql_ros" / name, os.X_OK)


@pytest.mark.parametrize("flags", [[], ["--symlink-install"]], ids=["plain", "symlink"])
def test_colcon_build_gives_a_ros_package(
    tmp_path: Path, source: Path, environment: dict[str, str], flags: list[str]
) -> None:
    if not COLCON.exists():
        pytest.skip(f"{COLCON} is not installed")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    run(COLCON, "build", "--base-paths", source, *flags, cwd=workspace, env=environment)

    prefix = workspace / "install" / "iql_ros"
    assert_ros_finds(prefix)
    sourced = f". {workspace}/install/setup.sh && {prefix}/lib/iql_ros/iql-ros --help"
    assert "convert" in run("sh", "-c", sourced, cwd=workspace, env=environment)


def test_editable_pip_install_gives_a_ros_package(
    tmp_path: Path, source: Path, environment: dict[str, str]
) -> None:
    prefix = tmp_path / "venv"
    venv.create(prefix, symlinks=True)
    # pip, setuptools and the dependencies come from this environment: nothing is downloaded.
    here = sysconfig.get_path("purelib")
    Path(sysconfig.get_path("purelib", vars={"base": prefix}), "here.pth").write_text(here)
    python = prefix / "bin" / "python"
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    run(python, "-m", "pip", "install", *offline, "-e", source, cwd=tmp_path, env=environment)

    assert_ros_finds(prefix)
    assert "convert" in run(prefix / "bin" / "iql-ros", "--help", cwd=tmp_path, env=environment)
    found = "import iql_ros, training, sim; print(iql_ros.__file__)"
    assert run(python, "-c", found, cwd=tmp_path, env=environment).startswith(str(source))
