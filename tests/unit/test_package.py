"""What setup.py and package.xml say has to agree with each other and with the code."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import iql_ros

ROOT = Path(__file__).parents[2]
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()

# Import name -> (requirement of setup.py, key of package.xml); None: there is no rosdep key,
# and package.xml says so in a comment.
REQUIREMENTS = {
    "cryptography": ("cryptography", "python3-cryptography"),
    "ament_index_python": ("ros-kilted-ament-index-python", "ament_index_python"),
    "glfw": ("glfw", None),
    "h5py": ("h5py", "python3-h5py"),
    "imageio": ("imageio", "python3-imageio"),
    "lz4": ("lz4", None),
    "matplotlib": ("matplotlib", "python3-matplotlib"),
    "mujoco": ("mujoco", "python3-mujoco-pip"),
    "isal": ("isal", None),
    "numexpr": ("numexpr", None),
    "numpy": ("numpy", "python3-numpy"),
    "onnx": ("onnx", None),
    "onnxruntime": ("onnxruntime", "python3-onnxruntime-pip"),
    "onnxscript": ("onnxscript", None),
    "pydantic": ("pydantic", "python3-pydantic"),
    "rcl_interfaces": ("ros-kilted-rcl-interfaces", "rcl_interfaces"),
    "rclpy": ("ros-kilted-rclpy", "rclpy"),
    "rich": ("rich", "python3-rich"),
    "rosbags": ("rosbags", "python3-rosbags-pip"),
    "torch": ("torch", "python3-torch"),
    "typer": ("typer", "python3-typer"),
    "typing_extensions": ("typing-extensions", "python3-typing-extensions"),
    "yaml": ("pyyaml", "python3-yaml"),
    "zstandard": ("zstandard", None),
}
# Used where the machine has them; the code does without.
OPTIONAL = {"cuda", "tensorrt"}


def setup_keywords() -> dict[str, Any]:
    """Return the keywords of the call of setup() that are literals."""
    calls = (node for node in ast.walk(SETUP) if isinstance(node, ast.Call))
    call = next(c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "setup")
    literals = {}
    for keyword in call.keywords:
        try:
            literals[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return literals


SETUP = ast.parse((ROOT / "setup.py").read_text())
KEYWORDS = setup_keywords()


def third_party_imports() -> Iterator[tuple[str, str]]:
    """Yield import name and file for all that the three packages import from elsewhere."""
    own = {"iql_ros", "training", "sim", *sys.stdlib_module_names}
    for package in ("iql_ros", "training", "sim"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module or ""]
                for name in {name.partition(".")[0] for name in names} - own:
                    yield name, str(file.relative_to(ROOT))


def test_setup_py_and_package_xml_agree() -> None:
    assert KEYWORDS["version"] == MANIFEST.findtext("version") == iql_ros.__version__
    assert KEYWORDS["license"] == MANIFEST.findtext("license")
    maintainer = MANIFEST.find("maintainer")
    assert maintainer is not None
    assert KEYWORDS["maintainer"] == maintainer.text
    assert KEYWORDS["maintainer_email"] == maintainer.get("email")


def test_package_xml_passes_ros_validation() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # catkin_pkg's own imports
        package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
    found: list[str] = []
    manifest = package.parse_package(str(ROOT), warnings=found)
    assert manifest.get_build_type() == "ament_python"
    assert not found


@pytest.mark.parametrize("script", KEYWORDS["entry_points"]["console_scripts"])
def test_console_script_has_its_function(script: str) -> None:
    module, function = script.partition(" = ")[2].split(":")
    file = ROOT / Path(*module.split(".")).with_suffix(".py")
    tree = ast.parse(file.read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_import_is_a_declared_dependency() -> None:
    depends = {element.text for element in MANIFEST if element.tag == "exec_depend"}
    required = {
        re.split(r"[\[<>=!;]", text)[0]
        for node in ast.walk(SETUP)
        if isinstance(node, ast.Constant) and isinstance(text := node.value, str)
    }
    missing = set()
    for name, file in third_party_imports():
        if name in OPTIONAL:
            continue
        messages = name.endswith(("_msgs", "_srvs"))
        default = (f"ros-kilted-{name.replace('_', '-')}", name) if messages else None
        requirement, key = REQUIREMENTS.get(name, default) or (f"nothing for {name}", None)
        if requirement not in required:
            missing.add(f"setup.py lacks {requirement}, imported by {file}")
        if key is not None and key not in depends:
            missing.add(f"package.xml lacks {key}, imported by {file}")
    assert not missing, sorted(missing)


def test_launch_folder_is_no_package() -> None:
    assert (ROOT / "launch").is_dir()
    assert not (ROOT / "launch" / "__init__.py").exists(), "it would shadow the launch of ROS"


def test_types_are_announced() -> None:
    assert (ROOT / "iql_ros" / "py.typed").exists()


@pytest.mark.parametrize("name", ["controller", "simulator"])
def test_stand_in_runs_the_script_that_pip_put_into_bin(tmp_path: Path, name: str) -> None:
    stand_in = tmp_path / "lib" / "iql_ros" / name
    script = tmp_path / "bin" / name
    for file, text in [
        (stand_in, (ROOT / "resource" / name).read_text()),
        (script, '#!/bin/sh\necho "$(basename "$0")" "$@"\n'),
    ]:
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(0o755)
    done = subprocess.run([stand_in, "--ros-args", "a b"], capture_output=True, text=True)
    assert done.stdout == f"{name} --ros-args a b\n"
    assert os.access(ROOT / "resource" / name, os.X_OK), "git has to keep its executable bit"
