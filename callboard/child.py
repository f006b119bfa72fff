"""One child process: started so that it cannot outlive us, its lines passed on, stopped in time."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

from callboard.output import BOLD, Style
from registry.runtime.process import die_with

MAX_LINE: Final = 8192
"""Octets of one line that are passed on; the rest of a longer one is dropped."""

READ_OUT_SECONDS: Final = 1.0
"""How long the last lines of an ended child may take: somebody else may hold its pipes."""

PREFIX_WIDTH: Final = 9
"""As wide as the longest name of a part."""

_COLOURS: Final = {
    "store": "33",
    "registrar": "32",
    "dnsd": "36",
    "gateway": "35",
    "sidecar": "34",
    "demo": "90",
}

LineFilter = Callable[[str], bool]


class Console:
    """The one stderr that we and all children write to, each line under its writer's name."""

    def __init__(self, stream: TextIO, style: Style) -> None:
        self._stream = stream
        self._style = style

    def say(self, text: str) -> None:
        """A line of our own."""
        self.pass_on("up", text)

    def pass_on(self, name: str, line: str) -> None:
        """A line of the child *name*."""
        prefix = self._style.paint(f"{name:{PREFIX_WIDTH}} |", _COLOURS.get(name, BOLD))
        # A reader of ours that is gone is no reason to leave the parts without supervision.
        with contextlib.suppress(OSError):
            self._stream.write(f"{prefix} {line}\n")
            self._stream.flush()


class Child:
    """A process that was started, until it has ended."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._readers: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls,
        name: str,
        argv: Sequence[str],
        console: Console,
        *,
        environ: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        keeps: LineFilter = lambda line: True,
        first_line: "asyncio.Future[str] | None" = None,
    ) -> "Child":
        """Start *argv*; OSError when it cannot be run.

        It has a session of its own, so that Ctrl-C on a terminal reaches only us and we decide
        in which order to stop, and on Linux it ends when we do, however that comes about.
        Lines of its output are passed on if *keeps* says so; *first_line* gets the first of
        stdout instead.
        """
        us = os.getpid()
        # Pipes of ours and not asyncio's: with those, some Pythons (3.11, 3.12 until 3.12.3) see
        # the end of a process only when everybody who inherited its pipes has ended too.
        out, err = _Pipe(), _Pipe()
        with out, err:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=dict(environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out.write_end,
                stderr=err.write_end,
                start_new_session=True,
                pass_fds=pass_fds,
                preexec_fn=lambda: die_with(us),
            )
            child = cls(name, process)

            def pass_on(line: str) -> None:
                if keeps(line):
                    console.pass_on(name, line)

            def take(line: str) -> None:
                if first_line is None or first_line.done():
                    pass_on(line)
                else:
                    first_line.set_result(line)

            child._readers = [out.follow(take), err.follow(pass_on)]
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def pids(self) -> list[int]:
        """Its own pid, then those of its children, eldest first; empty once it has ended."""
        return [self.pid, *children_of(self.pid)] if self.running else []

    async def wait(self) -> int:
        """Its exit status, negative for a signal, once it has ended and all it wrote is read."""
        status = await self._process.wait()
        # What it left behind in its session (workers of a killed supervisor) goes with it;
        # only then do the pipes reach their end.
        self._signal_group(signal.SIGKILL)
        _, late = await asyncio.wait(self._readers, timeout=READ_OUT_SECONDS)
        for reader in late:
            reader.cancel()
        return status

    async def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL when *seconds* were not enough."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._process.wait())
        except TimeoutError:
            self.kill()
        await self.wait()

    def signal(self, signum: int) -> None:
        """Send a signal to the process itself; nothing happens when it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signum)

    def kill(self) -> None:
        """End it and everything in its session, at once."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)


class _Pipe:
    """A pipe: its write end for a child, its read end for us.  Leaving it closes the former."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._followed = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        os.close(self.write_end)
        if not self._followed:
            os.close(self._read_end)

    def follow(self, take: Callable[[str], None]) -> "asyncio.Task[None]":
        """Give every line to *take*, until the pipe's end."""
        self._followed = True
        return asyncio.create_task(_lines(self._read_end, take))


async def _lines(fd: int, take: Callable[[str], None]) -> None:
    """Give every line read from *fd* to *take*, the last one also when it has no newline."""
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(fd, "rb", buffering=0)
    )
    rest = b""
    try:
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[:MAX_LINE]
            for line in lines:
                take(_text(line))
        if rest:
            take(_text(rest))
    finally:
        transport.close()


def _text(line: bytes) -> str:
    return line[:MAX_LINE].decode(errors="replace").rstrip("\r")


def children_of(pid: int) -> list[int]:
    """The children of a process, as the kernel lists them; empty where there is no /proc."""
    found: list[int] = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*/children")):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found
