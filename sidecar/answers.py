"""What registrars answer, as values and as exceptions that tell whose fault it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from registry.errors import CallboardError, LeaseNotFound, LeaseSuperseded, Problem
from registry.runtime.http import ProtocolError, Response
from sidecar.registration import OPTIONAL


class RegistrarUnavailable(CallboardError):
    """No registrar answered, or the last one asked to come later: it says nothing of the lease.

    Unless *may_have_arrived*, none can have heard of the call.
    """

    def __init__(
        self, reason: str, retry_after: float | None = None, *, may_have_arrived: bool = True
    ) -> None:
        self.retry_after = retry_after
        self.may_have_arrived = may_have_arrived
        super().__init__(reason)


class RegistrationRefused(CallboardError):
    """The registrar declines for good (422, 401, 403 …): *problems* name the fields."""

    def __init__(self, status: int, detail: str, problems: Sequence[Problem] = ()) -> None:
        self.status = status
        self.problems = tuple(problems)
        super().__init__(detail)


class NotShown(CallboardError):
    """The registrar holds no instance that has never served: an older one, or the id is taken."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease as the registrar granted it; *created* when the instance was not there before."""

    instance: str
    lease_id: str
    ttl: float
    interval: float
    created: bool


class Beat(NamedTuple):
    """A lease to renew."""

    service: str
    instance: str
    lease_id: str


class Renewed(NamedTuple):
    """A lease that begins anew; *ttl* seconds are left."""

    ttl: float


Outcome = Renewed | LeaseNotFound | LeaseSuperseded | RegistrationRefused | RegistrarUnavailable


def is_object(response: Response) -> bool:
    """Whether the body is a JSON object, as every answer of a registrar is."""
    try:
        return isinstance(response.json(), dict)
    except (ProtocolError, RecursionError):
        return False


def answer_of(response: Response) -> dict[str, Any]:
    """The body as an object; an empty one where it is none."""
    try:
        answer = response.json()
    except (ProtocolError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def accepted(response: Response) -> dict[str, Any]:
    """The body of a 2xx; RegistrationRefused for any other status."""
    if not 200 <= response.status <= 299:
        raise RegistrationRefused(response.status, detail_of(response), _problems(response))
    return answer_of(response)


def detail_of(response: Response) -> str:
    """What a problem says of itself, cut."""
    detail = answer_of(response).get("detail")
    return str(detail)[:1000] if detail else f"status {response.status}"


def _problems(response: Response) -> list[Problem]:
    errors = answer_of(response).get("errors")
    return [
        Problem(str(e.get("field", "")), str(e.get("message", "")))
        for e in (errors if isinstance(errors, list) else ())
        if isinstance(e, dict)
    ]


def unknown_fields(response: Response) -> set[str]:
    """Optional fields that a 422 complains of as unknown."""
    if response.status != 422:
        return set()
    return {
        p.field
        for p in _problems(response)
        if p.field in OPTIONAL and any(w in p.message.lower() for w in ("unknown", "extra"))
    }


def outcome(status: int, detail: str, answer: Mapping[str, Any]) -> Outcome:
    """What came of one renewal."""
    match status:
        case 200:
            return Renewed(number(answer.get("ttl_remaining")))
        case 404:
            return LeaseNotFound(detail)
        case 409:
            return LeaseSuperseded(detail)
        case 429 | 500 | 502 | 503 | 504:
            return RegistrarUnavailable(detail)
    return RegistrationRefused(status, detail)


def outcome_of(result: object) -> Outcome:
    """The same of one item of a list's results."""
    if not isinstance(result, dict):
        return RegistrarUnavailable("the registrar's answer is not an object")
    status = result.get("status")
    detail = str(result.get("detail") or result.get("title") or f"status {status}")
    return outcome(status if isinstance(status, int) else 0, detail, result)


def number(value: object) -> float:
    """A number as seconds; 0 for anything else."""
    return float(value) if isinstance(value, int | float) else 0.0


def retry_after(response: Response) -> float | None:
    """Seconds of a `Retry-After`; None without one."""
    value = response.headers.get("retry-after", "")
    # The form with a date is left alone: it compares the registrar's clock with ours.
    return float(value) if value.isascii() and value.isdigit() and len(value) < 9 else None
