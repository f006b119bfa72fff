"""The loop that obeys heartbeat.py, for every service of this sidecar."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from registry.errors import LeaseNotFound, LeaseSuperseded
from registry.runtime import logs
from registry.runtime.logs import Transition
from sidecar.client import (
    Beat,
    Outcome,
    RegistrarClient,
    RegistrarUnavailable,
    RegistrationRefused,
    Renewed,
)
from sidecar.health import Health, Healthy, Policy
from sidecar.heartbeat import (
    Action,
    Ask,
    Deregister,
    Heartbeat,
    Register,
    Renew,
    Report,
    Stopped,
    Wait,
)
from sidecar.probe import probe
from sidecar.registration import Service, document_of

LONGEST_WAIT = 60.0
"""Seconds after which the loop looks again, whatever it was told to wait."""

PATIENCE = 1.0
"""Seconds that a call under way may still take once the sidecar is to stop."""

STOPPING_TIMEOUT = 1.0
"""Seconds for one call while stopping, so that two fit where a registrar hangs."""

AFTER_BUG = 5.0
"""Seconds until an instance is looked at again after an exception that nobody foresaw."""

log = logs.get("sidecar")


class Kept:
    """One service that is kept registered: its health, its lease, and what was last sent of it."""

    def __init__(self, service: Service, policy: Policy, interval: float | None, now: float):
        self.service = service
        self.health = Health(policy, now)
        self.heartbeat = Heartbeat(interval, random.random)
        self.instance = service.id
        self.sent_metadata: Mapping[str, str] = {}
        self.was_serving = False
        self.is_busy = False
        self.not_before = 0.0
        self.lease_story = Transition(log)
        self.health_story = Transition(log)

    def __repr__(self) -> str:
        return f"<Kept {self.service.name}/{self.instance} {self.health!r} {self.heartbeat!r}>"

    @property
    def condition(self) -> str:
        """`waiting` until it is registered, then the state in which the registrar holds it."""
        if self.heartbeat.lease is None:
            return "waiting"
        return self.heartbeat.held or "serving"

    def next_action(self, now: float) -> Action:
        """What its heartbeat wants; a wait while something is under way."""
        if self.is_busy or now < self.not_before:
            return Wait(LONGEST_WAIT if self.is_busy else self.not_before - now)
        serving = self.health.is_serving(now)
        return self.heartbeat.next_action(healthy=serving, reason=self.health.reason, now=now)

    def tell(self, chapter: str, message: str, level: str = "info", **fields: Any) -> None:
        """Log a change in the life of its lease, once."""
        name = {"service": self.service.name, "instance": self.instance}
        self.lease_story.enter(chapter, message, level=level, **name, **fields)


class Agent:
    """Keeps services registered at the registrar from `start` until `drain`."""

    def __init__(
        self,
        services: Sequence[Service],
        client: RegistrarClient,
        policy: Policy,
        *,
        probe_timeout: float = 2.0,
        interval: float | None = None,
        lame_duck: bool = True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._probe_timeout = probe_timeout
        self._lame_duck = lame_duck
        self._wake = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._is_over = False
        self._run: asyncio.Task[None] | None = None
        # Tells an older sidecar of the same instance from this one, across restarts.
        self._generation = time.time_ns() // 1_000_000
        now = self._loop.time()
        self.kept = [Kept(service, policy, interval, now) for service in services]
        self.counts: Counter[tuple[str, str]] = Counter()

    def __repr__(self) -> str:
        return f"<Agent {len(self.kept)} services, {self._client!r}>"

    @property
    def registrar_is_away(self) -> bool:
        return self._client.is_away

    def oldest_renewal_age(self) -> float:
        """Seconds since the last renewal of the instance that has waited longest; 0 without any."""
        renewals = [k.heartbeat.last_renewal for k in self.kept if k.heartbeat.lease is not None]
        return max((self._loop.time() - r for r in renewals if r is not None), default=0.0)

    def missing(self) -> list[str]:
        """What keeps this sidecar from being ready: services that are not registered."""
        if self._is_stopping:
            return ["stopping"]
        return [
            f"{k.service.name}: not registered ({k.health.reason})"
            if not k.health.healthy
            else f"{k.service.name}: not registered (waiting for the registrar)"
            for k in self.kept
            if k.heartbeat.lease is None
        ]

    async def start(self) -> None:
        """Begin to probe and to register; returns at once."""
        self._run = asyncio.create_task(self._keep())

    async def drain(self) -> None:
        """Leave DNS, wait for caches to forget, deregister: all in less than ten seconds."""
        self._is_stopping = True
        now = self._loop.time()
        for kept in self.kept:
            kept.not_before = 0.0
            kept.heartbeat.stop(now, lame_duck=kept.service.lame_duck if self._lame_duck else 0.0)
        self._wake.set()
        giving_up = self._loop.call_later(PATIENCE, self._give_up, set(self._calls))
        try:
            if self._run is not None:
                await self._run
        finally:
            giving_up.cancel()

    async def stop(self) -> None:
        """End everything; what is still registered ends with its lease."""
        tasks = [*self._calls, *([self._run] if self._run is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the loop ----------------------------------------------------------------------

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as group:
            probes = [group.create_task(self._watch(kept)) for kept in self.kept]
            while not self._is_over:
                await self._guard(self._obey(), self.kept)
            for task in probes:
                task.cancel()

    async def _obey(self) -> None:
        """Begin what is due, then wait until something else is."""
        self._wake.clear()
        now = self._loop.time()
        actions = [(kept, kept.next_action(now)) for kept in self.kept]
        self._is_over = all(isinstance(action, Stopped) for _, action in actions)
        if self._is_over:
            return
        self._begin(actions, now)
        waits = [action.seconds for _, action in actions if isinstance(action, Wait)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(waits, default=LONGEST_WAIT))):
                await self._wake.wait()

    async def _guard(self, call: Coroutine[Any, Any, None], kept: Sequence[Kept]) -> None:
        """Await *call*; a bug in it is told and counted, and *kept* are left alone for a while."""
        try:
            await call
        except Exception:
            self.counts["bug", "caught"] += 1
            log.exception("something failed that should not, going on")
            for one in kept:
                one.not_before = self._loop.time() + AFTER_BUG

    def _begin(self, actions: Sequence[tuple[Kept, Action]], now: float) -> None:
        renewing: list[tuple[Kept, Renew]] = []
        for kept, action in actions:
            match action:
                case Renew():
                    renewing.append((kept, action))
                case Register():
                    self._spawn([kept], self._register(kept))
                case Ask():
                    self._spawn([kept], self._ask(kept))
                case Report():
                    self._spawn([kept], self._report(kept, action))
                case Deregister():
                    self._spawn([kept], self._deregister(kept, action))
        if renewing:
            due = [kept for kept, _ in renewing]
            early = [(k, k.heartbeat.joins(now)) for k in self.kept if not k.is_busy]
            renewing += [(k, r) for k, r in early if r is not None and k not in due]
            self._spawn([kept for kept, _ in renewing], self._renew(renewing))

    def _spawn(self, kept: list[Kept], call: Coroutine[Any, Any, None]) -> None:
        for one in kept:
            one.is_busy = True
        task = asyncio.create_task(self._call(kept, call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _call(self, kept: list[Kept], call: Coroutine[Any, Any, None]) -> None:
        """One call, whatever becomes of it: the instances are free again afterwards."""
        try:
            await self._guard(call, kept)
        finally:
            for one in kept:
                one.is_busy = False
            self._wake.set()

    def _give_up(self, calls: set[asyncio.Task[None]]) -> None:
        for task in calls & self._calls:
            task.cancel()

    # --- the calls ---------------------------------------------------------------------

    async def _register(self, kept: Kept) -> None:
        sent_at, heartbeat = self._loop.time(), kept.heartbeat
        metadata = kept.health.metadata
        document = document_of(kept.service, metadata, self._generation)
        try:
            granted = await self._client.register(document)
        except RegistrarUnavailable as error:
            self._count("register", "unavailable")
            heartbeat.failed(self._loop.time(), error.retry_after)
        except LeaseSuperseded as error:
            self._count("register", "superseded")
            heartbeat.superseded(self._loop.time())
            self._tell_superseded(kept, error)
        except RegistrationRefused as error:
            self._count("register", "refused")
            heartbeat.refused(self._loop.time())
            problems = "; ".join(f"{p.field}: {p.message}" for p in error.problems)
            kept.tell(
                f"refused {error} {problems}",
                "registration refused, trying again every minute",
                "error",
                status=error.status,
                detail=str(error),
                problems=problems,
            )
        except asyncio.CancelledError:
            heartbeat.failed(self._loop.time())  # it may have arrived all the same
            raise
        else:
            self._count("register", "success")
            kept.instance = granted.instance or kept.instance
            kept.sent_metadata = metadata
            heartbeat.lease_granted(
                granted.lease_id,
                ttl=granted.ttl,
                interval=granted.interval,
                created=granted.created,
                sent_at=sent_at,
            )
            if kept.health.metadata != metadata:
                heartbeat.data_changed()
            assert heartbeat.lease is not None
            every = heartbeat.lease.every
            kept.tell("registered", "registered", lease=granted.ttl, heartbeat=every)

    async def _renew(self, renewing: Sequence[tuple[Kept, Renew]]) -> None:
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
                self._count("heartbeat", "success")
                heartbeat.renewed(sent_at)
                if kept.lease_story.state.startswith("refused"):
                    kept.tell("registered", "heartbeat accepted again")
            case LeaseNotFound():
                self._count("heartbeat", "not_found")
                heartbeat.lease_lost(now)
                kept.tell("lost", "lease lost, registering again", "warning", reason=str(outcome))
            case LeaseSuperseded():
                self._count("heartbeat", "superseded")
                heartbeat.lease_lost(now)
                kept.tell("lost", "lease held by another", "warning", reason=str(outcome))
            case RegistrarUnavailable():
                self._count("heartbeat", "unavailable")
                heartbeat.failed(now, outcome.retry_after)
            case RegistrationRefused():
                self._count("heartbeat", "refused")
                heartbeat.failed(now)
                kept.tell(f"refused {outcome}", "heartbeat refused", "error", status=outcome.status)

    async def _ask(self, kept: Kept) -> None:
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

    async def _report(self, kept: Kept, report: Report) -> None:
        heartbeat, service = kept.heartbeat, kept.service.name
        timeout = STOPPING_TIMEOUT if self._is_stopping else None
        try:
            await self._client.set_state(
                service, kept.instance, report.state, report.reason, timeout
            )
        except RegistrarUnavailable as error:
            self._count("state", "unavailable")
            heartbeat.report_failed(self._loop.time(), error.retry_after)
        except LeaseNotFound as error:
            self._count("state", "not_found")
            heartbeat.lease_lost(self._loop.time())
            kept.tell("lost", "lease lost, registering again", "warning", reason=str(error))
        except RegistrationRefused as error:
            self._count("state", "refused")
            heartbeat.report_refused(report.state)
            kept.tell(
                f"refused {report.state}",
                "the registrar does not take this state",
                "error",
                reported=report.state,
                detail=str(error),
            )
        else:
            self._count("state", "success")
            heartbeat.state_reported(report.state, self._loop.time())
            level = "info" if report.state != "unhealthy" else "warning"
            kept.tell(
                f"reported {report.state}",
                "state reported",
                level,
                reported=report.state,
                reason=report.reason,
            )

    async def _deregister(self, kept: Kept, action: Deregister) -> None:
        try:
            await self._client.deregister(
                kept.service.name, kept.instance, action.lease_id, STOPPING_TIMEOUT
            )
        except RegistrarUnavailable as error:
            self._count("deregister", "unavailable")
            kept.heartbeat.report_failed(self._loop.time(), error.retry_after)
        except RegistrationRefused as error:
            self._count("deregister", "refused")
            kept.heartbeat.deregistered()
            kept.tell("left", "deregistration refused", "error", detail=str(error))
        else:
            self._count("deregister", "success")
            kept.heartbeat.deregistered()
            kept.tell("left", "deregistered")

    def _tell_superseded(self, kept: Kept, error: LeaseSuperseded) -> None:
        kept.tell(
            "superseded",
            "a newer sidecar holds this instance, looking again every minute;"
            " two services on one machine need different ports or ids",
            "error",
            reason=str(error),
        )

    def _count(self, operation: str, status: str) -> None:
        self.counts[operation, status] += 1

    # --- health ------------------------------------------------------------------------

    async def _watch(self, kept: Kept) -> None:
        while True:
            began = self._loop.time()
            await self._guard(self._look(kept), [])
            now = self._loop.time()
            await asyncio.sleep(max(0.0, began + kept.health.interval(now) - now))

    async def _look(self, kept: Kept) -> None:
        """Probe once, and wake the loop when it matters."""
        health = kept.health
        verdict = await probe(kept.service, self._probe_timeout)
        now = self._loop.time()
        self._count("probe", "healthy" if isinstance(verdict, Healthy) else "unhealthy")
        if health.note(verdict):
            self._note_health(kept)
        if health.is_overdue(now):
            self._tell_overdue(kept, now)
        if health.is_serving(now) != kept.was_serving:
            kept.was_serving = not kept.was_serving
            kept.heartbeat.health_changed()
            self._wake.set()

    def _note_health(self, kept: Kept) -> None:
        health = kept.health
        if health.healthy and health.metadata != kept.sent_metadata:
            kept.heartbeat.data_changed()
        fields = {"service": kept.service.name, "probe": kept.service.probe_url}
        if health.healthy:
            kept.health_story.enter("healthy", "healthy", **fields)
        else:
            fields["reason"] = health.reason
            kept.health_story.enter("unhealthy", "unhealthy", level="warning", **fields)

    def _tell_overdue(self, kept: Kept, now: float) -> None:
        log.warning(
            "not healthy since the start, registered all the same"
            if kept.health.is_serving(now)
            else "not healthy since the start, not registered, waiting on",
            service=kept.service.name,
            probe=kept.service.probe_url,
            reason=kept.health.reason,
        )
