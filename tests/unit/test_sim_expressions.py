import math

import numexpr
import numpy as np
import pytest

from iql_ros.errors import ContractError
from sim.expressions import Expression

NAMES = {"x", "y"}


@pytest.mark.parametrize(
    "text",
    [
        "10 * log(x / y) - 0.2",
        "(x < 0.5) & (y > 0.2) | ~(x < y)",
        "where(x > y, sqrt(x), -abs(y)) + arctan2(x, y) ** 2 % 3",
        "exp(-x) * cos(y) + sin(x) - tanh(y)",
    ],
)
def test_the_value_is_that_of_the_converter(text):
    expression = Expression(text, NAMES, "reward")
    for x, y in np.random.default_rng(0).uniform(0, 1, (20, 2)).tolist():
        expected = float(numexpr.evaluate(text, local_dict={"x": x, "y": y}, global_dict={}))
        # numexpr has other roundings of log and exp
        assert float(expression({"x": x, "y": y})) == pytest.approx(expected, rel=1e-12)


def test_a_value_that_is_none_is_nan():
    assert math.isnan(Expression("log(x)", NAMES, "reward")({"x": -1.0}))
    assert math.isnan(Expression("1 / x", NAMES, "reward")({"x": 0.0}))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("__import__('os')", "only arithmetic"),
        ("x.real", "only arithmetic"),
        ("[x][0]", "only arithmetic"),
        ("(lambda: 1)()", "only arithmetic"),
        ("eval(x)", "only arithmetic"),
        ("'a' * 9", "only arithmetic"),
        ("x +", "cannot be read"),
        ("x + z", "uses 'z': there are x, y"),
    ],
)
def test_anything_else_is_refused(text, rule):
    with pytest.raises(ContractError, match=rule):
        Expression(text, NAMES, "success")
