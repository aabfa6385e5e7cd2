"""Start the controller node and lead it through configure and activate.

    ros2 launch iql_ros controller.launch.py bundle:=/path/to/bundle mode:=active

Stop it with Ctrl-C: `ros2 launch` leaves its nodes running when it gets a SIGTERM
itself (ros2/launch issue 666).
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

ARGUMENTS = [
    DeclareLaunchArgument("bundle", description="Folder of the policy bundle."),
    DeclareLaunchArgument(
        "mode",
        default_value="shadow",
        choices=["shadow", "active"],
        description="shadow computes and reports commands; active publishes them: the robot moves.",
    ),
    DeclareLaunchArgument(
        "allow_ungated",
        default_value="false",
        choices=["true", "false"],
        description="Move the robot although the bundle has not passed its simulation gate.",
    ),
    DeclareLaunchArgument(
        "policy_speed",
        default_value="1.0",
        description="Share of the way from rest to the policy's command, 0 to 1; may be changed "
        "while it runs: ros2 param set /iql_controller speed 0.5",
    ),
    DeclareLaunchArgument(
        "executor",
        default_value="single",
        choices=["single", "events"],
        description="rclpy's executor for the inputs; events is faster where rclpy has it.",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=["true", "false"],
        description="Follow /clock instead of the machine's clock.",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(Path(__file__).with_name("controller.params.yaml")),
        description="Parameters that have no argument here.",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="true",
        choices=["true", "false"],
        description="Configure and activate; false leaves both to `ros2 lifecycle set`.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Least severity that the node logs.",
    ),
]


def generate_launch_description() -> LaunchDescription:
    node = LifecycleNode(
        package="iql_ros",
        executable="controller",
        name="iql_controller",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            # Typed, or a bundle folder named 2024 would arrive as an integer.
            {
                "bundle": ParameterValue(LaunchConfiguration("bundle"), value_type=str),
                "mode": ParameterValue(LaunchConfiguration("mode"), value_type=str),
                "allow_ungated": ParameterValue(
                    LaunchConfiguration("allow_ungated"), value_type=bool
                ),
                "speed": ParameterValue(LaunchConfiguration("policy_speed"), value_type=float),
                "executor": ParameterValue(LaunchConfiguration("executor"), value_type=str),
                "use_sim_time": ParameterValue(
                    LaunchConfiguration("use_sim_time"), value_type=bool
                ),
            },
        ],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
        on_exit=OpaqueFunction(function=_shut_down),
    )
    autostart = IfCondition(LaunchConfiguration("autostart"))
    configure = RegisterEventHandler(
        OnProcessStart(
            target_action=node, on_start=[_request(node, Transition.TRANSITION_CONFIGURE)]
        ),
        condition=autostart,
    )
    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[_request(node, Transition.TRANSITION_ACTIVATE)],
        ),
        condition=autostart,
    )
    refused = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="unconfigured",
            entities=[LogInfo(msg="iql_controller refused to configure: its last error says why.")],
        )
    )
    forbidden = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="activating",
            goal_state="inactive",
            entities=[LogInfo(msg="iql_controller refused to activate: its last error says why.")],
        )
    )
    # Handlers before the node, so that they miss none of its events.
    return LaunchDescription([*ARGUMENTS, configure, activate, refused, forbidden, node])


def _request(node: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
    )


def _shut_down(context: LaunchContext) -> list[Shutdown]:
    """End the launch with its node; a second shutdown after Ctrl-C would give exit code 1."""
    return [] if context.is_shutdown else [Shutdown(reason="the controller has exited")]
