"""The calls that a heartbeat asks for, and what the heartbeat is told of their outcome."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from registry.errors import LeaseNotFound, LeaseSuperseded
from sidecar.actions import SERVING, Deregister, Register, Renew, Report
from sidecar.answers import (
    Beat,
    NotShown,
    Outcome,
    RegistrarUnavailable,
    RegistrationRefused,
    Renewed,
)
from sidecar.client import RegistrarClient
from sidecar.kept import Kept
from sidecar.registration import document_of


class Calls:
    """Asks the registrar on behalf of heartbeats; counts (operation, status).

    *generation* tells an older sidecar of the same instance from this one, across restarts;
    *last_timeout* is what a call may take while stopping.
    """

    def __init__(self, client: RegistrarClient, generation: int, last_timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._generation = generation
        self._last_timeout = last_timeout
        self.is_stopping = False
        self.counts: Counter[tuple[str, str]] = Counter()

    def count(self, operation: str, status: str) -> None:
        self.counts[operation, status] += 1

    # --- register ----------------------------------------------------------------------

    async def register(self, kept: Kept, action: Register) -> None:
        sent_at, heartbeat = self._loop.time(), kept.heartbeat
        metadata = kept.health.metadata
        document = document_of(kept.service, metadata, self._generation, action)
        try:
            granted = await self._client.register(document)
        except RegistrarUnavailable as error:
            self.count("register", "unavailable")
            now, arrived = self._loop.time(), error.may_have_arrived
            heartbeat.failed(now, error.retry_after, may_have_arrived=arrived)
        except NotShown as error:
            self.count("register", "not_shown")
            heartbeat.not_shown(self._loop.time())
            kept.tell("not shown", "not registered before it is healthy", reason=str(error))
        except LeaseSuperseded as error:
            self.count("register", "superseded")
            heartbeat.superseded(self._loop.time())
            _tell_superseded(kept, error)
        except RegistrationRefused as error:
            self.count("register", "refused")
            if action.state == SERVING:
                heartbeat.refused(self._loop.time())
            else:
                heartbeat.not_shown(self._loop.time())  # once healthy, it is tried again at once
            _tell_refused(kept, error)
        except asyncio.CancelledError:
            heartbeat.failed(self._loop.time())  # it may have arrived all the same
            raise
        else:
            self.count("register", "success")
            kept.instance = granted.instance or kept.instance
            kept.sent_metadata = metadata
            heartbeat.lease_granted(
                granted.lease_id,
                ttl=granted.ttl,
                interval=granted.interval,
                created=granted.created,
                sent_at=sent_at,
                asked=action,
            )
            if kept.health.healthy and kept.health.metadata != metadata:
                heartbeat.data_changed()
            assert heartbeat.lease is not None
            hidden = {} if action.state == SERVING else {"condition": action.state}
            kept.tell(
                f"registered {action.state}",
                "registered, not in DNS" if hidden else "registered",
                lease=granted.ttl,
                heartbeat=heartbeat.lease.every,
                **hidden,
            )

    # --- renew -------------------------------------------------------------------------

    async def renew(self, renewing: Sequence[tuple[Kept, Renew]]) -> None:
        """Renew all of them in one request."""
        sent_at = self._loop.time()
        beats = [Beat(k.service.name, k.instance, r.lease_id) for k, r in renewing]
        timeout = min(r.timeout for _, r in renewing)
        outcomes: list[Outcome]
        try:
            outcomes = await self._client.renew(beats, timeout)
        except (RegistrarUnavailable, RegistrationRefused) as error:
            outcomes = [error] * len(beats)
        except asyncio.CancelledError:
            for kept, _ in renewing:
                kept.heartbeat.failed(self._loop.time())
            raise
        for (kept, _), outcome in zip(renewing, outcomes, strict=True):
            self._note_renewal(kept, outcome, sent_at)

    def _note_renewal(self, kept: Kept, outcome: Outcome, sent_at: float) -> None:
        now, heartbeat = self._loop.time(), kept.heartbeat
        match outcome:
            case Renewed():
                self.count("heartbeat", "success")
                heartbeat.renewed(sent_at)
                if kept.chapter.startswith("refused"):
                    kept.tell("registered", "heartbeat accepted again")
            case LeaseNotFound():
                self.count("heartbeat", "not_found")
                _lose(kept, outcome, now)
            case LeaseSuperseded():
                self.count("heartbeat", "superseded")
                heartbeat.lease_lost(now)
                kept.tell("lost", "lease held by another", "warning", reason=str(outcome))
            case RegistrarUnavailable():
                self.count("heartbeat", "unavailable")
                heartbeat.failed(now, outcome.retry_after)
            case RegistrationRefused():
                self.count("heartbeat", "refused")
                heartbeat.failed(now)
                kept.tell(f"refused {outcome}", "heartbeat refused", "error", status=outcome.status)

    # --- states ------------------------------------------------------------------------

    async def ask(self, kept: Kept) -> None:
        try:
            state, reason = await self._client.state_of(kept.service.name, kept.instance)
        except RegistrarUnavailable as error:
            kept.heartbeat.report_failed(self._loop.time(), error.retry_after)
        except RegistrationRefused:
            kept.heartbeat.state_learned("", "")  # reading needs a token, say: writing may not
        else:
            kept.heartbeat.state_learned(state, reason)
            if kept.heartbeat.is_held_by_operator:
                kept.tell(
                    f"left {state}",
                    "somebody else has set its state, it is left to them",
                    "warning",
                    found=state,
                    reason=reason,
                )

    async def report(self, kept: Kept, report: Report) -> None:
        heartbeat, service = kept.heartbeat, kept.service.name
        timeout = self._last_timeout if self.is_stopping else None
        try:
            await self._client.set_state(
                service, kept.instance, report.state, report.reason, timeout
            )
        except RegistrarUnavailable as error:
            self.count("state", "unavailable")
            heartbeat.report_failed(self._loop.time(), error.retry_after)
        except LeaseNotFound as error:
            self.count("state", "not_found")
            _lose(kept, error, self._loop.time())
        except RegistrationRefused as error:
            self.count("state", "refused")
            heartbeat.report_refused(report.state, report.reason)
            kept.tell(
                f"refused {report.state}",
                "the registrar does not take this state",
                "error",
                reported=report.state,
                detail=str(error),
            )
        else:
            self.count("state", "success")
            heartbeat.state_reported(report.state, self._loop.time(), report.reason)
            level = "info" if report.state != "unhealthy" else "warning"
            kept.tell(
                f"reported {report.state}",
                "state reported",
                level,
                reported=report.state,
                reason=report.reason,
            )

    # --- deregister --------------------------------------------------------------------

    async def deregister(self, kept: Kept, action: Deregister) -> None:
        try:
            await self._client.deregister(
                kept.service.name, kept.instance, action.lease_id, self._last_timeout
            )
        except RegistrarUnavailable as error:
            self.count("deregister", "unavailable")
            kept.heartbeat.report_failed(self._loop.time(), error.retry_after)
        except RegistrationRefused as error:
            self.count("deregister", "refused")
            kept.heartbeat.deregistered()
            kept.tell("left", "deregistration refused", "error", detail=str(error))
        else:
            self.count("deregister", "success")
            kept.heartbeat.deregistered()
            kept.tell("left", "deregistered")


def _lose(kept: Kept, reason: LeaseNotFound, now: float) -> None:
    kept.heartbeat.lease_lost(now)
    kept.tell("lost", "lease lost, registering again", "warning", reason=str(reason))


def _tell_refused(kept: Kept, error: RegistrationRefused) -> None:
    problems = "; ".join(f"{p.field}: {p.message}" for p in error.problems)
    kept.tell(
        f"refused {error} {problems}",
        "registration refused, trying again every minute",
        "error",
        status=error.status,
        detail=str(error),
        problems=problems,
    )


def _tell_superseded(kept: Kept, error: LeaseSuperseded) -> None:
    kept.tell(
        "superseded",
        "a newer sidecar holds this instance, looking again every minute;"
        " two services on one machine need different ports or ids",
        "error",
        reason=str(error),
    )
