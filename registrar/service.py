"""The registrar as a process has it: built from its settings, started, drained, stopped."""

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine
from logging import getLogger
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from registrar import openapi
from registrar.access import Access
from registrar.app import SERVER_LOGGER, App, QuietServer, json_page
from registrar.batching import Renewals
from registrar.beats import Heartbeats
from registrar.breaker import CLOSED
from registrar.config import Config
from registrar.connections import Connections
from registrar.consul_reads import ConsulReads
from registrar.files import read_tokens, tls_context
from registrar.gate import Gate
from registrar.holdings import Holdings
from registrar.journal import service_of
from registrar.listener import Listener, write_address
from registrar.lists import Lists
from registrar.lookups import Lookups, Resolve
from registrar.metrics import Metrics
from registrar.reads import Reads
from registrar.registrations import Rules
from registrar.releasing import Releasing
from registrar.routes import Handlers, api_routes
from registrar.suspects import Suspects
from registrar.sweeper import Sweeper
from registrar.tokens import Tokens
from registrar.view import View
from registrar.watchers import Watchers
from registrar.writes import Writes
from registry.changes import Change
from registry.errors import CallboardError
from registry.follower import Follower
from registry.leases import LeaseStore
from registry.runtime import logs
from registry.runtime.admin import METRICS_TYPE, Admin
from registry.runtime.config import Common, HostPort, networks
from registry.runtime.metrics import callboard_version
from registry.store import RedisStore

THIS_MACHINE: Final = networks("127.0.0.0/8,::1/128")
"""Whoever is here already has easier means than to open connections."""

IDLE_SECONDS = 75.0
"""That a connection is kept without a request: longer than nginx keeps its own to us (60)."""

LINGER_SECONDS = 2.0
"""That the rest of a refused body is read, so that its sender sees why; aiohttp waits so long even
when the sender has gone."""

FINISH_SECONDS = 5.0
"""For requests under way when the registrar stops."""

SETTINGS: Final[dict[str, Any]] = {
    "access_log": None,
    "auto_decompress": False,  # compressed bodies are refused, so none is unpacked
    "keepalive_timeout": IDLE_SECONDS,
    "lingering_time": LINGER_SECONDS,
}
"""Of aiohttp's server and of each of its connections."""

MAX_GUARDED = 100
"""Services under a guard that /health names."""

AGAIN_SECONDS = 1.0
"""Before work that an unforeseen error ended is begun again."""

log = logs.get("registrar")


ReadAgain = Callable[[], tuple[Config, Common]]
"""What reads the settings again, on SIGHUP; ConfigError when they are wrong now."""


class Service:
    """One registrar over *store* and *view*.  *follow* keeps the view current, for ever."""

    def __init__(
        self,
        config: Config,
        store: LeaseStore,
        view: View,
        follow: Callable[[], Coroutine[Any, Any, None]],
        *,
        admin: HostPort | None = None,
        resolve: Resolve | None = None,
        tokens: Tokens | None = None,
        read_again: ReadAgain | None = None,
    ) -> None:
        self._config = config
        self._read_again = read_again or (lambda: (config, Common()))
        self._store = store
        self._view = view
        self._follow = follow
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._listener = Listener(config.listen)
        self.metrics = metrics = Metrics()
        self._gate = Gate(store, metrics.store_failed)
        self._renewals = Renewals(store, self._gate, metrics.batch)
        self._lookups = Lookups(
            store,
            self._gate,
            view,
            zones=config.zone,
            allowed=config.allow_endpoints,
            holder=secrets.token_hex(8),
            count=metrics.lookup,
            resolve=resolve,
        )
        self._sweeper = Sweeper(store, self._gate, metrics.swept)
        self._access = access = Access(tokens, config.read_tokens)
        self._holdings = Holdings()
        self._suspects = suspects = Suspects()
        self._watchers = watchers = Watchers(view)
        self._connections = Connections(
            config.max_connections,
            config.max_connections_per_client,
            (*THIS_MACHINE, *config.trusted_proxies),
            metrics.bounded,
        )
        rules = Rules(config.zone, config.lease_ttl, config.allow_endpoints)
        reads = Reads(store, self._gate, view, random.Random())
        handlers = Handlers(
            Writes(
                rules,
                store,
                self._gate,
                view,
                reads,
                self._lookups,
                access,
                self._holdings,
                metrics,
            ),
            Releasing(store, self._gate, view, access),
            Heartbeats(view, self._renewals, reads, access),
            Lists(view, reads, watchers, config.zone),
            ConsulReads(view, watchers, callboard_version()),
        )
        self._app = App(
            api_routes(handlers), self._pages(), view, access, metrics, config.trusted_proxies
        )
        self._quiet = QuietServer(metrics.malformed)
        self._admin = Admin(admin, self.missing, self._metrics_text)
        metrics.watch(
            active_services=self._active_services,
            instances=lambda: view.catalog.instance_count,
            revision=lambda: view.catalog.revision,
            age=self._app.age,
            breaker=lambda: self._gate.state,
            connections=lambda: self._connections.count,
            watchers=lambda: watchers.count,
            suspects=lambda: suspects.count,
            guarded=lambda: len(suspects.services),
        )
        view.listen(self._heard)

    @property
    def address(self) -> HostPort:
        """Where it listens; once it does."""
        return self._listener.address

    def _heard(self, change: Change | None) -> None:
        if change is None:
            self._holdings.rebuild(self._view.catalog)
            self._suspects.rebuild(self._view.catalog)
        elif (name := service_of(change)) is not None:
            service = self._view.catalog.service(name)
            self._holdings.update(name, service)
            self._suspects.update(name, service)
        self._watchers.heard(change)

    def missing(self) -> list[str]:
        """What keeps it from being ready.

        Redis going away later does not: all replicas would leave at once, and reads go on.
        """
        if self._stopping:
            return ["stopping"]
        if not self._view.loaded:
            return [f"catalog: {self._view.error or 'loading'}"]
        return []

    # --- life ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, and begin to follow, sweep and look up.  Redis may still be away."""
        getLogger(SERVER_LOGGER).addFilter(self._quiet)
        self._runner = web.AppRunner(
            self._app.application,
            handle_signals=False,
            shutdown_timeout=FINISH_SECONDS,
            **SETTINGS,
        )
        await self._runner.setup()
        assert self._runner.server is not None, "it is set up"
        factory = self._connections.factory(self._runner.server, **SETTINGS)
        await self._listener.start(factory, tls_context(self._config))
        await self._admin.start()
        for work in (
            self._follow,
            self._connections.run,
            self._gate.run,
            self._renewals.run,
            self._sweeper.run,
            self._lookups.run,
        ):
            self._tasks.append(asyncio.ensure_future(self._keep_up(work)))
        if self._config.address_file:
            write_address(Path(self._config.address_file), self._listener.url)
        log.info("listening", url=self._listener.url, zone=",".join(self._config.zone))
        if self._access.is_open and not self._config.listen.is_loopback:
            log.warning("anyone who reaches this port may register any service (--insecure)")
        if not self._view.loaded:
            log.info("waiting for the store, reads and writes are refused until it is there")

    async def _keep_up(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *work*, which never ends by itself; after a bug once more, not too often."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("work failed, it begins again", work=work.__qualname__)
                self.metrics.internal_error()
            await asyncio.sleep(AGAIN_SECONDS)

    async def drain(self) -> None:
        """Be unready, let listeners go; what else is under way is finished by stop."""
        self._stopping = True
        self._watchers.close()

    async def stop(self) -> None:
        """Finish requests, end the tasks, give connections back."""
        self._stopping = True
        self._watchers.close()
        self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._admin.stop()
        await self._lookups.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()
        getLogger(SERVER_LOGGER).removeFilter(self._quiet)

    def reload(self) -> None:
        """Read tokens, certificates and log level again: all of them, or none if one is wrong."""
        try:
            config, common = self._read_again()
            tokens = read_tokens(config.tokens) if config.tokens else None
            context = tls_context(config)
        except (CallboardError, OSError) as error:
            log.error("not read again, what was read before stays", error=error)
            return
        logs.set_level(common.log_level)
        if tokens is not None:
            self._access.use(tokens)
        if context is not None:
            self._listener.exchange(context)
        log.info("read again", tokens=tokens is not None, certificates=context is not None)

    # --- pages --------------------------------------------------------------------------

    def _pages(self) -> dict[str, Callable[[], web.Response]]:
        described = openapi.document(callboard_version())
        return {
            "/health": self._health,
            "/healthz": lambda: json_page(200, {"status": "alive"}),
            "/readyz": self._readyz,
            "/metrics": lambda: web.Response(
                body=self.metrics.text(), headers={"Content-Type": METRICS_TYPE}
            ),
            "/openapi.json": lambda: json_page(200, described),
        }

    def _health(self) -> web.Response:
        view = self._view
        if not view.loaded:
            status = "unhealthy"
        elif view.current and self._gate.state == CLOSED:
            status = "healthy"
        else:
            status = "degraded"
        document = {
            "status": status,
            "version": callboard_version(),
            "services": len(view.catalog),
            "instances": view.catalog.instance_count,
            "revision": str(view.catalog.revision),
            "store": {"breaker": self._gate.state},
            "guard": {
                "suspects": self._suspects.count,
                "services": self._suspects.services[:MAX_GUARDED],
            },
            "catalog": {
                "loaded": view.loaded,
                "current": view.current,
                "age": round(self._app.age(), 3),
                "error": view.error or None,
            },
        }
        return json_page(503 if status == "unhealthy" else 200, document)

    def _readyz(self) -> web.Response:
        missing = self.missing()
        if missing:
            return json_page(503, {"status": "not ready", "missing": missing})
        return json_page(200, {"status": "ready"})

    async def _metrics_text(self) -> bytes:
        return self.metrics.text()

    def _active_services(self) -> float:
        services = self._view.catalog.services()
        return sum(any(i.in_dns for i in s.instances.values()) for _, s in services)


def build(config: Config, common: Common, read_again: ReadAgain | None = None) -> Service:
    """The registrar of these settings, over Redis."""
    canonical = config.zone[0]
    tokens = read_tokens(config.tokens) if config.tokens else None
    follower = Follower(config.store, canonical, freeze=True)
    service = Service(
        config,
        RedisStore(
            config.store,
            canonical,
            known_revision=lambda: follower.known_revision,
            guard_hold=config.guard_hold,
            wait_replicas=config.wait_replicas,
        ),
        follower,
        follower.run,
        admin=common.admin,
        tokens=tokens,
        read_again=read_again,
    )
    service.metrics.count_repairs(lambda: follower.repaired)
    return service
