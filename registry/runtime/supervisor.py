"""A part of several workers: who owns their sockets, replaces them, and speaks for them.

The supervisor binds before anything else and keeps every socket, so that what
waits in one is not lost with the worker that read it.  A worker is a process of
its own that inherits its sockets; it dies with the supervisor.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from registry.runtime import logs, metrics
from registry.runtime.process import die_with

ENVIRONMENT = "CALLBOARD_WORKER"
"""`<index>:<control fd>:<fd>,<fd>…`: tells a process that it is a worker."""

REPLACE_INTERVAL = 1.0
"""Seconds between two starts of one worker; the first replacement comes at once."""

SUCCESSION_TIMEOUT = 30.0
"""Seconds that a successor has to become ready; after that its predecessor stays."""

ANSWER_TIMEOUT = 1.0
"""Seconds a worker has to report; it counts as missing after that."""

MAX_LINE = 1 << 22
"""Octets of one report: some hundred metrics with their labels."""

log = logs.get("supervisor")


@dataclass(slots=True)
class _Worker:
    index: int
    sockets: Sequence[socket.socket]
    process: asyncio.subprocess.Process | None = None
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    owed: int = 0
    """Reports asked for and not read: one that comes late is no answer to the next question."""
    last: list[metrics.Family] = field(default_factory=list)
    missing: list[str] = field(default_factory=lambda: ["not started"])
    leaving: bool = False
    """Whether another one has its place: it is not started again."""


class Supervisor:
    """Runs *command* once for each item of *sockets*, for ever."""

    def __init__(
        self,
        part: str,
        sockets: Sequence[Sequence[socket.socket]],
        command: Sequence[str],
        *,
        summed_gauges: frozenset[str] = frozenset(),
    ) -> None:
        self._part = part
        self._command = list(command)
        self._summed = summed_gauges
        self._workers = [_Worker(i, own) for i, own in enumerate(sockets)]
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._renewing = asyncio.Lock()
        self._retired: list[metrics.Family] = []
        self._collected = metrics.Exported()
        self._registry = CollectorRegistry()
        self._registry.register(self._collected)
        self._workers_gauge = Gauge(
            "callboard_workers", "Workers that run now.", ["part"], registry=self._registry
        )

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [w.process.pid for w in self._workers if w.process is not None]

    async def start(self) -> None:
        """Start every worker; they report readiness through `missing()`."""
        self._tasks = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        self._tasks.append(asyncio.create_task(self._watch()))

    async def drain(self) -> None:
        """Tell the workers to stop (they drain first) and wait for them."""
        self._stopping = True
        self._signal(signal.SIGTERM)
        await asyncio.gather(*(w.process.wait() for w in self._workers if w.process is not None))

    async def stop(self) -> None:
        """End whatever still runs."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._signal(signal.SIGKILL)
        for worker in self._workers:
            if worker.process is not None:
                await worker.process.wait()
                self._bury(worker)

    def reload(self) -> None:
        """Pass SIGHUP on."""
        self._signal(signal.SIGHUP)

    async def renew(self) -> None:
        """Put a new process in the place of each worker, one after the other.

        Both serve the same sockets until the new one is ready; then the old one is told to stop,
        and ends what it has begun.  So nobody who waits in a socket, and no request, is lost.
        """
        async with self._renewing:
            for worker in [w for w in self._workers if not w.leaving]:
                if not self._stopping:
                    await self._succeed(worker)

    async def _succeed(self, worker: _Worker) -> None:
        successor = _Worker(worker.index, worker.sockets)
        self._workers.append(successor)
        self._tasks.append(asyncio.create_task(self._keep(successor)))
        leaving = worker
        try:
            async with asyncio.timeout(SUCCESSION_TIMEOUT):
                while successor.missing:  # noqa: ASYNC110 - `_watch` asks, nothing tells
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.error(
                "worker stays", part=self._part, worker=worker.index, missing=successor.missing
            )
            leaving = successor
        leaving.leaving = True
        self._signal(signal.SIGTERM, [leaving])

    def missing(self) -> list[str]:
        """What keeps the part from being ready: ready is one that has a ready worker."""
        if any(not w.missing for w in self._workers):
            return []
        return sorted({text for w in self._workers for text in w.missing})

    async def metrics(self) -> bytes:
        """The metrics of all workers as those of one part, those of dead ones included."""
        await asyncio.gather(*(self._ask(w) for w in self._workers))
        exports = [self._retired, *(w.last for w in self._workers)]
        self._collected.families = metrics.merged(exports, self._summed)
        self._workers_gauge.labels(self._part).set(len(self.pids))
        return metrics.text_of(self._registry)

    def _signal(self, signum: int, workers: Sequence[_Worker] | None = None) -> None:
        for worker in self._workers if workers is None else workers:
            if worker.process is not None and worker.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.send_signal(signum)

    async def _keep(self, worker: _Worker) -> None:
        """Start *worker*, and start it again whenever it ends."""
        loop = asyncio.get_running_loop()
        while not self._stopping and not worker.leaving:
            began = loop.time()
            try:
                process = await self._spawn(worker)
                if worker.leaving:  # its time was over while it was being started
                    self._signal(signal.SIGTERM, [worker])
                status: int | str = await process.wait()
            except OSError as error:  # no memory, process or descriptor left: it may pass
                status = f"not started: {error}"
            self._bury(worker)
            if self._stopping or worker.leaving:
                break
            log.error("worker ended", part=self._part, worker=worker.index, status=status)
            lived = loop.time() - began
            await asyncio.sleep(0 if lived > REPLACE_INTERVAL else REPLACE_INTERVAL - lived)
        if worker.leaving:
            log.info("worker left", part=self._part, worker=worker.index)
            self._workers.remove(worker)

    async def _spawn(self, worker: _Worker) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        fds = [s.fileno() for s in worker.sockets]
        environment = dict(os.environ)
        environment[ENVIRONMENT] = f"{worker.index}:{theirs.fileno()}:{','.join(map(str, fds))}"
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command, env=environment, pass_fds=[theirs.fileno(), *fds]
                )
        except BaseException:
            ours.close()
            raise
        worker.process = process
        ours.setblocking(False)
        worker.reader, worker.writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE)
        log.info("worker started", part=self._part, worker=worker.index, pid=process.pid)
        return process

    def _bury(self, worker: _Worker) -> None:
        """Keep what a dead worker counted, forget the rest."""
        counted = metrics.only_counts(worker.last)
        self._retired = metrics.merged([self._retired, counted], self._summed)
        worker.last = []
        worker.missing = ["worker is being replaced"]
        worker.process = None
        if worker.writer is not None:
            worker.writer.close()
        worker.reader = worker.writer = None
        worker.owed = 0

    async def _watch(self) -> None:
        """Ask every worker about its readiness, often while one is not ready, else each second."""
        while True:
            await asyncio.gather(*(self._ask(w) for w in self._workers))
            await asyncio.sleep(1.0 if not any(w.missing for w in self._workers) else 0.05)

    async def _ask(self, worker: _Worker) -> None:
        """Fetch a worker's report; one that does not answer is missing."""
        async with worker.lock:
            reader, writer = worker.reader, worker.writer
            if reader is None or writer is None:
                return
            report: dict[str, Any] = {"missing": ["worker does not answer"]}
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    writer.write(b"report\n")
                    worker.owed += 1
                    while worker.owed:
                        line = await reader.readline()
                        worker.owed -= 1
                    report = json.loads(line)
            if worker.reader is not reader:
                return  # it died meanwhile, and what it counted is kept already
            worker.missing = list(report["missing"])
            worker.last = list(report.get("metrics", worker.last))


def worker_command(module: str, argv: Sequence[str]) -> list[str]:
    """The command of a worker: this interpreter, the same module, the same options."""
    return [sys.executable, "-m", module, *argv]


class WorkerLink:
    """A worker's end: the sockets it was given, and the questions it answers."""

    def __init__(self, index: int, control: socket.socket, sockets: list[socket.socket]) -> None:
        self.index = index
        self.sockets = sockets
        self._control = control

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "WorkerLink | None":
        """The link of this process; None when it is not a worker."""
        told = environ.get(ENVIRONMENT)
        if told is None:
            return None
        die_with(os.getppid())
        index, control, fds = told.split(":")
        return cls(
            int(index),
            socket.socket(fileno=int(control)),
            [socket.socket(fileno=int(fd)) for fd in fds.split(",") if fd],
        )

    async def serve(self, missing: Callable[[], list[str]], registry: CollectorRegistry) -> None:
        """Answer the supervisor until it is gone."""
        self._control.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=self._control)
        try:
            while await reader.readline():
                report: dict[str, Any] = {
                    "missing": missing(),
                    "metrics": metrics.export(registry),
                }
                writer.write(json.dumps(report).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass  # the supervisor is gone; the kernel ends us too
        finally:
            writer.close()
