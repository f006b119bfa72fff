"""The gateway as a process of its own, on uvloop, on free ports."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from registry.runtime import http
from registry.runtime.config import HostPort
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


class GatewayProcess:
    """`python -m resolver_gateway` on free ports."""

    def __init__(self, directory: Path, dns: HostPort, *options: str) -> None:
        self.file = directory / "addresses.json"
        self.command = [
            sys.executable, "-m", "resolver_gateway", "--listen", "127.0.0.1:0",
            "--admin", "127.0.0.1:0", "--dns", str(dns), "--address-file", str(self.file), *options,
        ]  # fmt: skip

    async def __aenter__(self) -> "GatewayProcess":
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        await until(self.file.exists, 20)
        self.addresses = json.loads(self.file.read_text())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        _, self.log = await self.process.communicate()

    async def ready(self) -> http.Response:
        return await http.request("GET", self.addresses["admin"] + "/readyz", timeout=5)

    async def get(self, path: str) -> http.Response:
        return await http.request("GET", self.addresses["gateway"] + path, timeout=5)
