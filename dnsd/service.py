"""One worker: the parts of dnsd put together around the sockets it was given."""

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

from dnsd.config import Config, zones_of
from dnsd.cookies import Cookies
from dnsd.front import Front
from dnsd.limits import RateLimiter
from dnsd.memo import Memo
from dnsd.metrics import Counts, DnsdCollector
from dnsd.primary import Primary
from dnsd.responder import Responder
from dnsd.table import AnswerTable
from dnsd.tcp import TcpServer
from dnsd.udp import Senders, UdpEndpoint
from dnsd.updater import Updater
from registry.follower import Follower
from registry.runtime import logs
from registry.runtime.config import ConfigError
from registry.runtime.metrics import registry_for
from registry.runtime.supervisor import WorkerLink

SNAPSHOT = "dnsd-snapshot.jsonl"

MAX_NAMED = 1000
"""Services whose problems are named in the log, once each; later ones are only counted."""

ALLOCATIONS = 50_000
"""Objects made between two runs of the garbage collector: what is kept here has no cycles, and
a full run over a large catalog takes longer than an answer may."""

RESTART_AFTER = 1.0
"""Seconds until work that failed for a bug of ours begins again."""

log = logs.get("dnsd")


class Service:
    """A worker of dnsd: answers on *sockets* what the store says."""

    def __init__(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        link: WorkerLink | None = None,
        reread: Callable[[], Config] | None = None,
    ) -> None:
        self._reread = reread or (lambda: config)
        self._sockets = sockets
        self._link = link
        self.counts = Counts()
        self._named: set[str] = set()
        self._follower = Follower(
            config.store,
            config.zone[0],
            changed=self._changed,
            reset=self._reset,
            freeze=True,
        )
        zones = zones_of(config)
        table = AnswerTable(zones, lambda: self._follower.catalog, problem=self._problem)
        self.memo = Memo(table.serial)
        self.updater = Updater(
            self._follower,
            table,
            self.memo,
            self.counts,
            zone=zones[0].apex,
            stale_bound=config.stale_bound,
            path=Path(config.data_dir) / SNAPSHOT if config.data_dir else None,
            saves=link is None or link.index == 0,
        )
        self.primary = Primary(
            config,
            table,
            lambda: self._follower.catalog,
            self.counts,
            problem=self._problem,
            tells=link is None or link.index == 0,
        )
        self._cookies = Cookies(config.cookie_secret or (os.urandom(16),), time.time)
        responder = Responder(
            table,
            random.Random(),
            transfers=self.primary.transfers,
            signatures=self.primary.signatures,
            cookies=self._cookies,
            name=config.nsid.encode(),
        )
        limiter = None
        if config.rate_limit:
            limiter = RateLimiter(config.rate_limit, config.rate_slip, os.urandom(16))
        front = Front(responder, self.memo, self.counts, cookies=self._cookies, limiter=limiter)
        senders = Senders(config.networks)
        self._tcp = TcpServer(responder, senders, self.counts, outgoing=self.primary.outgoing)
        self._udp = [
            UdpEndpoint(sock, front, self.memo, senders, self.counts)
            for sock in sockets
            if sock.type == socket.SOCK_DGRAM
        ]
        self.metrics = registry_for("dnsd")
        self.metrics.register(
            DnsdCollector(
                self.counts,
                self.memo,
                self.updater.feed,
                self.primary.journal,
                self._cookies,
            )
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Answer from now on, and follow the store."""
        gc.set_threshold(ALLOCATIONS, 20, 100)
        gc.freeze()
        for endpoint in self._udp:
            endpoint.open()
        for sock in self._sockets:
            if sock.type == socket.SOCK_STREAM:
                await self._tcp.open(sock)
        self._tasks.append(asyncio.create_task(self._keep_up(self.updater.run)))
        self._tasks.append(asyncio.create_task(self._keep_up(self.primary.notifier.run)))
        if self._link is not None:
            self._tasks.append(asyncio.create_task(self._report(self._link)))

    async def drain(self) -> None:
        """Accept no more connections; what was asked is answered."""
        self._tcp.stop_accepting()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for endpoint in self._udp:
            endpoint.close()
        await self._tcp.close()

    def reload(self) -> None:
        """Read the keys and the cookies' secrets again."""
        self.primary.reload()
        try:
            secrets = self._reread().cookie_secret
        except ConfigError as error:
            log.error("cookie secrets not read again", error="; ".join(error.problems))
            return
        if not secrets:
            return  # the one drawn at the start stays
        self._cookies.use(secrets)
        log.info("cookie secrets read again", secrets=len(secrets))

    def _changed(self, services: Collection[str]) -> None:
        self.updater.changed(services)
        self.primary.changed(services)

    def _reset(self) -> None:
        self.updater.reset()
        self.primary.reset()

    async def _keep_up(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work*, which never ends by itself; after a bug once more, not too often."""
        while True:
            try:
                await work()
            except Exception:
                self.counts.errors += 1
                log.exception("work failed, it begins again")
            await asyncio.sleep(RESTART_AFTER)

    async def _report(self, link: WorkerLink) -> None:
        """Speak to the supervisor; without one, end."""
        with contextlib.suppress(OSError):
            await link.serve(self.updater.missing, self.metrics)
        os.kill(os.getpid(), signal.SIGTERM)

    def _problem(self, service: str, what: str) -> None:
        self.counts.problems += 1
        if service not in self._named and len(self._named) < MAX_NAMED:
            self._named.add(service)
            log.error("service not answered whole", service=service, error=what)
