"""Expressions over named numbers, as contracts and world files have them.

The language is the one in which a contract states its reward: arithmetic, comparison, `&`, `|`,
`~`, and the functions below. Nothing else is compiled, so a file cannot call or reach anything.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from iql_ros.errors import ContractError

FUNCTIONS: Mapping[str, Callable[..., float]] = {
    **{name: getattr(math, name) for name in ("sqrt", "exp", "log", "log10", "log1p", "expm1")},
    **{name: getattr(math, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{"arcsin": math.asin, "arccos": math.acos, "arctan": math.atan, "arctan2": math.atan2},
    **{"abs": abs, "floor": math.floor, "ceil": math.ceil},
    "where": lambda condition, yes, no: yes if condition else no,
}

_NODES = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Name, ast.Load),
    *(ast.operator, ast.unaryop, ast.cmpop),
)


class Expression:
    """One expression, compiled.

    Attributes:
        text: as it was written.
        names: the numbers that it needs.
    """

    def __init__(self, text: str, names: Collection[str], owner: str) -> None:
        """Compiles `text`.

        Args:
            names: those that it may use.
            owner: the key that it stands under, for error texts.

        Raises:
            ContractError: it is none, or uses another name.
        """
        self.text, self._owner = text, owner
        tree = self._parse()
        self.names = tuple(sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}))
        self.names = tuple(name for name in self.names if name not in FUNCTIONS)
        for name in self.names:
            if name not in names:
                raise ContractError(
                    f"{owner} = {text!r} uses {name!r}: there are {', '.join(sorted(names))}"
                )
        code = compile(ast.fix_missing_locations(_Logic().visit(tree)), owner, "eval")
        self._code: Any = code

    def _parse(self) -> ast.Expression:
        try:
            tree = ast.parse(self.text.strip(), mode="eval")
        except (SyntaxError, ValueError) as error:
            raise ContractError(f"{self._owner} = {self.text!r} cannot be read: {error}") from None
        for node in ast.walk(tree):
            if not _is_known(node):
                raise ContractError(
                    f"{self._owner} = {self.text!r} has {ast.unparse(node)!r}: only arithmetic, "
                    f"comparison, & | ~ and {', '.join(FUNCTIONS)} are known"
                )
        return tree

    def __call__(self, values: Mapping[str, float]) -> float:
        """Its value, a number or a truth; NaN where there is none, as of the log of -1."""
        try:
            return eval(self._code, _GLOBALS, values)
        except (ValueError, ArithmeticError):
            return math.nan


def _is_known(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float, bool)
    return isinstance(node, _NODES)


_GLOBALS: dict[str, Any] = {"__builtins__": {}, **FUNCTIONS}


class _Logic(ast.NodeTransformer):
    """`~` is the logical not: of a Python truth it would give -1 or -2, both true."""

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return ast.UnaryOp(ast.Not(), node.operand) if isinstance(node.op, ast.Invert) else node
