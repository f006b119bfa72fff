"""Which status each error becomes, and what its body says (RFC 9457).

The only such table.  `type` is a name that clients may compare; `detail` says
what is wrong and what would be right.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from registrar import errors
from registry.errors import (
    InvalidInstance,
    LeaseNotFound,
    LeaseSuperseded,
    Problem,
    RevisionConflict,
    StoreUnavailable,
)

CONTENT_TYPE: Final = "application/problem+json"

TYPE_PREFIX: Final = "urn:callboard:problem:"

RETRY_AFTER: Final = 2
"""Seconds that a caller of a 503 or 429 should wait.  Redis is pinged each second, so that writes
are taken again within two of its return; sidecars spread theirs by jitter of their own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A problem as HTTP has it."""

    status: int
    name: str
    title: str
    detail: str
    errors: tuple[Problem, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The body, to be written as `application/problem+json`."""
        document: dict[str, Any] = {
            "type": TYPE_PREFIX + self.name,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [{"field": e.field, "message": e.message} for e in self.errors]
        return document

    def body(self) -> bytes:
        return json.dumps(self.document()).encode()


_TABLE: Final[tuple[tuple[type[Exception], int, str, str], ...]] = (
    (InvalidInstance, 422, "invalid", "The request breaks a rule"),
    (LeaseNotFound, 404, "lease-not-found", "No such lease"),
    (errors.ServiceNotFound, 404, "service-not-found", "No such service"),
    (LeaseSuperseded, 409, "lease-superseded", "Somebody newer holds the lease"),
    (errors.AmbiguousHeartbeat, 409, "ambiguous-heartbeat", "Which instance is meant?"),
    (RevisionConflict, 409, "revision-conflict", "It was changed meanwhile"),
    (StoreUnavailable, 503, "store-unavailable", "The store cannot be written now"),
    (errors.ViewNotReady, 503, "view-not-ready", "This registrar is not up to date"),
    (errors.Unauthorized, 401, "unauthorized", "A valid token is required"),
    (errors.Forbidden, 403, "forbidden", "The token does not allow this"),
    (errors.BodyTooDeep, 400, "body-too-deep", "The body is nested too deeply"),
    (errors.MalformedBody, 400, "malformed-body", "The body is not JSON"),
    (errors.BodyTooLarge, 413, "body-too-large", "The body is too large"),
    (errors.SlowBody, 408, "slow-body", "The body did not arrive in time"),
    (errors.WrongMediaType, 415, "wrong-media-type", "The body is not application/json"),
)


def answer_to(error: Exception) -> Answer | None:
    """What a caller is told of *error*; None when it is a bug of ours (see `internal`)."""
    if isinstance(error, errors.LimitReached):
        title = "A limit is reached"
        return Answer(429, f"limit-{error.name}", title, str(error), headers=_headers_of(429))
    for cls, status, name, title in _TABLE:
        if isinstance(error, cls):
            problems = error.problems if isinstance(error, InvalidInstance) else ()
            return Answer(status, name, title, str(error), problems, _headers_of(status))
    return None


def _headers_of(status: int) -> dict[str, str]:
    match status:
        case 401:
            return {"WWW-Authenticate": 'Bearer realm="callboard"'}  # RFC 6750, section 3
        case 429 | 503:
            return {"Retry-After": str(RETRY_AFTER)}
    return {}


def internal() -> Answer:
    """For an error that nobody foresaw; the log has its traceback."""
    return Answer(500, "internal", "Internal error", "the registrar's log has the details")


def of_status(status: int, detail: str, allow: Iterable[str] = ()) -> Answer:
    """For what routing refuses: an unknown path, or a method that a path does not have."""
    phrase = HTTPStatus(status).phrase
    methods = ", ".join(sorted(allow))
    headers = {"Allow": methods} if methods else {}
    return Answer(status, phrase.lower().replace(" ", "-"), phrase, detail, headers=headers)
