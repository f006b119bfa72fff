"""Each error has one status, and says what would be right."""

import ast
import json
import re
from pathlib import Path

import pytest

from registrar import errors, problems
from registry.errors import (
    InvalidInstance,
    LeaseNotFound,
    LeaseSuperseded,
    Problem,
    RevisionConflict,
    StoreUnavailable,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInstance([Problem("weight", "no")]), 422),
        (LeaseNotFound("x"), 404),
        (errors.ServiceNotFound("x"), 404),
        (LeaseSuperseded("x"), 409),
        (errors.AmbiguousHeartbeat("web", ["a", "b"]), 409),
        (RevisionConflict(7), 409),
        (errors.LimitReached("instances", "x"), 429),
        (StoreUnavailable("x"), 503),
        (errors.ViewNotReady("x"), 503),
        (errors.MalformedBody("x"), 400),
        (errors.BodyTooDeep("x"), 400),
        (errors.Unauthorized("x"), 401),
        (errors.Forbidden("x"), 403),
        (errors.BodyTooLarge("x"), 413),
        (errors.SlowBody("x"), 408),
        (errors.WrongMediaType("x"), 415),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int) -> None:
    answer = problems.answer_to(error)

    assert answer is not None
    assert answer.status == status
    assert answer.document()["detail"] == str(error)


def test_each_problem_has_a_type_of_its_own() -> None:
    names = [name for _, _, name, _ in problems._TABLE]

    assert len(set(names)) == len(names)


def test_fields_are_named_where_there_are_any() -> None:
    answer = problems.answer_to(InvalidInstance([Problem("weight", "-1 is not …")]))

    assert answer is not None
    assert json.loads(answer.body()) == {
        "type": "urn:callboard:problem:invalid",
        "title": "The request breaks a rule",
        "status": 422,
        "detail": "weight: -1 is not …",
        "errors": [{"field": "weight", "message": "-1 is not …"}],
    }


@pytest.mark.parametrize("error", [StoreUnavailable("x"), errors.LimitReached("x", "y")])
def test_who_is_to_come_back_is_told_when(error: Exception) -> None:
    answer = problems.answer_to(error)

    assert answer is not None
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_body_too_deep_has_a_type_of_its_own() -> None:
    """It is malformed too, but says which bound it met."""
    answer = problems.answer_to(errors.BodyTooDeep("x"))

    assert answer is not None
    assert answer.name == "body-too-deep"


def test_every_limit_is_in_the_manual() -> None:
    package = Path(problems.__file__).parent
    named = set()
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Name("LimitReached"), [ast.Constant(str(name)), *_]):
                    named.add(f"limit-{name}")
    told = set(re.findall("`(limit-[a-z-]+)`", (package / "README.md").read_text()))

    assert len(named) > 8
    assert told == named


def test_a_bug_is_not_in_the_table() -> None:
    assert problems.answer_to(KeyError("x")) is None
    assert problems.internal().status == 500


def test_many_ids_are_not_all_listed() -> None:
    error = errors.AmbiguousHeartbeat("web", [f"i{n}" for n in range(5000)])

    assert len(str(error)) < 1000
    assert "5000 instances" in str(error)
