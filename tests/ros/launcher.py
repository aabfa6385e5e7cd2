"""`ros2 launch` for tests: python -m tests.ros.launcher FILE NAME:=VALUE ..."""

from __future__ import annotations

import sys

from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource


def main() -> int:
    path, *given = sys.argv[1:]
    arguments = [tuple(pair.split(":=", 1)) for pair in given]
    source = PythonLaunchDescriptionSource(path)
    service = LaunchService()
    service.include_launch_description(
        LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
    )
    return int(service.run())


if __name__ == "__main__":
    raise SystemExit(main())
