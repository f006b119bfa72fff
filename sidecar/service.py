"""The sidecar as a process: says what it will register, then keeps it registered."""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from registry.errors import CallboardError
from registry.runtime import logs
from registry.runtime.config import Common, ConfigError
from registry.runtime.logs import Transition
from sidecar.agent import Agent
from sidecar.client import RegistrarClient
from sidecar.config import Settings
from sidecar.probe import Prober
from sidecar.registration import AUTO, Service

if TYPE_CHECKING:
    import ssl

    from registry.runtime.admin import Admin

ADDRESS_RETRY = 2.0
"""Seconds between attempts to find a way to the registrar, for `--host auto`."""

log = logs.get("sidecar")


class Sidecar:
    """Agent and admin side, from settings and services; *prober* None: one of its own."""

    def __init__(
        self,
        settings: Settings,
        common: Common,
        services: Sequence[Service],
        read_again: Callable[[], tuple[Settings, Common]],
        prober: Prober | None = None,
    ) -> None:
        self._read_again = read_again
        self._client = RegistrarClient(settings.registry_url, settings.token, tls=_tls_of(settings))
        self._settings = settings
        self._common = common
        self._services = services
        self._prober = prober or Prober()
        self._agent: Agent | None = None
        self._admin: Admin | None = None
        self._is_stopping = False

    async def start(self) -> None:
        """Begin to probe and to register; does not wait for either."""
        await self.listen()
        await self.keep()

    async def listen(self) -> None:
        """Open the admin side, if there is to be one."""
        if self._common.admin is not None:
            await self._start_admin()

    async def keep(self) -> None:
        """Begin to probe and to register; waits only for a way to the registrar, if one is to
        be found."""
        services = [await self._with_address(service) for service in self._services]
        if self._is_stopping:
            return
        for service, configured in zip(services, self._services, strict=True):
            self._announce(service, found=configured.host == AUTO)
        self._agent = Agent(
            services,
            self._client,
            self._prober,
            interval=self._settings.heartbeat_interval or None,
            lame_duck=self._settings.drain,
        )
        await self._agent.start()

    async def drain(self, *, at_once: bool = False) -> None:
        """Take the services out of DNS, wait for caches (unless *at_once*), deregister."""
        self._is_stopping = True
        if self._agent is not None:
            await self._agent.drain(at_once=at_once)

    async def stop(self) -> None:
        if self._agent is not None:
            await self._agent.stop()
        if self._admin is not None:
            await self._admin.stop()

    def reload(self) -> None:
        """Read token, certificates and log level again; all else takes a restart, which a lease
        outlives."""
        try:
            settings, common = self._read_again()
            tls = _tls_of(settings)
        except ConfigError as error:
            log.error("configuration not read again", problems="; ".join(error.problems))
            return
        except CallboardError as error:
            log.error("configuration not read again", problems=str(error))
            return
        self._client.use_token(settings.token)
        self._client.use_tls(tls)
        logs.set_level(common.log_level)
        log.info("token, certificates and log level read again")

    def missing(self) -> list[str]:
        """What keeps it from being ready."""
        if self._is_stopping:
            return ["stopping"]
        return ["starting"] if self._agent is None else self._agent.missing()

    async def _start_admin(self) -> None:
        # Imported here: prometheus-client, with the ssl that it imports, weighs 10 MB.
        from registry.runtime.admin import Admin
        from sidecar.metrics import Metrics

        metrics = Metrics(lambda: self._agent)
        self._admin = Admin(self._common.admin, self.missing, metrics.text)
        await self._admin.start()
        log.info("admin side listening", address=self._admin.address)

    async def _with_address(self, service: Service) -> Service:
        """*service* with the address found, where it is to be found; waits until there is one."""
        waiting = Transition(log)
        while service.host == AUTO:
            try:
                address = await source_address(self._settings.registry_url)
            except OSError as error:
                waiting.enter("waiting", "no way to the registrar yet", error=str(error))
                await asyncio.sleep(ADDRESS_RETRY)
            else:
                service = dataclasses.replace(service, host=address)
        return service

    def _announce(self, service: Service, *, found: bool) -> None:
        if found:
            because = "this machine reaches the registrar from there"
        elif service.has_address:
            because = "it was given as an address"
        else:
            because = "it was given as a name, which the registrar looks up"
        log.info(
            "will register when healthy" if service.probe != "none" else "will register",
            service=service.name,
            instance=service.id,
            host=service.host,
            because=because,
            ports=",".join(f"{p.name}={p.number}/{p.protocol}" for p in service.ports),
            probe=service.probed,
            registrar=",".join(self._settings.registry_url),
        )


def _tls_of(settings: Settings) -> "ssl.SSLContext | None":
    """What https registrars are spoken to with; None where there are none, or nothing is set."""
    if not (settings.registry_ca or settings.registry_cert):
        return None
    from sidecar.tls import context_of  # only for whoever has files

    return context_of(settings.registry_ca, settings.registry_cert, settings.registry_key)


async def source_address(urls: Sequence[str]) -> str:
    """The address of this machine from which the first of *urls* that can be is reached.

    OSError when there is a way to none.
    """
    for url in urls[:-1]:
        with contextlib.suppress(OSError):
            return await _source_address(url)
    return await _source_address(urls[-1])


async def _source_address(url: str) -> str:
    # Connecting a datagram socket sends nothing: it only asks the routing table.
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probing:
        probing.connect(address)
        return str(probing.getsockname()[0])
