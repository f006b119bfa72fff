"""The README's table of behaviours is whole, and names tests that exist and say the same id.

`ids.txt` has every id with its level, the table what is done about it.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parents[2]
README = TESTS.parent / "dnsd" / "README.md"
DECISIONS = TESTS.parent / "docs" / "adr"
LEVELS = ("MUST", "SHOULD", "MAY")
STATES = ("met", "not met", "not applicable")

ROW = re.compile(r"^\| ([A-Z]{1,2}\d+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", re.M)


class Row(NamedTuple):
    """A line of the table; `held_by` is a test's name, or the reason why there is none."""

    id: str
    level: str
    what: str
    state: str
    held_by: str


@cache
def rows() -> tuple[Row, ...]:
    return tuple(
        Row(*(cell.strip() for cell in cells)) for cells in ROW.findall(README.read_text())
    )


@cache
def levels() -> dict[str, str]:
    lines = (Path(__file__).parent / "ids.txt").read_text().splitlines()
    return {id: level for id, _, level in (line.partition(" ") for line in lines)}


@cache
def words_of_tests() -> dict[str, set[str]]:
    """Test → words of its name, its docstring and the ids of its parameters."""
    found: dict[str, set[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                words = " ".join(texts_of(node)).upper()
                found.setdefault(node.name, set()).update(re.findall("[A-Z0-9]+", words))
    return found


def texts_of(test: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    yield test.name
    yield ast.get_docstring(test) or ""
    for decorator in test.decorator_list:
        for node in ast.walk(decorator):
            if isinstance(node, ast.keyword) and node.arg == "id":
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant):
                        yield str(part.value)


def test_every_id_is_listed_once_with_its_level() -> None:
    assert {row.id: row.level for row in rows()} == levels()
    assert len(rows()) == len(levels())
    assert set(levels().values()) == set(LEVELS)


@pytest.mark.parametrize("state", STATES)
def test_every_line_says_what_is_done_about_it(state: str) -> None:
    assert {row.state for row in rows()} <= set(STATES)
    for row in rows():
        if row.state == state:
            assert row.what, row.id
            assert row.held_by, row.id


def test_what_is_met_names_a_test_that_exists_and_says_so() -> None:
    for row in rows():
        if row.state == "met":
            name = row.held_by.strip("`")
            assert name in words_of_tests(), f"{row.id}: there is no {name}"
            assert row.id in words_of_tests()[name], f"{name} does not name {row.id}"


def test_what_is_not_met_gives_its_reason_and_no_test() -> None:
    for row in rows():
        if row.state != "met":
            assert "test_" not in row.held_by, row.id
            assert len(row.held_by.split()) > 1, row.id


def test_what_should_be_done_and_is_not_was_decided() -> None:
    """Each of these is named in a decision record."""
    decided = " ".join(path.read_text() for path in DECISIONS.glob("*.md"))
    for row in rows():
        if row.level == "SHOULD" and row.state != "met":
            assert re.search(rf"\b{row.id}\b", decided), f"{row.id} is in no decision record"
