"""Run a policy beside what moves the robot now; nothing is published on its command topics.

    ros2 launch iql_ros shadow.launch.py bundle:=/path/to/bundle

Commands go to TOPIC/shadow; /diagnostics has their difference from those on TOPIC.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

ARGUMENTS = [
    DeclareLaunchArgument("bundle", description="Folder of the policy bundle."),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=["true", "false"],
        description="Follow /clock instead of the machine's clock.",
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(Path(__file__).with_name("controller.params.yaml")),
        description="Parameters that have no argument here.",
    ),
]


def generate_launch_description() -> LaunchDescription:
    names = ["bundle", "namespace", "use_sim_time", "params_file"]
    controller = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("controller.launch.py"))),
        launch_arguments=[("mode", "shadow")]
        + [(name, LaunchConfiguration(name)) for name in names],
    )
    return LaunchDescription([*ARGUMENTS, controller])
