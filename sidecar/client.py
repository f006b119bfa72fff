"""The sidecar's side of the registrar's HTTP API, over several registrars tried in turn.

What a registrar says becomes a value or an exception that tells whose fault it is.  Only its
404 and 409 say anything of a lease, and only where a registrar says them: a proxy that has lost
its way says 404 as well.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from registry.errors import LeaseNotFound, LeaseSuperseded
from registry.names import fold
from registry.runtime import http, logs
from registry.runtime.http import ProtocolError, Response
from sidecar.answers import (
    Beat,
    Granted,
    NotShown,
    Outcome,
    RegistrarUnavailable,
    accepted,
    answer_of,
    detail_of,
    is_object,
    number,
    outcome,
    outcome_of,
    retry_after,
    unknown_fields,
)
from sidecar.registration import STATE_FIELDS

if TYPE_CHECKING:
    import ssl

TIMEOUT = 5.0
"""Seconds one registrar has for an answer: its store gives up sooner."""

MAX_LISTING = 1 << 20
"""Octets of a service's listing that are read; of a greater one our state stays unknown."""

MAX_REASON = 256
"""Characters of a state's reason that the registrar takes."""

log = logs.get("sidecar.client")


class RegistrarClient:
    """The registrar's API; a call tries every registrar once, from the last that answered.

    Each has *timeout* seconds, unless a call says how many.  *tls* is for https registrars; None
    trusts whom the system trusts.
    """

    def __init__(
        self,
        urls: Sequence[str],
        token: str = "",
        *,
        timeout: float = TIMEOUT,
        tls: "ssl.SSLContext | None" = None,
    ) -> None:
        self._urls = tuple(urls)
        self._tls = tls
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

    def use_tls(self, tls: "ssl.SSLContext | None") -> None:
        """Speak TLS so from the next call on."""
        self._tls = tls

    async def register(self, document: Mapping[str, Any]) -> Granted:
        """Ask for a lease.  LeaseSuperseded when a newer sidecar has it.

        Optional fields that an older registrar does not know are left out.  NotShown when it
        cannot take one that is in another state than serving: that must not be left out.
        """
        document = dict(document)
        response = await self._call("POST", "/register", document)
        while unknown := unknown_fields(response) & document.keys():
            if unknown & STATE_FIELDS:
                raise NotShown("the registrar is older and does not know of states at registration")
            log.warning(
                "the registrar does not know these fields, they are left out",
                fields=",".join(sorted(unknown)),
            )
            document = {key: document[key] for key in document if key not in unknown}
            response = await self._call("POST", "/register", document)
        if response.status == 409:
            detail = detail_of(response)
            raise NotShown(detail) if "state" in document else LeaseSuperseded(detail)
        answer = accepted(response)
        return Granted(
            instance=str(answer.get("instance_id") or document.get("instance_id", "")),
            lease_id=str(answer.get("lease_id") or ""),
            ttl=number(answer.get("lease_ttl")),
            interval=number(answer.get("heartbeat_interval")),
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
            return [outcome(response.status, detail_of(response), answer_of(response))]
        results = accepted(response).get("results")
        if not isinstance(results, list) or len(results) != len(beats):
            raise RegistrarUnavailable("the registrar's answer does not fit the list of renewals")
        return [outcome_of(result) for result in results]

    async def set_state(
        self, service: str, instance: str, state: str, reason: str, timeout: float | None = None
    ) -> None:
        """Put the instance into *state*; LeaseNotFound when the registrar does not have it."""
        path = f"{_path(service, instance)}/state"
        document = {"state": state, "reason": reason[:MAX_REASON]}
        response = await self._call("PUT", path, document, timeout)
        if response.status == 404:
            raise LeaseNotFound(detail_of(response))
        if response.status == 409:
            raise RegistrarUnavailable(detail_of(response))  # a write came between: try again
        accepted(response)

    async def state_of(self, service: str, instance: str) -> tuple[str, str]:
        """State and reason as the registrar lists them; ("", "") when it does not list it.

        RegistrarUnavailable when it says itself that what it lists is old.
        """
        path = f"/services/{quote(service, safe='')}"
        response = await self._call("GET", path, limit=MAX_LISTING)
        if response.status == 404:
            return "", ""
        answer = accepted(response)
        if answer.get("stale"):
            raise RegistrarUnavailable("the registrar's reads are old at the moment")
        for entry in answer.get("instances", ()):
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
            accepted(response)

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
        may_have_arrived = False

        async def once() -> Response:
            nonlocal may_have_arrived
            try:
                return await self._once(method, path, body, timeout or self._timeout, limit)
            except RegistrarUnavailable as error:
                may_have_arrived = may_have_arrived or error.may_have_arrived
                raise

        attempts = AsyncRetrying(
            stop=stop_after_attempt(len(self._urls)),
            retry=retry_if_exception_type(RegistrarUnavailable),
            before_sleep=_say_next,
            reraise=True,
        )
        try:
            response: Response = await attempts(once)
        except RegistrarUnavailable as error:
            error.may_have_arrived = may_have_arrived
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
                tls=self._tls,
            )
        except TimeoutError as error:
            raise self._failed(tried, f"no answer within {timeout:g} s") from error
        except ConnectionRefusedError as error:
            refusal = self._failed(tried, str(error))
            refusal.may_have_arrived = False
            raise refusal from error
        except (OSError, ProtocolError) as error:
            raise self._failed(tried, str(error) or type(error).__name__) from error
        if response.status == 429 or response.status >= 500:
            detail = f"{response.status} {detail_of(response)}"
            raise self._failed(tried, detail, retry_after(response))
        if not is_object(response):
            raise self._failed(tried, f"{response.status}, and not as a registrar answers")
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


def _path(service: str, instance: str) -> str:
    return f"/services/{quote(service, safe='')}/instances/{quote(instance, safe='')}"
