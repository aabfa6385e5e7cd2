"""YAML that people write: found, read with line numbers, checked, with errors that use them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from iql_ros.errors import ContractError

Model = TypeVar("Model", bound=BaseModel)


def find_yaml(source: str | Path, folder: Path, what: str, *, hidden: Path | None = None) -> Path:
    """The file that `source` names.

    Args:
        source: a YAML file, or the name of one that is shipped in `folder`.
        folder: of the shipped ones.
        what: they are, for the error.
        hidden: one of them that is not offered.

    Raises:
        ContractError: there is none; names those that are shipped.
    """
    path = Path(source)
    if not path.exists() and (folder / f"{source}.yaml").exists():
        path = folder / f"{source}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in folder.glob("*.yaml") if p != hidden))
        raise ContractError(f"no {what} at {source}: give a YAML file or one of {shipped}")
    return path


def load_model(model: type[Model], path: Path) -> Model:
    """The content of a YAML file as a model. Raises ContractError, naming file, line and key."""
    data, node = read_yaml(path)
    if not isinstance(data, dict):
        raise ContractError(f"{path} must be a mapping that begins with 'format: 1'")
    return validated(model, data, path, node)


def validated(model: type[Model], data: Any, path: Path, node: yaml.Node | None) -> Model:
    """`data`, read from a YAML file with the tree `node`, as a model. Raises ContractError."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ContractError(explain(error, str(path), node)) from None


def read_yaml(path: Path) -> tuple[Any, yaml.Node | None]:
    """The content of a YAML file, and its tree, which knows the lines.

    Raises:
        ContractError: it is not YAML, or a mapping has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ContractError(f"{path} is not YAML: {error}") from None
    if node is not None:
        _refuse_duplicate_keys(node, path)
    return data, node


def explain(error: ValidationError, file: str, node: yaml.Node | None) -> str:
    """One line for each problem: file and line, path of the key, value, rule.

    Args:
        error: what pydantic found.
        file: its name, for the text.
        node: the YAML tree, for line numbers; None if there is no file.
    """
    lines = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"]) or "contract"
        where = re.sub(r"\.(\d+)", r"[\1]", where)
        line = _line(node, problem["loc"])
        rule = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            rule = "unknown key: check its spelling, or remove it"
        elif problem["type"] == "missing":
            rule = "required key is missing"
        value = problem["input"]
        shown = "" if isinstance(value, (dict, BaseModel)) else f" = {value!r}"
        lines.append(f"{file}{f':{line}' if line else ''}: {where}{shown}: {rule}")
    return "\n".join(lines)


def _line(node: yaml.Node | None, loc: Sequence[int | str]) -> int | None:
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            values = {key.value: value for key, value in node.value}
            if part not in values:
                break
            node = values[part]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
        else:
            break
    return node.start_mark.line + 1 if node is not None else None


def _refuse_duplicate_keys(node: yaml.Node, path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ContractError(f"{path}:{line}: key {key.value!r} appears twice: keep one")
            seen.add(key.value)
            _refuse_duplicate_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicate_keys(item, path)
