"""One process's share of the gateway: a listening socket and everything behind it."""

import asyncio
import contextlib
import hashlib
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from registry.runtime import logs, metrics
from registry.runtime.config import Common, ConfigError, HostPort
from resolver_gateway.cache import SrvCache
from resolver_gateway.config import Config, rules_of, servers_of
from resolver_gateway.dnsclient import DnsClient
from resolver_gateway.door import Limits
from resolver_gateway.downstream import Downstream
from resolver_gateway.events import EventFollower
from resolver_gateway.fallback import Policy
from resolver_gateway.gcra import Rates
from resolver_gateway.handler import Handler
from resolver_gateway.limiter import default_burst
from resolver_gateway.metrics import Counts, GatewayCollector
from resolver_gateway.outlier import OutlierDetector
from resolver_gateway.pages import Pages
from resolver_gateway.pool import Pool
from resolver_gateway.resolver import Resolver
from resolver_gateway.routing import Router
from resolver_gateway.rules import RulesRefused
from resolver_gateway.tls import ClientSide, upstream_context

TICK: Final = 0.25
"""Seconds between two looks at the deadlines: they are kept to that much."""

HOUSEKEEPING: Final = 40
"""Ticks between two rounds of forgetting."""

DRAIN_SECONDS: Final = 6.0
"""Seconds that requests under way have at a stop; within what the life cycle gives in all."""

LOOK_AT_SERVERS: Final = 8
"""Ticks between two looks at the file that names the DNS servers: two seconds."""

KNOCK_PAUSE: Final = 0.5
"""Seconds between two knocks while no DNS server has answered yet."""

BACKLOG: Final = 4096
"""Connections that wait to be accepted."""

log = logs.get("gateway")


class Worker:
    """One process's share: a listening socket and everything behind it."""

    def __init__(
        self,
        settings: Config,
        sock: socket.socket,
        environ: Mapping[str, str],
        read_again: Callable[[], tuple[Config, Common]] | None = None,
    ) -> None:
        clock = time.monotonic
        self._settings = settings
        self._sock = sock
        self._read_again = read_again
        self._rules = rules_of(settings)
        self._servers = Servers(settings)
        self._tls = ClientSide(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
        self._counts = Counts()
        self._client = DnsClient(self._servers.now(), settings.zone, clock)
        self._outliers = OutlierDetector()
        self._pool = Pool(clock, settings.upstream_timeout, settings.allow_upstreams)
        self._pool.own = (sock.getsockname()[:2],)
        if settings.upstream_ca:
            self._pool.use_tls(upstream_context(settings.upstream_ca))
        self._resolver = Resolver(
            self._client,
            SrvCache(settings.stale_bound),
            clock,
            self._left,
            environ,
            self._tls_name_of,
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
            router=self._router(settings),
            client_rates=client_rates(settings),
            scheme="https" if self._tls is not None else "http",
            server_timing=settings.server_timing,
            upstream_timeout=settings.upstream_timeout,
        )
        self._events = self._follower(settings) if settings.events else None
        self._pages = Pages(self.handler, self._client, self._shown_events)
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.registry = metrics.registry_for("gateway")
        self.registry.register(GatewayCollector(self._counts, self._client.outcomes, self._gauges))

    def __repr__(self) -> str:
        return f"<Worker {self.handler!r}>"

    # --- its parts

    def _router(self, settings: Config) -> Router:
        return Router(
            self._rules,
            host_suffix=settings.host_suffix,
            version_header=settings.version_header,
            prefer_zone=settings.prefer_zone,
        )

    def _follower(self, settings: Config) -> EventFollower:
        resolver = self._resolver
        return EventFollower(
            settings.events,
            settings.events_token,
            concerns=lambda services: bool(resolver.concerns(services)),
            changed=resolver.changed,
            changed_all=resolver.changed_all,
            serial=self._client.query_serial,
            tls=self._pool.tls_context,
        )

    def _left(self, name: str, keys: Collection[str]) -> None:
        self.handler.upstreams_left(name, keys)

    def _tls_name_of(self, service: str) -> str:
        """What the certificates of *service* must be for; empty when it speaks no TLS."""
        rule = self._rules.of(service)
        if not rule.tls:
            return ""
        return rule.tls_name or f"{service}.{self._settings.zone.removesuffix('.')}"

    def _shown_events(self) -> dict[str, Any] | None:
        events = self._events
        if events is None:
            return None
        return {
            "state": events.state,
            "received": events.received,
            "revision": events.last_id,
            "error": events.error,
        }

    # --- its life

    async def start(self) -> None:
        """Serve, and begin to knock at the DNS servers."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Downstream(self.handler),
            sock=self._sock,
            backlog=BACKLOG,
            ssl=self._tls.context if self._tls is not None else None,
            ssl_handshake_timeout=self._settings.head_timeout if self._tls is not None else None,
        )
        self._tasks = [loop.create_task(self._keep_time()), loop.create_task(self._knock())]
        if self._events is not None:
            self.handler.start(self._events.run())

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
                self.handler.limiter.tick(now)
            if ticks % LOOK_AT_SERVERS == 0:
                self._client.use_servers(self._servers.now())

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
        gauges: dict[str, float] = {
            "gateway_connections": len(self.handler.clients),
            "gateway_upstream_connections": len(self._pool.connections),
            "gateway_idle_upstream_connections": self._pool.idle_count,
            "gateway_queued_requests": self.handler.limiter.waiting,
            "gateway_services": len(left),
            "gateway_ejected_instances": self._outliers.ejected_count,
            "gateway_open_breakers": self.handler.learner.standings.open_breakers(now),
            "gateway_stale_seconds": max(0.0, -min(left.values(), default=0.0)),
        }
        if self._events is not None:
            gauges["gateway_events_following"] = self._events.state == "following"
        if self._tls is not None:
            gauges["gateway_certificate_expiry_seconds"] = self._tls.expires_at
        return gauges

    def reload(self) -> None:
        """Read routes, certificates, token and log level again; all of them, or none."""
        assert self._read_again is not None
        try:
            settings, common = self._read_again()
            settings = replace(settings, workers=self._settings.workers)
            rules = rules_of(settings)
            trust = upstream_context(settings.upstream_ca) if settings.upstream_ca else None
            if self._tls is not None:
                self._tls.read_again()
        except (ConfigError, RulesRefused, OSError, UnicodeDecodeError) as error:
            log.error("not read again, all stays as it was", error=str(error))
            return
        logs.set_level(common.log_level)
        self._rules = rules
        self.handler.router = self._router(settings)
        if trust is not None:
            self._pool.use_tls(trust)
        if self._events is not None:
            self._events.use_token(settings.events_token)
        self._resolver.changed_all()
        log.info("read again", rules=repr(rules))

    async def drain(self) -> None:
        """Accept no more, and let what is under way end within its time."""
        if self._server is not None:
            self._server.close()
        self.handler.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.handler.door.quiet.wait()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.handler.close()
        await self._resolver.close()
        if self._server is not None:
            self._server.close()


class Servers:
    """The DNS servers that the settings name, in a file that may change as it likes."""

    def __init__(self, settings: Config) -> None:
        self._settings = settings
        self._known = servers_of(settings)
        self._read = logs.Transition(log)

    def __repr__(self) -> str:
        return f"<Servers {', '.join(map(str, self._known))}>"

    def now(self) -> tuple[HostPort, ...]:
        """The servers to ask; those known before while the file cannot be read."""
        try:
            found = servers_of(self._settings)
        except (OSError, ValueError) as error:
            self._read.enter("unread", "servers not read", level="warning", error=str(error))
            return self._known
        self._read.enter("", "servers read again")
        if found != self._known:
            log.info("servers changed", dns=", ".join(map(str, found)))
            self._known = found
        return found


def client_rates(settings: Config) -> Rates | None:
    """How often one client may ask; None: as often as it likes."""
    if not settings.client_rate:
        return None
    burst = settings.client_burst or default_burst(settings.client_rate)
    return Rates(settings.client_rate, burst)


def pseudonym(settings: Config) -> str:
    """Our name in `Via`: the same for all workers and at every start, another elsewhere."""
    place = f"{socket.gethostname()} {settings.listen} {settings.zone}"
    return "callboard-" + hashlib.blake2s(place.encode(), digest_size=6).hexdigest()
