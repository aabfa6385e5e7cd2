"""Rewards and terminal rules, evaluated over the named components of a step."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping

import numexpr
import numpy as np
from numexpr.expressions import functions as FUNCTIONS
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.errors import ContractError

Array = NDArray[np.float64]
Columns = Mapping[str, Array]


def step_columns(contract: Contract, fields: Mapping[str, Array], actions: Array) -> Columns:
    """Every name that an expression may use, each of shape (T - 1,).

    Args:
        contract: names the components.
        fields: by field name, shape (T, components), on the grid.
        actions: shape (T - 1, A): of the step from each instant to the next.

    Returns:
        Components at the beginning of the step, with the prefix `next_` at its end, and the
        action's components.
    """
    columns = dict(zip(contract.action_names, actions.T, strict=True))
    for name, values in fields.items():
        for component, column in zip(contract.components(name), values.T, strict=True):
            columns[component] = column[:-1]
            columns[f"next_{component}"] = column[1:]
    return columns


def evaluate(expression: str, columns: Columns, owner: str) -> Array:
    """Value of an expression for each step, shape (N,).

    Numexpr parses it: arithmetic, comparison, `&`, `|`, `~`, `where`, `sqrt`, `exp`, ...; no
    attribute, index or call of anything else.

    Args:
        expression: over the names in `columns`.
        columns: arrays of shape (N,).
        owner: the contract key, for error texts.

    Raises:
        ContractError: an unknown name, or not a valid expression.
    """
    size = len(next(iter(columns.values())))
    try:
        value = numexpr.evaluate(
            expression, local_dict=dict(columns), global_dict={}, sanitize=True
        )
    except KeyError as error:
        raise ContractError(
            f"{owner} = {expression!r} uses {error.args[0]!r}, which is no component: there are "
            f"{', '.join(name for name in columns if not name.startswith('next_'))}, "
            f"each also with the prefix next_"
        ) from None
    except (ValueError, TypeError, SyntaxError, NotImplementedError, AttributeError) as error:
        reason = _unknown_function(expression) if isinstance(error, TypeError) else None
        raise ContractError(
            f"{owner} = {expression!r} cannot be evaluated: {reason or error}"
        ) from None
    return np.broadcast_to(value, (size,)).astype(np.float64)


def _unknown_function(expression: str) -> str | None:
    """Names what a valid expression calls that is no function; of that numexpr only gives up."""
    called = [node.func for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Call)]
    for function in called:
        if isinstance(function, ast.Name) and function.id not in FUNCTIONS:
            return f"{function.id!r} is no function: there are {', '.join(sorted(FUNCTIONS))}"
    return None


def rule_faults(contract: Contract) -> list[str]:
    """What is wrong with the expressions of a contract, tried over a step of zeros."""
    fields = {name: np.zeros((2, len(contract.components(name)))) for name in contract.fields}
    columns = step_columns(contract, fields, np.zeros((1, contract.action_size)))
    written = {
        "reward.expression": contract.reward.expression,
        "episode.terminal": contract.episode.terminal,
    }
    faults = []
    for key, text in written.items():
        if text is not None:
            try:
                evaluate(text, columns, key)
            except ContractError as error:
                faults.append(str(error))
    return faults


def rewards(contract: Contract, columns: Columns) -> Array:
    """Reward of each step by the contract's rule, shape (N,).

    Raises:
        ContractError: the rule cannot be evaluated, or gives a wrong shape or a non-finite value.
    """
    rule = contract.reward
    if rule.expression is not None:
        values = evaluate(rule.expression, columns, "reward.expression")
    elif rule.field is not None:
        values = columns[f"next_{contract.components(rule.field)[0]}"]
    else:
        assert rule.function is not None
        values = _call(rule.function, columns)
    return values


def terminals(contract: Contract, columns: Columns) -> NDArray[np.bool_]:
    """Whether each step ends in a terminal state, shape (N,); NaN is no word on it."""
    size = len(next(iter(columns.values())))
    if contract.episode.terminal is None:
        return np.zeros(size, bool)
    values = evaluate(contract.episode.terminal, columns, "episode.terminal")
    return (values != 0) & ~np.isnan(values)


def _call(function: str, columns: Columns) -> Array:
    module, _, name = function.partition(":")
    try:
        reward = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ContractError(f"reward.function = {function!r} cannot be imported: {error}") from None
    size = len(next(iter(columns.values())))
    values = np.asarray(reward(columns), dtype=np.float64)
    if values.shape != (size,):
        raise ContractError(
            f"reward.function = {function!r} gave shape {values.shape}, wanted ({size},)"
        )
    return values
