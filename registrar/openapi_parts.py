"""What the description of a call is put together from: parameters, answers, problems."""

from collections.abc import Iterable
from typing import Any, Final

from registrar import problems
from registrar.openapi_shapes import ref
from registry.model import MAX_INTEGER, STATES

JSON: Final = "application/json"

TEXT: Final = {"type": "string"}
TEXTS: Final = {"type": "array", "items": TEXT}

ALWAYS: Final = (401, 403, 429)
"""Possible at every call: no token, the wrong one, too many of something."""

OF_BODIES: Final = (400, 408, 413, 415, 422, 503)
"""Besides, where a body is read."""

OF_LISTS: Final = (422, 503)
"""Besides, where something is listed."""


def parameter(name: str, where: str, schema: dict[str, Any], text: str = "") -> dict[str, Any]:
    """One parameter; those in the path are required."""
    described = {"name": name, "in": where, "required": where == "path", "schema": schema}
    return {**described, "description": text} if text else described


SERVICE: Final = parameter("service", "path", {"type": "string", "minLength": 1})
INSTANCE: Final = parameter("instance", "path", {"type": "string", "minLength": 1})
WAITING: Final = [
    parameter(
        "index",
        "query",
        {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
        "Wait for something later than this revision (X-Callboard-Index of an earlier answer).",
    ),
    parameter(
        "wait",
        "query",
        {"type": "string", "pattern": "^([0-9]{1,9}(\\.[0-9]{1,9})?(ms|s|m|h)?)?$"},
        "At most so long: 30s, 500ms, 1m; never longer than 55s.",
    ),
]
CONDITION: Final = parameter("If-None-Match", "header", TEXT)
FILTERS: Final = [
    parameter(name, "query", {"type": "array", "items": items})
    for name, items in (
        ("tag", TEXT),
        ("version", TEXT),
        ("zone", TEXT),
        ("state", {"enum": list(STATES)}),
    )
]


def listing(
    name: str,
    summary: str,
    schema: dict[str, Any],
    errors: Iterable[int],
    parameters: list[dict[str, Any]],
) -> dict[str, Any]:
    """A read that may wait for a change, and knows ETags."""
    described = operation(
        name, summary, {200: schema}, errors, parameters=[*parameters, *WAITING, CONDITION]
    )
    described["responses"]["200"]["headers"] = {
        "ETag": {"schema": TEXT, "description": "Changes with membership."},
        "X-Callboard-Index": {"schema": TEXT, "description": "To be given as `index`."},
    }
    described["responses"]["304"] = {"description": "Nothing else than under the ETag given"}
    return described


def operation(
    name: str,
    summary: str,
    answers: dict[int, dict[str, Any]],
    errors: Iterable[int],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One call: *answers* by their status (none: a stream of events), statuses of problems."""
    responses: dict[str, Any] = {
        str(status): _response(JSON, schema) for status, schema in answers.items()
    } or {"200": _response("text/event-stream", TEXT)}
    for status in (*ALWAYS, *errors):
        responses[str(status)] = _response(problems.CONTENT_TYPE, ref("Problem"))
    described: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": dict(sorted(responses.items())),
    }
    if parameters:
        described["parameters"] = parameters
    if body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    return described


def page(name: str, summary: str, *errors: int) -> dict[str, Any]:
    """A page that takes no token."""
    plain = {JSON: {"schema": {"type": "object"}}}
    statuses = {200: "OK", **dict.fromkeys(errors, "Not so; the body says why")}
    return {
        "operationId": name,
        "summary": summary,
        "security": [{}],
        "responses": {
            str(status): {"description": text, "content": plain}
            for status, text in statuses.items()
        },
    }


def _response(content_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    is_problem = content_type == problems.CONTENT_TYPE
    return {
        "description": "A problem" if is_problem else "OK",
        "content": {content_type: {"schema": schema}},
    }
