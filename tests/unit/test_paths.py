from __future__ import annotations

import pytest

from iql_ros.contracts.paths import Field, Index, Named, Where, component_labels, parse_path
from iql_ros.errors import ContractError


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("header.stamp.sec", ("",)),
        ("point.{x,y,z}", ("x", "y", "z")),
        ("point.{x}", ("",)),
        ("position[elbow]", ("",)),
        ("position[elbow, wrist_1]", ("elbow", "wrist_1")),
        ("ranges[3]", ("",)),
        ("ranges[0:360:90]", ("0", "90", "180", "270")),
        ("ranges[:2]", ("0", "1")),
        ("data[0:2,5]", ("0", "1", "5")),
        ("position[left/arm-1,right arm]", ("left_arm_1", "right_arm")),
        ("poses[0:2].position.{x,y}", ("0_x", "0_y", "1_x", "1_y")),
        ("transforms[child_frame_id=a/b].transform.translation.{x,y}", ("x", "y")),
    ],
)
def test_every_component_has_a_label(text: str, labels: tuple[str, ...]) -> None:
    assert component_labels(text) == labels


def test_steps_lead_from_the_root_to_the_number() -> None:
    (component,) = parse_path("transforms[header.frame_id=odom].transform.rotation.w").components
    assert component.steps == (
        Field("transforms"),
        Where(("header", "frame_id"), "odom"),
        Field("transform"),
        Field("rotation"),
        Field("w"),
    )


def test_quotes_turn_a_number_into_a_name() -> None:
    steps = [component.steps[1] for component in parse_path("position[1,'1b',\"2\"]").components]
    assert steps == [Index(1), Named("1b"), Named("2")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "position 0: expected a field name"),
        ("pose..x", "position 5: expected a field name"),
        ("pose.", "position 5: expected a field name"),
        ("1st", "position 0: expected a field name"),
        ("data[", r"position 4: '\[' needs its '\]', as in 'ranges\[0:360:10\]'"),
        ("point.{x,y", "position 6: '{' needs its '}', as in 'point.{x,y,z}'"),
        ("data[]", "position 5: nothing between brackets"),
        ("point.{x,,z}", "position 9: nothing between brackets"),
        ("point.{x,1}", "position 9: '1' is not a field name"),
        ("data[3]x", r"position 7: expected '.', '\[' or the end"),
        ("data[0:]", "position 5: slice '0:' needs a stop, as in '0:6'"),
        ("data[0:6:0]", "position 5: slice '0:6:0' needs a step of 1 or more"),
        ("data[2,6:6]", "position 7: slice '6:6' selects 0 elements"),
        ("data[0:99999999]", "slice '0:99999999' selects 99999999 elements"),
        ("data[-1]", "position 5: index -1 is negative, elements count from 0"),
        ("position[a-1,a_1]", "two components have the label 'a_1'"),
        ("grid[0:900].row[0:900]", "810000 components, at most 65536 are allowed"),
    ],
)
def test_a_wrong_path_is_refused_with_position_and_rule(text: str, complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint) as caught:
        parse_path(text)
    assert str(caught.value).startswith(f"path {text!r}, position ")
