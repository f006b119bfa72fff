"""A part as a process: what it says, what it returns, how it ends."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from registry.runtime.config import HostPort

ROOT = Path(__file__).parents[3]
SECONDS = 30.0
"""Bound for a process to start or end on a busy machine."""


class Process:
    """A tiny part that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def said(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            return (await self._process.stdout.readline()).decode().strip()

    async def address(self) -> HostPort:
        """Where its admin side listens, said at its start."""
        word, _, address = (await self.said()).partition(" ")
        assert word == "started"
        return HostPort.parse(address)

    def signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    async def ended(self) -> tuple[int, str, str]:
        """Status, what it said further, and its log."""
        async with asyncio.timeout(SECONDS):
            said, log = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, said.decode(), log.decode()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()


@asynccontextmanager
async def running(*argv: str) -> AsyncIterator[Process]:
    process = Process(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.tiny_part", *argv),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        yield process
    finally:
        process.kill()
        await process.ended()


async def once(*argv: str) -> tuple[int, str, str]:
    """A part that ends by itself."""
    async with running(*argv) as process:
        return await process.ended()


async def test_a_part_drains_and_stops_when_told_to() -> None:
    async with running() as process:
        await process.address()
        process.signal(signal.SIGHUP)
        assert await process.said() == "reloaded"
        process.signal(signal.SIGTERM)

        status, said, log = await process.ended()

    assert (status, said) == (0, "draining\nstopped\n")
    assert "stopping part=dnsd" in log


async def test_a_second_signal_stops_at_once() -> None:
    async with running("--drain", "60") as process:
        await process.address()
        process.signal(signal.SIGTERM)
        assert await process.said() == "draining"
        process.signal(signal.SIGINT)

        status, said, _ = await process.ended()

    assert (status, said) == (1, "")


async def test_a_wrong_configuration_says_everything_and_starts_nothing() -> None:
    status, said, log = await once("--workers", "10", "--dran=1")

    assert (status, said) == (2, "")
    lines = log.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: option --") for line in lines)
    assert "did you mean --drain?" in log


async def test_checking_binds_nothing_and_knows_the_rules_across_fields() -> None:
    assert await once("--check-config") == (0, "", "")
    assert await once("--check-config", "--workers", "9") == (
        2,
        "",
        "error: workers: 9 is one too many\n",
    )


async def test_help_is_no_error() -> None:
    status, said, log = await once("--help")

    assert (status, log) == (0, "")
    assert "--drain" in said


async def test_a_taken_port_is_one_clear_line_and_status_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said, log = await once("--admin", f"127.0.0.1:{port}")

    assert (status, said) == (1, "stopped\n")
    assert f"127.0.0.1:{port} (--admin) is in use" in log
    assert "Traceback" not in log


async def test_health_is_asked_of_the_running_part() -> None:
    async with running() as ready, running("--workers", "0") as unready:
        well, ill = await ready.address(), await unready.address()

        status, said, _ = await once("--health", "--admin", str(well))
        assert (status, said) == (0, '{"status": "ready"}\n')
        status, said, _ = await once("--health", "--admin", str(ill))
        assert (status, "a worker" in said) == (1, True)
    status, _, log = await once("--health", "--admin", str(well))
    assert (status, str(well) in log) == (4, True)
