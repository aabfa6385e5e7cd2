"""Start the MuJoCo simulator and a controller that moves the robot in it.

    ros2 launch iql_ros sim.launch.py bundle:=/path/to/bundle episodes:=20 speed:=2.0

The launch ends when the simulator has played its episodes.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = [
    DeclareLaunchArgument(
        "world", default_value="arm6", description="World file, or the name of a shipped world."
    ),
    DeclareLaunchArgument(
        "compare_with",
        default_value="",
        description="Bundle to play the same episodes with in lockstep at the end; empty: none.",
    ),
    DeclareLaunchArgument(
        "speed", default_value="1.0", description="Simulated seconds per second of real time."
    ),
    DeclareLaunchArgument(
        "episodes", default_value="10", description="Episodes to play before the launch ends."
    ),
    DeclareLaunchArgument("seed", default_value="0", description="Seed of starts and targets."),
    DeclareLaunchArgument(
        "results", default_value="", description="JSON file for the results; empty writes none."
    ),
    # The controller's own arguments, with defaults that suit a simulation.
    DeclareLaunchArgument("bundle", description="Folder of the policy bundle."),
    DeclareLaunchArgument(
        "mode",
        default_value="active",
        choices=["shadow", "active"],
        description="active moves the simulated robot; shadow only reports commands.",
    ),
    DeclareLaunchArgument(
        "allow_ungated",
        default_value="false",
        choices=["true", "false"],
        description="Without use_sim_time: move although the simulation gate has not been passed.",
    ),
    DeclareLaunchArgument(
        "policy_speed",
        default_value="1.0",
        description="Share of the way from rest to the policy's command, 0 to 1.",
    ),
    DeclareLaunchArgument(
        "executor",
        default_value="single",
        choices=["single", "events"],
        description="rclpy's executor for the controller's inputs.",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="true",
        choices=["true", "false"],
        description="Let the controller follow the simulator's /clock.",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of both nodes."),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(Path(__file__).with_name("controller.params.yaml")),
        description="Parameters of the controller that have no argument here.",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="true",
        choices=["true", "false"],
        description="Configure and activate the controller.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Least severity that both nodes log.",
    ),
]

CONTROLLER_ARGUMENTS = [
    "bundle",
    "mode",
    "allow_ungated",
    "policy_speed",
    "executor",
    "use_sim_time",
    "namespace",
    "params_file",
    "autostart",
    "log_level",
]


def generate_launch_description() -> LaunchDescription:
    controller = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("controller.launch.py"))),
        launch_arguments=[(name, LaunchConfiguration(name)) for name in CONTROLLER_ARGUMENTS],
    )
    simulator = Node(
        package="iql_ros",
        executable="simulator",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {
                "speed": ParameterValue(LaunchConfiguration("speed"), value_type=float),
                "episodes": ParameterValue(LaunchConfiguration("episodes"), value_type=int),
                "world": ParameterValue(LaunchConfiguration("world"), value_type=str),
                "bundle": ParameterValue(LaunchConfiguration("compare_with"), value_type=str),
                "seed": ParameterValue(LaunchConfiguration("seed"), value_type=int),
                "results": ParameterValue(LaunchConfiguration("results"), value_type=str),
            }
        ],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
        on_exit=OpaqueFunction(function=_shut_down),
    )
    return LaunchDescription([*ARGUMENTS, controller, simulator])


def _shut_down(context: LaunchContext) -> list[Shutdown]:
    """End the launch with the simulator; after Ctrl-C it is ending already."""
    return [] if context.is_shutdown else [Shutdown(reason="the simulator has exited")]
