"""The registrar as a process over a store, for tests that kill, stop and cut it off."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from registry.runtime import http
from tests.support.sidecar import environment

START_SECONDS = 30.0
"""Bound of a start: a machine with all its cores taken is slow to import."""


class RegistrarProcess:
    """One `python -m registrar`; started again, it listens on the same port."""

    def __init__(self, store_url: str, zone: str) -> None:
        self._store_url = store_url
        self._zone = zone
        self._directory = tempfile.TemporaryDirectory(prefix="cb-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __repr__(self) -> str:
        return f"<RegistrarProcess {self.url}>"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (Path(self._directory.name) / "log").read_text()

    def start(self) -> None:
        """Returns once it listens."""
        told = Path(self._directory.name) / "address"
        told.unlink(missing_ok=True)
        with open(f"{self._directory.name}/log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "registrar", "--listen", f"127.0.0.1:{self.port}"),
                    *("--redis", self._store_url, "--zone", self._zone),
                    *("--allow-endpoints", "127.0.0.0/8", "--address-file", str(told)),
                ],
                env=environment(),
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_SECONDS
        while not told.exists():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.01)
        self.port = int(json.loads(told.read_text())["registrar"].rpartition(":")[2])

    def signal(self, signum: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signum)

    def kill(self) -> None:
        """kill -9, whatever it does at the moment."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.kill()
        self._directory.cleanup()

    async def instances(self, service: str) -> list[dict[str, Any]]:
        """What it lists of *service*; nothing while it does not know it or does not answer."""
        try:
            answer = await http.request("GET", f"{self.url}/services/{service}", timeout=5.0)
        except (OSError, TimeoutError, ValueError):
            return []
        if answer.status != 200:
            return []
        found: list[dict[str, Any]] = answer.json()["instances"]
        return found

    async def states(self, service: str) -> list[str]:
        return [instance["state"] for instance in await self.instances(service)]

    async def call(self, method: str, path: str, document: Any = None) -> http.Response:
        """One request as any client would make it."""
        body = None if document is None else json.dumps(document).encode()
        headers = {"content-type": "application/json"}
        return await http.request(method, self.url + path, body=body, headers=headers, timeout=10.0)


class TcpRelay:
    """Stands before a registrar.  Cut, it takes connections and passes nothing on: a partition."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> "TcpRelay":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        """What was held back goes on its way, late."""
        self._open.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, far_writer))
                group.create_task(self._copy(far_reader, writer))
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass
        finally:
            self._links.discard(link)
            for end in (writer, far_writer):
                if end is not None:
                    end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        await self._open.wait()
        raise ConnectionResetError("one end closed: so does the other")
