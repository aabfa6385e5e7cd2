from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iql_ros.errors import ContractError
from iql_ros.features import FEATURES

WIDTHS = {name: [width or 2 for width in feature.widths] for name, feature in FEATURES.items()}


def quaternion(axis: list[float], angle: float) -> np.ndarray:
    """Rows (x, y, z, w) of the turn by `angle` about a unit `axis`."""
    return np.array([[*(np.sin(angle / 2) * np.array(axis)), np.cos(angle / 2)]])


def test_yaw_is_the_turn_about_z() -> None:
    for angle in (-3.0, -0.5, 0.0, 1.5, 3.1):
        result = FEATURES["yaw"](quaternion([0, 0, 1], angle))
        # Half an ulp each for sine, cosine and arc tangent of an angle of about 3.
        np.testing.assert_allclose(result, [[angle]], rtol=0, atol=2e-15)


def test_yaw_of_no_quaternion_is_nan() -> None:
    assert np.isnan(FEATURES["yaw"](np.zeros((1, 4)))).all()


def test_yaw_is_the_same_for_both_signs_of_a_quaternion() -> None:
    turn = np.random.default_rng(0).normal(size=(100, 4))
    assert np.array_equal(FEATURES["yaw"](turn), FEATURES["yaw"](-turn))


def test_rot6d_is_two_columns_of_the_rotation_matrix() -> None:
    quarter_about_z = 3 * quaternion([0, 0, 1], np.pi / 2)  # any length will do
    result = FEATURES["rot6d"](quarter_about_z)
    np.testing.assert_allclose(result, [[0, 1, 0, -1, 0, 0]], atol=1e-15)


def test_rot6d_is_the_same_for_both_signs_of_a_quaternion() -> None:
    turn = np.random.default_rng(0).normal(size=(100, 4))
    assert np.array_equal(FEATURES["rot6d"](turn), FEATURES["rot6d"](-turn))


def test_rotate_inverse_undoes_the_rotation() -> None:
    ahead_of_a_body_that_looks_along_y = np.array([[0.0, 2.0, 0.5]])
    turn = quaternion([0, 0, 1], np.pi / 2)
    result = FEATURES["rotate_inverse"](ahead_of_a_body_that_looks_along_y, turn)
    np.testing.assert_allclose(result, [[2, 0, 0.5]], atol=1e-15)


def test_rotate_inverse_of_the_first_two_columns_are_the_axes() -> None:
    turn = np.random.default_rng(0).normal(size=(50, 4))
    columns = FEATURES["rot6d"](turn)
    for axis, column in ((0, columns[:, :3]), (1, columns[:, 3:])):
        seen = FEATURES["rotate_inverse"](column, turn)
        np.testing.assert_allclose(seen, np.tile(np.eye(3)[axis], (50, 1)), atol=1e-14)


def test_sincos_gives_sines_then_cosines() -> None:
    result = FEATURES["sincos"](np.array([[0.0, np.pi / 2]]))
    np.testing.assert_allclose(result, [[0, 1, 1, 0]], atol=1e-16)


def test_angle_difference_takes_the_short_way() -> None:
    a, b = np.array([[3.0, -3.0, 1.0]]), np.array([[-3.0, 3.0, 0.25]])
    result = FEATURES["angle_difference"](a, b)
    np.testing.assert_allclose(result, [[6 - 2 * np.pi, 2 * np.pi - 6, 0.75]], atol=1e-15)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_angle_difference_lies_in_the_half_open_turn(a: float, b: float) -> None:
    (result,) = FEATURES["angle_difference"](np.array([[a]]), np.array([[b]]))[0]
    assert -np.pi <= result < np.pi


def test_angle_difference_just_below_a_turn_stays_below_pi() -> None:
    a = np.array([[np.nextafter(-np.pi, -4)]])
    (result,) = FEATURES["angle_difference"](a, np.zeros((1, 1)))[0]
    assert -np.pi <= result < np.pi


def test_difference_and_norm() -> None:
    a, b = np.array([[4.0, 6.0]]), np.array([[1.0, 2.0]])
    offset = FEATURES["difference"](a, b)
    assert offset.tolist() == [[3, 4]]
    assert FEATURES["norm"](offset).tolist() == [[5]]


def test_the_reciprocal_of_a_range_is_its_nearness_and_zero_beyond_all_bounds() -> None:
    assert FEATURES["reciprocal"](np.array([[0.5, 4.0, np.inf]])).tolist() == [[2, 0.25, 0]]


def test_infinity_gives_nan_without_a_warning() -> None:
    infinite = np.full((2, 2), np.inf)
    for name in ("sin", "cos", "sincos", "angle_difference"):
        assert np.isnan(FEATURES[name](*[infinite] * len(WIDTHS[name]))).all(), name
    assert np.isnan(FEATURES["rot6d"](np.zeros((1, 4)))).all()


@pytest.mark.parametrize("name", FEATURES)
def test_there_is_a_label_for_every_component(name: str) -> None:
    labels = [tuple("abcd"[:width]) for width in WIDTHS[name]]
    result = FEATURES[name](*(np.ones((3, width)) for width in WIDTHS[name]))
    assert result.shape == (3, len(FEATURES[name].labels(labels)))


def test_labels_of_sincos_are_told_apart() -> None:
    assert FEATURES["sincos"].labels([("",)]) == ("sin", "cos")
    assert FEATURES["sincos"].labels([("a", "b")]) == ("sin_a", "sin_b", "cos_a", "cos_b")


@pytest.mark.parametrize("name", FEATURES)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_row_alone_gives_the_bits_that_it_gives_in_a_batch(
    name: str, data: st.DataObject
) -> None:
    rows = data.draw(st.integers(1, 40))
    numbers = st.floats(allow_nan=False, width=64) | st.floats(-7, 7)
    operands = [
        # A stretch of a wider array: other alignment and strides than a row alone.
        data.draw(arrays(np.float64, (rows + 1, width + 1), elements=numbers))[1:, 1:]
        for width in WIDTHS[name]
    ]
    batch = FEATURES[name](*operands)
    for row in range(rows):
        alone = FEATURES[name](*(operand[row : row + 1].copy() for operand in operands))
        assert alone.tobytes() == batch[row : row + 1].tobytes()


@pytest.mark.parametrize("name", FEATURES)
def test_ten_thousand_rows_give_the_bits_of_single_rows(name: str) -> None:
    generator = np.random.default_rng(1)
    operands = [generator.normal(scale=3, size=(10_000, width)) for width in WIDTHS[name]]
    batch = FEATURES[name](*operands)
    for row in range(0, 10_000, 97):
        alone = FEATURES[name](*(operand[row : row + 1] for operand in operands))
        assert alone.tobytes() == batch[row : row + 1].tobytes()


def test_check_names_the_field_the_number_and_the_rule() -> None:
    for feature, widths, text in (
        ("yaw", [4, 4], "field 'f' derives from 2 operands, it takes 1"),
        ("yaw", [3], "field 'f': operand 1 has 3 components, it must have 4"),
        ("rotate_inverse", [3, 3], "field 'f': operand 2 has 3 components, it must have 4"),
        ("difference", [3, 2], "field 'f': its operands have 3 and 2 components"),
    ):
        with pytest.raises(ContractError, match=text):
            FEATURES[feature].check("f", widths)
    FEATURES["rotate_inverse"].check("f", [3, 4])
