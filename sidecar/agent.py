"""The loop that obeys heartbeat.py, for every service of this sidecar."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

from registry.runtime import logs
from sidecar.actions import Action, Ask, Deregister, Register, Renew, Report, Stopped, Wait
from sidecar.calls import Calls
from sidecar.client import RegistrarClient
from sidecar.health import Healthy
from sidecar.kept import LONGEST_WAIT, Kept
from sidecar.probe import Prober
from sidecar.registration import Service
from sidecar.stopping import Limits

AFTER_BUG = 5.0
"""Seconds until an instance is looked at again after an exception that nobody foresaw."""

log = logs.get("sidecar")


class Agent:
    """Keeps services registered at the registrar from `start` until `drain`.

    Without *lame_duck* an instance is deregistered at once when it is to stop.
    """

    def __init__(
        self,
        services: Sequence[Service],
        client: RegistrarClient,
        prober: Prober,
        *,
        interval: float | None = None,
        lame_duck: bool = True,
        limits: Limits | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._prober = prober
        self._lame_duck = lame_duck
        self._limits = limits or Limits()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self._run: asyncio.Task[None] | None = None
        self._calls = Calls(client, time.time_ns() // 1_000_000, self._limits.call)
        now = self._loop.time()
        self.kept = [Kept(service, interval, random.random, log, now) for service in services]

    def __repr__(self) -> str:
        return f"<Agent {len(self.kept)} services, {self._client!r}>"

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """How often each (operation, status) came about."""
        return self._calls.counts

    @property
    def registrar_is_away(self) -> bool:
        return self._client.is_away

    def oldest_renewal_age(self) -> float:
        """Seconds since the last renewal of the instance that has waited longest; 0 without any."""
        renewals = [k.heartbeat.last_renewal for k in self.kept if k.heartbeat.lease is not None]
        return max((self._loop.time() - r for r in renewals if r is not None), default=0.0)

    def missing(self) -> list[str]:
        """What keeps this sidecar from being ready: services that are not registered."""
        if self._calls.is_stopping:
            return ["stopping"]
        return [kept.missing for kept in self.kept if kept.missing]

    async def start(self) -> None:
        """Begin to probe and to register; returns at once."""
        self._run = asyncio.create_task(self._keep())

    async def drain(self, *, at_once: bool = False) -> None:
        """Leave DNS, wait for caches to forget, deregister: all within the limits.

        *at_once* deregisters without a wait, also where a drain is under way.
        """
        self._calls.is_stopping = True
        now = self._loop.time()
        for kept in self.kept:
            kept.not_before = 0.0
            lame_duck = kept.service.lame_duck if self._lame_duck and not at_once else 0.0
            kept.heartbeat.stop(now, lame_duck=lame_duck, limits=self._limits)
            if at_once:
                kept.heartbeat.hurry()
        self._wake.set()
        giving_up = self._loop.call_later(self._limits.call, self._give_up, set(self._tasks))
        try:
            if self._run is not None:
                await asyncio.wait([self._run])
        finally:
            giving_up.cancel()

    async def stop(self) -> None:
        """End everything; what is still registered ends with its lease."""
        tasks = [*self._tasks, *([self._run] if self._run is not None else [])]
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
            self._calls.count("bug", "caught")
            log.exception("something failed that should not, going on")
            for one in kept:
                one.not_before = self._loop.time() + AFTER_BUG

    def _begin(self, actions: Sequence[tuple[Kept, Action]], now: float) -> None:
        calls = self._calls
        renewing: list[tuple[Kept, Renew]] = []
        for kept, action in actions:
            match action:
                case Renew():
                    renewing.append((kept, action))
                case Register():
                    self._spawn([kept], calls.register(kept, action))
                case Ask():
                    self._spawn([kept], calls.ask(kept))
                case Report():
                    self._spawn([kept], calls.report(kept, action))
                case Deregister():
                    self._spawn([kept], calls.deregister(kept, action))
        if renewing:
            due = [kept for kept, _ in renewing]
            early = [(k, k.heartbeat.joins(now)) for k in self.kept if not k.is_busy]
            renewing += [(k, r) for k, r in early if r is not None and k not in due]
            self._spawn([kept for kept, _ in renewing], calls.renew(renewing))

    def _spawn(self, kept: list[Kept], call: Coroutine[Any, Any, None]) -> None:
        for one in kept:
            one.is_busy = True
        task = asyncio.create_task(self._call(kept, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, kept: list[Kept], call: Coroutine[Any, Any, None]) -> None:
        """One call, whatever becomes of it: the instances are free again afterwards."""
        try:
            await self._guard(call, kept)
        finally:
            for one in kept:
                one.is_busy = False
            self._wake.set()

    def _give_up(self, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks & self._tasks:
            task.cancel()

    # --- health ------------------------------------------------------------------------

    async def _watch(self, kept: Kept) -> None:
        while True:
            began = self._loop.time()
            await self._guard(self._look(kept), [])
            now = self._loop.time()
            await asyncio.sleep(max(0.0, began + kept.health.interval(now) - now))

    async def _look(self, kept: Kept) -> None:
        """Probe once, and wake the loop when it matters."""
        health, first = kept.health, not kept.health.was_healthy
        verdict = await self._prober.verdict(kept.service)
        now = self._loop.time()
        self._calls.count("probe", "healthy" if isinstance(verdict, Healthy) else "unhealthy")
        if health.note(verdict):
            self._note_health(kept, at=now if first else None)
        if health.is_overdue(now):
            self._tell_overdue(kept, now)
        if (wanted := health.wanted(now)) != kept.wanted:
            kept.wanted = wanted
            kept.heartbeat.health_changed()
            self._wake.set()

    def _note_health(self, kept: Kept, at: float | None) -> None:
        if kept.health.healthy and kept.health.metadata != kept.sent_metadata:
            kept.heartbeat.data_changed(at)
        kept.tell_health()

    def _tell_overdue(self, kept: Kept, now: float) -> None:
        log.warning(
            "not healthy since the start, served all the same"
            if kept.health.wanted(now) == "serving"
            else "not healthy since the start, waiting on",
            service=kept.service.name,
            probe=kept.service.probed,
            reason=kept.health.reason,
        )
