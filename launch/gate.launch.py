"""ROS in the loop: nominal episodes through the real node in real time, then in lockstep.

    ros2 launch iql_ros gate.launch.py bundle:=/path/to/bundle world:=arm6 episodes:=20

What differs in outcome and latency is logged by the simulator, and stands in `results`. It uses
this shell's ROS_DOMAIN_ID: take one in which no robot listens. `iql-ros gate BUNDLE --ros` does the
same without launch, in a domain of its own.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

ARGUMENTS = [
    DeclareLaunchArgument("bundle", description="Folder of the policy bundle."),
    DeclareLaunchArgument(
        "world", default_value="arm6", description="World file, or the name of a shipped world."
    ),
    DeclareLaunchArgument(
        "episodes", default_value="20", description="Episodes to play before the launch ends."
    ),
    DeclareLaunchArgument("seed", default_value="0", description="Seed of all episodes."),
    DeclareLaunchArgument(
        "speed",
        default_value="1.0",
        description="Simulated seconds per second; latencies mean something at 1.",
    ),
    DeclareLaunchArgument(
        "results", default_value="", description="JSON file for the results; empty writes none."
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(Path(__file__).with_name("controller.params.yaml")),
        description="Parameters of the controller.",
    ),
]


def generate_launch_description() -> LaunchDescription:
    names = ["bundle", "world", "episodes", "seed", "speed", "results", "params_file"]
    simulation = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("sim.launch.py"))),
        launch_arguments=[
            ("mode", "active"),
            ("use_sim_time", "true"),
            ("compare_with", LaunchConfiguration("bundle")),
        ]
        + [(name, LaunchConfiguration(name)) for name in names],
    )
    return LaunchDescription([*ARGUMENTS, simulation])
