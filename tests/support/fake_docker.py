"""A Docker on a Unix socket that knows nothing but how to inspect containers."""

import asyncio
import json
import shutil
import tempfile
from typing import Any
from urllib.parse import unquote


def running(status: str | None, output: str = "") -> dict[str, Any]:
    """The description of a running container whose HEALTHCHECK says *status* (None: has none)."""
    state: dict[str, Any] = {"Status": "running", "Running": True}
    if status is not None:
        state["Health"] = {"Status": status, "Log": [{"ExitCode": 1, "Output": output}]}
    return {"Id": "f" * 64, "Config": {"Labels": {}}, "State": state}


class FakeDocker:
    """Listens while it is entered; `containers` are its answers by name."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.hangs = False
        self.targets: list[str] = []
        self._directory = tempfile.mkdtemp(prefix="cb-")
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._directory}/docker.sock"

    async def __aenter__(self) -> "FakeDocker":
        path = self.url.removeprefix("unix://")
        self._server = await asyncio.start_unix_server(self._serve, path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        shutil.rmtree(self._directory)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
            self.targets.append(f"{method} {target}")
            if self.hangs:
                await reader.read()
                return
            writer.write(self._answer(target))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, target: str) -> bytes:
        _, containers, name, _ = target.split("/")
        assert containers == "containers"
        found = self.containers.get(unquote(name))
        status = "200 OK" if found is not None else "404 Not Found"
        body = json.dumps(found or {"message": f"No such container: {unquote(name)}"}).encode()
        # In chunks, as Docker does.
        chunks = b"".join(
            b"%x\r\n%s\r\n" % (len(part), part)
            for part in (body[i : i + 1000] for i in range(0, len(body), 1000))
        )
        head = f"HTTP/1.1 {status}\r\nApi-Version: 1.51\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head.encode() + chunks + b"0\r\n\r\n"
