"""The processes that are broken: a store (or two under Sentinels), registrars, and dnsd."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.relay import Relay
from tests.support.sentinels import Watched
from tests.support.store import StoreServer

ZONE = "svc.internal."

START_SECONDS = 60.0
"""Bound of a start on a machine with all its cores taken."""


class Part:
    """One `python -m MODULE`; started again, it listens on the same port."""

    def __init__(
        self,
        module: str,
        place: Path,
        options: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.module = module
        self._place = place
        self._options = options
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __repr__(self) -> str:
        return f"<Part {self.module} at port {self.port}>"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.module} does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it said so far."""
        return Path(f"{self._place}.log").read_text(errors="replace")

    def start(self) -> None:
        """Returns once it listens."""
        told = Path(f"{self._place}.json")
        told.unlink(missing_ok=True)
        with open(f"{self._place}.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", self.module, "--listen", f"127.0.0.1:{self.port}"),
                    *("--zone", ZONE, "--address-file", str(told), *self._options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        end = time.monotonic() + START_SECONDS
        while not told.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.module} did not start:\n{self.log}")
            time.sleep(0.02)
        (address, *_) = _texts_in(json.loads(told.read_text()))
        self.port = int(address.rpartition(":")[2])

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill(self) -> None:
        """kill -9, stopped or not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _texts_in(document: Any) -> list[str]:
    """Every text in an address file, which has one of a part's own shape."""
    match document:
        case str():
            return [document]
        case dict():
            return [text for value in document.values() for text in _texts_in(value)]
        case list():
            return [text for value in document for text in _texts_in(value)]
    return []


class World:
    """*registrars* of them and one dnsd over one store, which a relay leads to; or over Sentinels.

    The relay stands before the registrars alone, so that they can be cut off from their store.  It
    runs in this process: where speed is measured they are not *relayed*.
    """

    def __init__(
        self,
        *,
        lease: int,
        registrars: int = 2,
        sentinels: bool = False,
        append_only: bool = True,
        fsync: str = "always",
        place: str | None = None,
        relayed: bool = True,
        options: Sequence[str] = (),
        environments: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.lease = lease
        self._place = Path(tempfile.mkdtemp(prefix="cb-chaos-"))
        self.watched = Watched(durable=append_only) if sentinels else None
        self.store = (
            self.watched.primary
            if self.watched
            else StoreServer(append_only=append_only, fsync=fsync, place=place)
        )
        self.relay = Relay(self.store.socket_path)
        self._relayed = relayed
        self._options = options
        self._environments = [*environments, *([{}] * registrars)][:registrars]
        self.registrars: list[Part] = []
        self.dnsd = Part("dnsd", self._place / "dnsd", ())

    def __repr__(self) -> str:
        return f"<World of {len(self.registrars)} registrars over {self.store!r}>"

    async def __aenter__(self) -> "World":
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _start(self) -> None:
        await self.relay.__aenter__()
        if self.watched:
            await asyncio.to_thread(self.watched.__enter__)
            near = far = self.watched.options
        else:
            await asyncio.to_thread(self.store.start)
            far = ("--redis", self.store.url)
            near = ("--redis", self.relay.url) if self._relayed else far
        common = ("--lease-ttl", str(self.lease), *self._options)
        self.registrars = [
            Part("registrar", self._place / f"registrar{n}", (*near, *common), environment)
            for n, environment in enumerate(self._environments)
        ]
        self.dnsd = Part("dnsd", self._place / "dnsd", (*far, "--admin", "127.0.0.1:0"))
        await asyncio.gather(
            *(asyncio.to_thread(part.start) for part in (*self.registrars, self.dnsd))
        )

    async def _end(self) -> None:
        for part in (*self.registrars, self.dnsd):
            part.kill()
        await self.relay.__aexit__()
        if self.watched:
            await asyncio.to_thread(self.watched.__exit__, None, None, None)
        else:
            await asyncio.to_thread(self.store.close)
        shutil.rmtree(self._place, ignore_errors=True)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{registrar.port}" for registrar in self.registrars]

    def kill_registrars(self) -> None:
        for registrar in self.registrars:
            registrar.kill()

    async def start_registrars(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(registrar.start) for registrar in self.registrars))

    def signal_registrars(self, signum: int) -> None:
        for registrar in self.registrars:
            registrar.signal(signum)


STOP, CONTINUE = signal.SIGSTOP, signal.SIGCONT
