"""The sidecar's side of the registrar's HTTP API, over several registrars tried in turn.

What a registrar says becomes a value or an exception that tells whose fault it is;
only its 404 and 409 say anything of a lease.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from registry.errors import CallboardError, LeaseNotFound, LeaseSuperseded, Problem
from registry.names import fold
from registry.runtime import http, logs
from registry.runtime.http import ProtocolError, Response
from sidecar.registration import OPTIONAL

TIMEOUT = 5.0
"""Seconds one registrar has for an answer: its store gives up sooner."""

MAX_LISTING = 1 << 20
"""Octets of a service's listing that are read; of a greater one our state stays unknown."""

MAX_REASON = 256
"""Characters of a state's reason that the registrar takes."""

log = logs.get("sidecar.client")


class RegistrarUnavailable(CallboardError):
    """No registrar answered, or the last one asked to come later: it says nothing of the lease."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(reason)


class RegistrationRefused(CallboardError):
    """The registrar declines for good (422, 401, 403 …): *problems* name the fields."""

    def __init__(self, status: int, detail: str, problems: Sequence[Problem] = ()) -> None:
        self.status = status
        self.problems = tuple(problems)
        super().__init__(detail)


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


class RegistrarClient:
    """The registrar's API; a call tries every registrar once, from the last that answered.

    Each has *timeout* seconds, unless a call says how many.
    """

    def __init__(self, urls: Sequence[str], token: str = "", *, timeout: float = TIMEOUT) -> None:
        self._urls = tuple(urls)
        self._timeout = timeout
        self._current = 0
        self._headers = {"user-agent": "callboard-sidecar", "accept": "application/json"}
        self.use_token(token)
        self._away_since: float | None = None

    def __repr__(self) -> str:
        away = " away" if self._away_since is not None else ""
        return f"<RegistrarClient {self._urls[self._current]} of {len(self._urls)}{away}>"

    @property
    def is_away(self) -> bool:
        """Whether no registrar answered the last call."""
        return self._away_since is not None

    def use_token(self, token: str) -> None:
        """Show *token* from the next call on; an empty one is not shown."""
        self._headers.pop("authorization", None)
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    async def register(self, document: Mapping[str, Any]) -> Granted:
        """Ask for a lease.  LeaseSuperseded when a newer sidecar has it.

        Optional fields that an older registrar does not know are left out.
        """
        document = dict(document)
        response = await self._call("POST", "/register", document)
        while unknown := _unknown_fields(response) & document.keys():
            log.warning(
                "the registrar does not know these fields, they are left out",
                fields=",".join(sorted(unknown)),
            )
            document = {key: document[key] for key in document if key not in unknown}
            response = await self._call("POST", "/register", document)
        if response.status == 409:
            raise LeaseSuperseded(_detail(response))
        answer = _accepted(response)
        return Granted(
            instance=str(answer.get("instance_id") or document.get("instance_id", "")),
            lease_id=str(answer.get("lease_id") or ""),
            ttl=_number(answer.get("lease_ttl")),
            interval=_number(answer.get("heartbeat_interval")),
            created=response.status == 201,
        )

    async def renew(self, beats: Sequence[Beat], timeout: float | None = None) -> list[Outcome]:
        """One outcome a lease, in the same order; RegistrarUnavailable when there is none."""
        documents = [
            {"service_name": b.service, "instance_id": b.instance, "lease_id": b.lease_id}
            for b in beats
        ]
        body = documents[0] if len(documents) == 1 else documents
        response = await self._call("POST", "/heartbeat", body, timeout)
        if isinstance(body, dict):
            return [_outcome(response.status, _detail(response), _answer(response))]
        results = _accepted(response).get("results")
        if not isinstance(results, list) or len(results) != len(beats):
            raise RegistrarUnavailable("the registrar's answer does not fit the list of renewals")
        return [_outcome_of(result) for result in results]

    async def set_state(
        self, service: str, instance: str, state: str, reason: str, timeout: float | None = None
    ) -> None:
        """Put the instance into *state*; LeaseNotFound when the registrar does not have it."""
        path = f"{_path(service, instance)}/state"
        document = {"state": state, "reason": reason[:MAX_REASON]}
        response = await self._call("PUT", path, document, timeout)
        if response.status == 404:
            raise LeaseNotFound(_detail(response))
        if response.status == 409:
            raise RegistrarUnavailable(_detail(response))  # a write came between: try again
        _accepted(response)

    async def state_of(self, service: str, instance: str) -> tuple[str, str]:
        """State and reason as the registrar lists them; ("", "") when it does not list it."""
        path = f"/services/{quote(service, safe='')}"
        response = await self._call("GET", path, limit=MAX_LISTING)
        if response.status == 404:
            return "", ""
        for entry in _accepted(response).get("instances", ()):
            if isinstance(entry, dict) and fold(str(entry.get("instance_id"))) == fold(instance):
                return str(entry.get("state") or ""), str(entry.get("state_reason") or "")
        return "", ""

    async def deregister(
        self, service: str, instance: str, lease_id: str, timeout: float | None = None
    ) -> None:
        """Give the lease back; done as well when it is somebody else's, or not there at all."""
        query = f"?lease_id={quote(lease_id)}" if lease_id else ""
        response = await self._call("DELETE", _path(service, instance) + query, None, timeout)
        if response.status not in (404, 409):
            _accepted(response)

    # --- one call, every registrar -----------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        document: Any = None,
        timeout: float | None = None,
        limit: int = 1 << 16,
    ) -> Response:
        """An answer that is neither a failure nor a "later"; RegistrarUnavailable without one."""
        body = None if document is None else json.dumps(document).encode()
        attempts = AsyncRetrying(
            stop=stop_after_attempt(len(self._urls)),
            retry=retry_if_exception_type(RegistrarUnavailable),
            before_sleep=_say_next,
            reraise=True,
        )
        try:
            response: Response = await attempts(
                self._once, method, path, body, timeout or self._timeout, limit
            )
        except RegistrarUnavailable as error:
            self._note_away(error)
            raise
        self._note_back()
        return response

    async def _once(
        self, method: str, path: str, body: bytes | None, timeout: float, limit: int
    ) -> Response:
        tried = self._current
        url = self._urls[tried]
        try:
            response = await http.request(
                method,
                url + path,
                body=body,
                headers=self._headers | ({"content-type": "application/json"} if body else {}),
                timeout=timeout,
                limit=limit,
            )
        except TimeoutError as error:
            raise self._failed(tried, f"no answer within {timeout:g} s") from error
        except (OSError, ProtocolError) as error:
            raise self._failed(tried, str(error) or type(error).__name__) from error
        if response.status == 429 or response.status >= 500:
            detail = f"{response.status} {_detail(response)}"
            raise self._failed(tried, detail, _retry_after(response))
        return response

    def _failed(
        self, tried: int, reason: str, retry_after: float | None = None
    ) -> RegistrarUnavailable:
        # Unless another call has moved on already: two failures must not step back to the first.
        if self._current == tried:
            self._current = (tried + 1) % len(self._urls)
        return RegistrarUnavailable(f"{self._urls[tried]}: {reason}", retry_after)

    def _note_away(self, error: RegistrarUnavailable) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("registrar away, trying again until it is back", error=str(error))

    def _note_back(self) -> None:
        if self._away_since is not None:
            away = time.monotonic() - self._away_since
            self._away_since = None
            log.info("registrar back", after=away, registrar=self._urls[self._current])


def _say_next(attempt: RetryCallState) -> None:
    error = attempt.outcome.exception() if attempt.outcome is not None else None
    log.debug("trying the next registrar", attempt=attempt.attempt_number, error=str(error))


# --- answers -----------------------------------------------------------------------------------


def _path(service: str, instance: str) -> str:
    return f"/services/{quote(service, safe='')}/instances/{quote(instance, safe='')}"


def _answer(response: Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ProtocolError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _accepted(response: Response) -> dict[str, Any]:
    if not 200 <= response.status <= 299:
        raise RegistrationRefused(response.status, _detail(response), _problems(response))
    return _answer(response)


def _detail(response: Response) -> str:
    detail = _answer(response).get("detail")
    return str(detail)[:1000] if detail else f"status {response.status}"


def _problems(response: Response) -> list[Problem]:
    errors = _answer(response).get("errors")
    return [
        Problem(str(e.get("field", "")), str(e.get("message", "")))
        for e in (errors if isinstance(errors, list) else ())
        if isinstance(e, dict)
    ]


def _unknown_fields(response: Response) -> set[str]:
    """Optional fields that a 422 complains of as unknown."""
    if response.status != 422:
        return set()
    return {
        p.field
        for p in _problems(response)
        if p.field in OPTIONAL and any(w in p.message.lower() for w in ("unknown", "extra"))
    }


def _outcome(status: int, detail: str, answer: Mapping[str, Any]) -> Outcome:
    match status:
        case 200:
            return Renewed(_number(answer.get("ttl_remaining")))
        case 404:
            return LeaseNotFound(detail)
        case 409:
            return LeaseSuperseded(detail)
        case 429 | 500 | 502 | 503 | 504:
            return RegistrarUnavailable(detail)
    return RegistrationRefused(status, detail)


def _outcome_of(result: object) -> Outcome:
    if not isinstance(result, dict):
        return RegistrarUnavailable("the registrar's answer is not an object")
    status = result.get("status")
    detail = str(result.get("detail") or result.get("title") or f"status {status}")
    return _outcome(status if isinstance(status, int) else 0, detail, result)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _retry_after(response: Response) -> float | None:
    value = response.headers.get("retry-after", "")
    # The form with a date is left alone: it compares the registrar's clock with ours.
    return float(value) if value.isascii() and value.isdigit() and len(value) < 9 else None
