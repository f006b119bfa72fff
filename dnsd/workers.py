"""The supervisor: binds every socket, keeps it, and gives it to a worker and its replacement."""

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dnsd.config import RANDOM_SECRET, Config, warnings
from dnsd.metrics import SUMMED_GAUGES
from dnsd.sockets import addresses_of, bind_all, close_all
from registry.runtime import logs
from registry.runtime.admin import Admin
from registry.runtime.config import Common
from registry.runtime.supervisor import Supervisor, worker_command

log = logs.get("dnsd")


class Workers:
    """dnsd as its operator sees it: one admin side, whatever the number of workers."""

    def __init__(self, config: Config, common: Common, argv: Sequence[str]) -> None:
        self._config = config
        self._common = common
        self._command = worker_command("dnsd", argv)
        self._sockets: list[list[socket.socket]] = []
        self._supervisor: Supervisor | None = None
        self._admin: Admin | None = None

    async def start(self) -> None:
        """Bind everything first: a second dnsd must not get half of this one's queries."""
        self._sockets = bind_all(self._config.listen, self._config.workers)
        if not self._config.cookie_secret:
            # For the workers and their replacements, who know each other's cookies by it.
            os.environ.setdefault(RANDOM_SECRET, secrets.token_hex(16))
        supervisor = self._supervisor = Supervisor(
            "dnsd", self._sockets, self._command, summed_gauges=SUMMED_GAUGES
        )
        self._admin = Admin(self._common.admin, supervisor.missing, supervisor.metrics)
        await self._admin.start()
        await supervisor.start()
        self._announce()

    def _announce(self) -> None:
        assert self._admin is not None
        for warning in warnings(self._config):
            log.warning(warning)
        dns = ",".join(map(str, addresses_of(self._sockets[0])))
        log.info(
            "serving",
            dns=dns,
            admin=self._admin.address,
            zones=",".join(self._config.zone),
            workers=self._config.workers,
        )
        if self._config.address_file:
            admin = "" if self._admin.address is None else str(self._admin.address)
            _write(Path(self._config.address_file), {"dns": dns, "admin": admin})

    async def drain(self) -> None:
        """Let the workers answer what they have."""
        if self._supervisor is not None:
            await self._supervisor.drain()

    async def stop(self) -> None:
        if self._supervisor is not None:
            await self._supervisor.stop()
        if self._admin is not None:
            await self._admin.stop()
        close_all(self._sockets)

    def reload(self) -> None:
        if self._supervisor is not None:
            self._supervisor.reload()


def _write(path: Path, document: dict[str, str]) -> None:
    """Write it whole or not at all: whoever waits for the file reads it at once."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(document, file)
    os.replace(file.name, path)
