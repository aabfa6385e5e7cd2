"""Holds the table of rooms of docs/architecture.md: who may import what."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("iql_ros", "training", "sim")

# Import name -> the only folders and files that may name it.
ROOMS = {
    "torch": ("training/",),
    "h5py": ("training/",),
    "mujoco": ("sim/",),
    "rclpy": ("iql_ros/nodes/", "sim/node.py"),
    "training": ("training/", "iql_ros/cli.py"),
    "sim": ("sim/", "iql_ros/cli.py"),
}

IMPORT_ALL = """
import importlib, pkgutil, sys
import iql_ros
for module in pkgutil.walk_packages(iql_ros.__path__, "iql_ros."):
    if not module.name.startswith("iql_ros.nodes"):
        importlib.import_module(module.name)
print(*sorted(sys.modules))
"""


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and top-level name of each absolute import, also those inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.lineno, node.module.partition(".")[0]


def modules_loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after `code`, which prints them."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_imports_inside_functions_are_seen() -> None:
    source = "def f():\n    import torch.nn\n    from h5py import File\n    from . import near\n"
    assert list(imports(source)) == [(2, "torch"), (3, "h5py")]


@pytest.mark.parametrize("name", ROOMS)
def test_module_is_imported_only_in_its_room(name: str) -> None:
    strays = [
        f"{file.relative_to(ROOT)}:{line}"
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for line, imported in imports(file.read_text())
        if imported == name and not file.relative_to(ROOT).as_posix().startswith(ROOMS[name])
    ]
    assert not strays, f"{name} belongs to {ROOMS[name]}, but is imported at {strays}"


def test_robot_side_loads_no_workstation_library() -> None:
    assert not modules_loaded_by(IMPORT_ALL) & {"torch", "h5py", "mujoco", "rclpy"}


def test_controller_node_never_loads_torch() -> None:
    if importlib.util.find_spec("rclpy") is None:
        pytest.skip("rclpy is not installed")
    loaded = modules_loaded_by("import sys, iql_ros.nodes.controller; print(*sorted(sys.modules))")
    assert "rclpy" in loaded
    assert not loaded & {"torch", "h5py", "mujoco", "training", "sim"}
