"""The gateway as a process: built from its settings, started, drained, stopped.

With one worker this process serves; with more it supervises processes that run this same module,
each with its own socket on the same port (SO_REUSEPORT).
"""

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from registry.runtime import admin, logs, metrics, supervisor
from registry.runtime.config import Common, HostPort
from registry.runtime.lifecycle import binding_error
from resolver_gateway.cache import SrvCache
from resolver_gateway.config import Config
from resolver_gateway.dnsclient import DnsClient
from resolver_gateway.downstream import Downstream
from resolver_gateway.fallback import Policy
from resolver_gateway.handler import Handler, Limits
from resolver_gateway.metrics import SUMMED_GAUGES, Counts, GatewayCollector
from resolver_gateway.outlier import OutlierDetector
from resolver_gateway.pages import Pages
from resolver_gateway.pool import Pool
from resolver_gateway.resolver import Resolver

TICK: Final = 0.25
"""Seconds between two looks at the deadlines: they are kept to that much."""

HOUSEKEEPING: Final = 40
"""Ticks between two rounds of forgetting."""

DRAIN_SECONDS: Final = 6.0
"""Seconds that requests under way have at a stop; within what the life cycle gives in all."""

KNOCK_PAUSE: Final = 0.5
"""Seconds between two knocks while no DNS server has answered yet."""

BACKLOG: Final = 4096

log = logs.get("gateway")


class Worker:
    """One process's share: a listening socket and everything behind it."""

    def __init__(self, settings: Config, sock: socket.socket, environ: Mapping[str, str]) -> None:
        clock = time.monotonic
        self._sock = sock
        self._counts = Counts()
        self._client = DnsClient(settings.dns, settings.zone, clock)
        self._outliers = OutlierDetector()
        self._pool = Pool(clock, settings.upstream_timeout, settings.allow_upstreams)
        self._pool.own = (sock.getsockname()[:2],)
        self._resolver = Resolver(
            self._client, SrvCache(settings.stale_bound), clock, self._left, environ
        )
        self.handler = Handler(
            self._resolver,
            self._pool,
            self._outliers,
            self._counts,
            clock,
            limits=Limits(
                head_timeout=settings.head_timeout,
                body_timeout=settings.body_timeout,
                idle_timeout=settings.idle_timeout,
                tunnel_timeout=settings.tunnel_timeout,
                min_body_rate=settings.min_body_rate,
                connections=-(-settings.max_connections // settings.workers),
                connections_per_client=settings.max_connections_per_client,
            ),
            pseudonym=pseudonym(settings),
            policy=Policy(settings.fallback),
            trusted=settings.trusted_proxies,
            access_log=settings.access_log,
        )
        self._pages = Pages(self.handler, self._client)
        self._settings = settings
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.registry = metrics.registry_for("gateway")
        self.registry.register(GatewayCollector(self._counts, self._client.outcomes, self._gauges))

    def __repr__(self) -> str:
        return f"<Worker {self.handler!r}>"

    def _left(self, service: str, keys: Collection[str]) -> None:
        self.handler.upstreams_left(service, keys)

    async def start(self) -> None:
        """Serve, and begin to knock at the DNS servers."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Downstream(self.handler), sock=self._sock, backlog=BACKLOG
        )
        self._tasks = [loop.create_task(self._keep_time()), loop.create_task(self._knock())]

    def missing(self) -> list[str]:
        """What keeps it from being ready."""
        if self.handler.draining:
            return ["draining"]
        if not self._client.answered_once:
            servers = ", ".join(map(str, self._client.servers))
            return [f"dns: none of {servers} has answered yet"]
        return []

    async def _keep_time(self) -> None:
        """The one timer: deadlines a few times a second, forgetting now and then."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK)
            now = self.handler.clock()
            self.handler.tick(now)
            ticks += 1
            if ticks % HOUSEKEEPING == 0:
                self._resolver.tick(now)
                self._pages.tick(now)

    async def _knock(self) -> None:
        waiting = logs.Transition(log)
        while not self._client.answered_once and not await self._client.knock():
            servers = ", ".join(map(str, self._client.servers))
            waiting.enter("waiting", "waiting for a DNS server", level="warning", dns=servers)
            await asyncio.sleep(KNOCK_PAUSE)
        log.info("discovery answers", dns=", ".join(map(str, self._client.servers)))

    def _gauges(self) -> dict[str, float]:
        now = self.handler.clock()
        left = self._resolver.cache.services(now)
        return {
            "gateway_connections": len(self.handler.clients),
            "gateway_upstream_connections": len(self._pool.connections),
            "gateway_idle_upstream_connections": self._pool.idle_count,
            "gateway_services": len(left),
            "gateway_ejected_instances": self._outliers.ejected_count,
            "gateway_open_breakers": sum(
                1 for state in self.handler.states.values() if state.breaker.is_open(now)
            ),
            "gateway_stale_seconds": max(0.0, -min(left.values(), default=0.0)),
        }

    async def drain(self) -> None:
        """Accept no more, and let what is under way end within its time."""
        if self._server is not None:
            self._server.close()
        self.handler.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.handler.quiet.wait()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.handler.close()
        await self._resolver.close()
        if self._server is not None:
            self._server.close()


class Gateway:
    """The part: a worker in this process, or a supervisor of several; and the admin side."""

    def __init__(
        self,
        settings: Config,
        common: Common,
        *,
        environ: Mapping[str, str] | None = None,
        argv: Sequence[str] | None = None,
    ) -> None:
        self._settings = settings
        self._common = common
        self._environ = os.environ if environ is None else environ
        self._argv = sys.argv[1:] if argv is None else argv
        self._link = supervisor.WorkerLink.from_environ(self._environ)
        self._worker: Worker | None = None
        self._supervisor: supervisor.Supervisor | None = None
        self._admin: admin.Admin | None = None
        self._serving: asyncio.Task[None] | None = None
        self._sockets: list[socket.socket] = []

    @property
    def address(self) -> HostPort:
        """Where clients connect; known once started."""
        host, port = self._sockets[0].getsockname()[:2]
        return HostPort(host, port)

    @property
    def admin_address(self) -> HostPort | None:
        return None if self._admin is None else self._admin.address

    async def start(self) -> None:
        """Bind, serve, and say where; ready comes later, when a DNS server has answered."""
        raise_file_limit()
        if self._link is not None:
            await self._start_worker(self._link)
            return
        self._sockets = bind(self._settings.listen, self._settings.workers)
        if self._settings.workers == 1:
            self._worker = Worker(self._settings, self._sockets[0], self._environ)
            await self._worker.start()
        else:
            self._supervisor = supervisor.Supervisor(
                "gateway",
                [[sock] for sock in self._sockets],
                supervisor.worker_command("resolver_gateway", self._argv),
                summed_gauges=SUMMED_GAUGES,
            )
            await self._supervisor.start()
        self._admin = admin.Admin(self._common.admin, self.missing, self.metrics)
        await self._admin.start()
        log.info("listening", address=str(self.address), workers=self._settings.workers)
        if self._settings.address_file:
            write_addresses(self._settings.address_file, self.address, self._admin.address)

    async def _start_worker(self, link: supervisor.WorkerLink) -> None:
        self._sockets = link.sockets
        self._worker = Worker(self._settings, link.sockets[0], self._environ)
        await self._worker.start()
        self._serving = asyncio.get_running_loop().create_task(
            link.serve(self._worker.missing, self._worker.registry)
        )

    def missing(self) -> list[str]:
        """What keeps the part from being ready."""
        if self._supervisor is not None:
            return self._supervisor.missing()
        assert self._worker is not None
        return self._worker.missing()

    async def metrics(self) -> bytes:
        """The metrics of the part, all workers together."""
        if self._supervisor is not None:
            return await self._supervisor.metrics()
        assert self._worker is not None
        return metrics.text_of(self._worker.registry)

    async def drain(self) -> None:
        if self._supervisor is not None:
            await self._supervisor.drain()
        if self._worker is not None:
            await self._worker.drain()

    async def stop(self) -> None:
        if self._admin is not None:
            await self._admin.stop()
        if self._supervisor is not None:
            await self._supervisor.stop()
        if self._worker is not None:
            await self._worker.stop()
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    def reload(self) -> None:
        """Nothing is read again yet but by workers, who are told."""
        if self._supervisor is not None:
            self._supervisor.reload()


def pseudonym(settings: Config) -> str:
    """Our name in `Via`: the same for all workers and at every start, another elsewhere."""
    place = f"{socket.gethostname()} {settings.listen} {settings.zone}"
    return "callboard-" + hashlib.blake2s(place.encode(), digest_size=6).hexdigest()


def bind(address: HostPort, workers: int) -> list[socket.socket]:
    """One listening socket for each worker, all on one port.

    A plain bind comes first, so that a second gateway gets an error, not half the connections.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sockets: list[socket.socket] = []
    try:
        first = _bound(family, address, shared=False)
        if workers == 1:
            return [first]
        taken = HostPort(address.host, first.getsockname()[1])
        first.close()
        sockets.extend(_bound(family, taken, shared=True) for _ in range(workers))
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise binding_error(error, address, "--listen") from error
    return sockets


def _bound(family: int, address: HostPort, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # `[::]` stands for every address of the machine, IPv4 too.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((address.host, address.port))
        sock.setblocking(False)
        if shared:
            sock.listen(BACKLOG)  # a worker that is replaced loses no connection that waits
    except OSError:
        sock.close()
        raise
    return sock


def raise_file_limit() -> None:
    """Take as many open files as the system allows: two a request."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def write_addresses(path: str, address: HostPort, admin_address: HostPort | None) -> None:
    """Say where we listen, at one stroke: whoever reads the file reads all of it."""
    document = {
        "gateway": f"http://{address}",
        "admin": None if admin_address is None else f"http://{admin_address}",
    }
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(document, file)
    os.replace(f"{path}.new", path)
