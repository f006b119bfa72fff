"""The sidecar as a process, for tests that look at it from outside."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]

DEAF = ("CALLBOARD_", "SERVICE_", "REGISTRY_", "DOCKER_")
"""Beginnings of variables that would speak to the sidecar under test."""


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what a sidecar reads, and *more*."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(DEAF)}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


class SidecarProcess:
    """A running `python -m sidecar`; `log` is what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log = ""
        self._reading = asyncio.create_task(self._read())

    def __repr__(self) -> str:
        return f"<SidecarProcess {self.process.pid} {self.process.returncode}>"

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.log += line.decode()

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    async def ended(self, seconds: float = 20.0) -> int:
        """Its exit status, once it has ended."""
        async with asyncio.timeout(seconds):
            status = await self.process.wait()
            await self._reading
            return status

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
        # A command that outlives it may hold its stderr open.
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@asynccontextmanager
async def a_sidecar(*options: str, **environ: str) -> AsyncIterator[SidecarProcess]:
    """A sidecar with these options and variables; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sidecar",
        *options,
        env=environment(**environ),
        stderr=asyncio.subprocess.PIPE,
    )
    sidecar = SidecarProcess(process)
    try:
        yield sidecar
    finally:
        await sidecar.close()
