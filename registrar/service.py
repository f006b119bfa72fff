"""The registrar as a process has it: built from its settings, started, drained, stopped."""

import asyncio
import json
import os
import random
import secrets
import socket
import tempfile
from collections.abc import Callable, Coroutine
from logging import getLogger
from pathlib import Path
from typing import Any

from aiohttp import web

from registrar import openapi
from registrar.app import SERVER_LOGGER, App, QuietServer, api_routes, json_page
from registrar.batching import Renewals
from registrar.breaker import CLOSED
from registrar.config import PART, Config
from registrar.gate import Gate
from registrar.handlers import Handlers
from registrar.lookups import Lookups, Resolve
from registrar.metrics import Metrics
from registrar.reads import Reads
from registrar.schema import Rules
from registrar.sweeper import Sweeper
from registrar.view import View
from registry.follower import Follower
from registry.leases import LeaseStore
from registry.runtime import logs
from registry.runtime.admin import METRICS_TYPE, Admin
from registry.runtime.config import Common, HostPort
from registry.runtime.lifecycle import binding_error
from registry.runtime.metrics import callboard_version
from registry.store import RedisStore

BACKLOG = 1024
"""Connections that wait to be accepted: all sidecars of a fleet may come back at once."""

IDLE_SECONDS = 75.0
"""That a connection is kept without a request: longer than nginx keeps its own to us (60)."""

LINGER_SECONDS = 2.0
"""That the rest of a refused body is read, so that its sender sees why; aiohttp waits so long even
when the sender has gone."""

FINISH_SECONDS = 5.0
"""For requests under way when the registrar stops."""

AGAIN_SECONDS = 1.0
"""Before work that an unforeseen error ended is begun again."""

log = logs.get("registrar")


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
    ) -> None:
        self._config = config
        self._store = store
        self._view = view
        self._follow = follow
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._address: HostPort | None = None
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
        self._sweeper = Sweeper(store, self._gate, view, metrics.swept)
        handlers = Handlers(
            Rules(config.zone, config.lease_ttl, config.allow_endpoints),
            store,
            self._gate,
            view,
            self._renewals,
            Reads(store, self._gate, view, random.Random()),
            self._lookups,
            metrics,
        )
        self._app = App(api_routes(handlers), self._pages(), view, metrics, config.trusted_proxies)
        self._quiet = QuietServer(metrics.malformed)
        self._admin = Admin(admin, self.missing, self._metrics_text)
        metrics.watch(
            active_services=self._active_services,
            instances=lambda: view.catalog.instance_count,
            revision=lambda: view.catalog.revision,
            age=self._app.age,
            breaker=lambda: self._gate.state,
        )

    @property
    def address(self) -> HostPort:
        """Where it listens; once it does."""
        assert self._address is not None, "not started"
        return self._address

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
            access_log=None,
            auto_decompress=False,  # compressed bodies are refused, so none is unpacked
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
            shutdown_timeout=FINISH_SECONDS,
        )
        await self._runner.setup()
        listener = _listen(self._config.listen)
        await web.SockSite(self._runner, listener, backlog=BACKLOG).start()
        host, port, *_ = listener.getsockname()
        self._address = HostPort(host, port)
        await self._admin.start()
        for work in (
            self._follow,
            self._gate.run,
            self._renewals.run,
            self._sweeper.run,
            self._lookups.run,
        ):
            self._tasks.append(asyncio.ensure_future(self._keep_up(work)))
        if self._config.address_file:
            _write_address(Path(self._config.address_file), self._address)
        log.info("listening", address=self._address, zone=",".join(self._config.zone))
        if not self._config.listen.is_loopback:
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
        """Be unready; what is under way is finished by stop."""
        self._stopping = True

    async def stop(self) -> None:
        """Finish requests, end the tasks, give connections back."""
        self._stopping = True
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
        """Nothing is read again: it has no certificates and no tokens."""

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


def build(config: Config, common: Common) -> Service:
    """The registrar of these settings, over Redis."""
    canonical = config.zone[0]
    follower = Follower(config.redis, canonical)
    return Service(
        config,
        RedisStore(config.redis, canonical),
        follower,
        follower.run,
        admin=common.admin,
    )


def _listen(address: HostPort) -> socket.socket:
    """A listening socket; on [::] it takes IPv4 too.  A clear error names `--listen`."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(
            address,
            family=family,
            backlog=BACKLOG,
            dualstack_ipv6=address.host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise binding_error(error, address, "--listen") from error


def _write_address(path: Path, address: HostPort) -> None:
    """Write it whole or not at all: whoever waits for the file reads it at once."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump({PART: f"http://{address}"}, file)
    os.replace(file.name, path)
