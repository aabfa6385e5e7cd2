"""Where the documentation says that a test holds something, there is that test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["safety.md", "operation.md"])
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text()))
    assert named
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert not named - set(re.findall(r"def (test_\w+)", sources))


def test_every_fault_has_an_outcome_a_time_and_a_test() -> None:
    table = (ROOT / "docs" / "safety.md").read_text().partition("| fault |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) > 20
    for row in rows:
        assert len(row) == 4, row
        assert all(cell.strip() for cell in row), row
        assert "`test_" in row[3], row
