"""Puts a page and its facts where they belong, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iql_ros.files import write_text


def write_page(path: Path, page: str, facts: Mapping[str, Any]) -> tuple[Path, Path]:
    """Writes `path` and, beside it, the same facts as JSON; returns both paths."""
    beside = path.with_suffix(".json")
    write_text(beside, json.dumps(facts, indent=1, allow_nan=False) + "\n")
    write_text(path, page)
    return path, beside
