"""A primary, its replica, and three Sentinels that watch them, on loopback."""

import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from registry.address import StoreAddress
from registry.runtime.config import HostPort
from registry.runtime.process import die_with
from tests.support.store import START_SECONDS, StoreServer, free_port, store_binary

MASTER = "callboard"
DOWN_AFTER_MS = 1500
"""Until a Sentinel takes the primary for dead; theirs is 30 s unless set, and half a second is too
little on a machine with all its cores taken."""


class Watched:
    """`primary` and `replica` are the servers as they began; `address` leads to whoever is primary.

    With *durable*, what a server acknowledged survives its kill -9.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self.primary = StoreServer(append_only=durable, port=free_port())
        self.replica = StoreServer(append_only=durable, port=free_port())
        self._ports = [free_port() for _ in range(3)]
        self._directory = Path(tempfile.mkdtemp(prefix="cb-"))
        self._sentinels: list[subprocess.Popen[bytes]] = []

    def __repr__(self) -> str:
        return f"<Watched {self.primary!r} {self.replica!r}>"

    @property
    def sentinels(self) -> tuple[HostPort, ...]:
        return tuple(HostPort("127.0.0.1", port) for port in self._ports)

    @property
    def address(self) -> StoreAddress:
        return StoreAddress("redis://127.0.0.1:1/0", self.sentinels, MASTER)

    @property
    def options(self) -> tuple[str, ...]:
        """The same as a part's command line has it."""
        return ("--sentinel", ",".join(map(str, self.sentinels)), "--master", MASTER)

    def __enter__(self) -> "Watched":
        self.primary.start()
        self.replica.start()
        self.replica.command("REPLICAOF", "127.0.0.1", self.primary.port)
        _wait(lambda: self._replicates(), "the replica has no link")
        for port in self._ports:
            self._watch(port)
        _wait(lambda: all(self._sees_all(port) for port in self._ports), "Sentinels do not agree")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._sentinels:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.primary.close()
        self.replica.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def named(self) -> int:
        """The port of whoever most Sentinels name as the primary."""
        ports = [self._ask(p, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER) for p in self._ports]
        found = [int(answer[1]) for answer in ports if answer]
        return max(set(found), key=found.count) if found else 0

    def _replicates(self) -> bool:
        return bool(self.replica.command("INFO", "replication")["master_link_status"] == "up")

    def _watch(self, port: int) -> None:
        file = self._directory / f"{port}.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\nprotected-mode no\ndir {self._directory}\n"
            f"logfile {self._directory}/{port}.log\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {MASTER} 4000\n"
        )
        self._sentinels.append(
            subprocess.Popen(
                [store_binary(), str(file), "--sentinel"],
                stdout=subprocess.DEVNULL,
                preexec_fn=functools.partial(die_with, os.getpid()),
            )
        )

    def _sees_all(self, port: int) -> bool:
        seen = self._ask(port, "SENTINEL", "MASTER", MASTER) or []
        texts = [str(word) for word in seen]
        facts = dict(zip(texts[::2], texts[1::2], strict=False))
        return facts.get("num-slaves") == "1" and facts.get("num-other-sentinels") == "2"

    def _ask(self, port: int, *words: str) -> Any:
        try:
            with redis.Redis(port=port, protocol=2, decode_responses=True) as client:
                answer: Any = client.connection_pool.get_connection()
                try:
                    answer.send_command(*words)
                    return answer.read_response()
                finally:
                    answer.disconnect()
        except redis.RedisError:
            return None


def _wait(ready: Any, what: str) -> None:
    end = time.monotonic() + START_SECONDS
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.05)
