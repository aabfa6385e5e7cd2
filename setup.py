"""All metadata of the package: colcon reads it from here, and so does pip.

pyproject.toml holds tool settings only, because colcon builds a package with a
`[project]` table as plain Python and its ROS files then land nowhere.
"""

import sys
from glob import glob

from setuptools import Distribution, find_packages, setup

NAME = "iql_ros"

# What runs on the robot. The workstation's heavier half is in the extras.
ROBOT = [
    "cryptography",
    "numpy",
    "onnxruntime",
    "pydantic>=2",
    "pyyaml",
    "rich",
    "rosbags>=0.11",
    "typer",
    "typing-extensions",
]

EXTRAS = {
    "train": [
        "h5py",
        "isal",
        "lz4",
        "matplotlib",
        "numexpr",
        "onnx",
        "onnxscript",
        "tensorboard",
        "torch>=2.9",
        "zstandard",
    ],
    # 4.0.0 has a wrong Newton factor.
    "sim": ["glfw", "imageio", "imageio-ffmpeg", "mujoco!=4.0.0"],
    # ROS 2 from PyPI, for a machine without one. Elsewhere ROS comes from apt.
    "ros": [
        f"{requirement}; sys_platform == 'linux' and platform_machine == 'x86_64'"
        for requirement in [
            "ros-kilted-rclpy[fastrtps]==9.1.2",
            "ros-kilted-ament-index-python",
            "ros-kilted-diagnostic-msgs==5.5.1",
            "ros-kilted-geometry-msgs==5.5.1",
            "ros-kilted-lifecycle-msgs",
            "ros-kilted-nav-msgs==5.5.1",
            "ros-kilted-rcl-interfaces",
            "ros-kilted-rosgraph-msgs",
            "ros-kilted-sensor-msgs==5.5.1",
            "ros-kilted-std-msgs==5.5.1",
            "ros-kilted-std-srvs==5.5.1",
            "ros-kilted-trajectory-msgs==5.5.1",
        ]
    ],
    # On a Jetson TensorRT itself comes with JetPack, see docs/jetson.md.
    "tensorrt": ["cuda-bindings", "onnx"],
    "dev": [
        "colcon-common-extensions",
        "colcon-ros",
        "hypothesis",
        "mcap",
        "mypy",
        "pytest",
        "ruff",
        # 80 removed `setup.py develop`, which colcon --symlink-install calls.
        "setuptools<80",
    ],
    # What to measure ours against. d3rlpy wants a virtual environment of its own.
    "bench": ["minari==0.5.4"],
}

# ROS looks for executables in lib/iql_ros. setup.cfg tells colcon so; pip reads
# none of that, puts them into bin, and gets a stand-in for each.
BY_PIP = any(command in sys.argv for command in ("bdist_wheel", "editable_wheel"))
STAND_INS = [(f"lib/{NAME}", ["resource/controller", "resource/simulator"])] if BY_PIP else []


class EditableWithData(Distribution):
    """Lets `pip install -e .` install data files.

    setuptools means to, but asks for `has_data`, which no distribution has.
    """

    def has_data(self):
        return True


setup(
    distclass=EditableWithData,
    name=NAME,
    version="0.1.0",
    description="From robot logs to a controller: ROS bags, offline IQL, a verified ONNX bundle",
    license="Apache-2.0",
    maintainer="iql_ros maintainers",
    maintainer_email="maintainers@iql-ros.dev",
    python_requires=">=3.10",
    packages=find_packages(
        include=["iql_ros", "iql_ros.*", "training", "training.*", "sim", "sim.*"]
    ),
    package_data={
        "iql_ros": ["py.typed", "robots/*.yaml"],
        "sim": ["models/*.xml", "worlds/*.yaml", "worlds/*.py", "scenarios/*.yaml"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py") + glob("launch/*.yaml"))),
        (f"share/{NAME}/robots", sorted(glob("iql_ros/robots/*.yaml"))),
        (f"share/{NAME}/models", sorted(glob("sim/models/*.xml"))),
        *STAND_INS,
    ],
    zip_safe=False,
    install_requires=ROBOT,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "iql-ros = iql_ros.cli:main",
            "controller = iql_ros.nodes.controller:main",
            "simulator = sim.node:main",
        ]
    },
)
