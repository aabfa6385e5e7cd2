"""Puts a report beside its dataset: a page for people, the same facts as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iql_ros.files import write_text
from training.report.page import render_report


def write_report(path_html: Path, path_json: Path, report: Mapping[str, Any]) -> None:
    """Writes both files; a reader meets the old one or the new one, never half of one.

    Args:
        path_html: page to write.
        path_json: facts to write.
        report: as `build_report` returns it.
    """
    write_text(path_json, json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_text(path_html, render_report(report))
