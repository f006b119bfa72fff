"""The gateway as a process: built from its settings, started, drained, stopped.

With one worker this process serves; with more it supervises processes that run this same module,
each with its own socket on the same port (SO_REUSEPORT).
"""

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import Mapping, Sequence

from registry.runtime import admin, config, logs, metrics, supervisor
from registry.runtime.config import Common, HostPort
from registry.runtime.lifecycle import binding_error
from resolver_gateway.config import ADMIN, Config, problems
from resolver_gateway.metrics import SUMMED_GAUGES
from resolver_gateway.worker import BACKLOG, Worker

log = logs.get("gateway")


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
            self._worker = self._new_worker(self._sockets[0])
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
            scheme = "https" if self._settings.tls_cert else "http"
            write_addresses(self._settings.address_file, scheme, self.address, self._admin.address)

    def _new_worker(self, sock: socket.socket) -> Worker:
        return Worker(self._settings, sock, self._environ, self._read_again)

    async def _start_worker(self, link: supervisor.WorkerLink) -> None:
        self._sockets = link.sockets
        self._worker = self._new_worker(link.sockets[0])
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
        """Read routes, certificates, token and log level again, in every worker."""
        if self._supervisor is not None:
            self._supervisor.reload()
        if self._worker is not None:
            self._worker.reload()

    def _read_again(self) -> tuple[Config, Common]:
        return config.load(
            Config, "gateway", self._argv, self._environ, admin=ADMIN, problems=problems
        )


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


def write_addresses(
    path: str, scheme: str, address: HostPort, admin_address: HostPort | None
) -> None:
    """Say where we listen, at one stroke: whoever reads the file reads all of it."""
    document = {
        "gateway": f"{scheme}://{address}",
        "admin": None if admin_address is None else f"http://{admin_address}",
    }
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(document, file)
    os.replace(f"{path}.new", path)
