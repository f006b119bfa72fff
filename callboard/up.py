"""`up`: every part of Callboard on one machine, started in order, watched, and stopped in order."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from callboard import demo, dns_probe, guide, machine, parts, plan
from callboard.child import Child, Console
from callboard.failure import FAILED, INTERRUPTED, WRONG_USAGE, Failure
from callboard.output import style_of
from callboard.plan import Options, Place
from callboard.store_process import DataDir, StoreProcess, require_server
from registry.runtime import http
from registry.runtime.config import HostPort

POLL_INTERVAL: Final = 0.02
"""Seconds between two looks at something that is about to be ready."""

WATCH_INTERVAL: Final = 0.2
"""Seconds between two looks at which processes the parts consist of."""

RESTART_INTERVAL: Final = 1.0
"""Seconds between two starts of the same part; the first restart comes at once."""

ASK_TIMEOUT: Final = 2.0
"""Seconds for one question about readiness."""

STOP_SECONDS: Final = {
    "sidecar": 2.5,
    "demo": 0.5,
    "gateway": 1.5,
    "dnsd": 1.5,
    "registrar": 1.5,
    "store": 1.5,
}
"""Seconds until what did not stop is killed, in the order of stopping; 9 in all, so that the
promised 10 hold."""


@dataclass(slots=True)
class Part:
    """One part: how it is started, where it turned out to be, and whether it is ready."""

    name: str
    module: str
    place: Place
    arguments: Callable[[Place], list[str]]
    address_file: Path
    child: Child | None = None
    missing: str = "to be started"
    """What it waits for; empty while it is ready."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it was ready, and from then on."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once `place` is final."""


class Up:
    """The parts of one `callboard up`, from the first start to the last stop."""

    def __init__(
        self, options: Options, console: Console, environ: Mapping[str, str], run_dir: Path
    ) -> None:
        self._options = options
        self._console = console
        self._environ = dict(environ)
        self._run_dir = run_dir
        self._began = time.monotonic()
        self._data = DataDir(options.data_dir)
        self._store: StoreProcess | None = None
        self._store_child: Child | None = None
        self._parts: dict[str, Part] = {}
        self._demo: list[demo.Running] = []
        self._extras: list[Child] = []
        self._waiting_for = "the store"
        self._written: dict[str, Any] = {}

    # --- the story --------------------------------------------------------------------------

    async def run(self) -> int:
        """Start, serve until a signal comes, stop; returns the exit status."""
        stopping = self._listen_to_signals()
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            self._console.say("stopping")
        finally:
            stop.cancel()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await self._stop_all()
        self._console.say("stopped")
        return 0

    def _listen_to_signals(self) -> asyncio.Event:
        stopping = asyncio.Event()

        def stop() -> None:
            if stopping.is_set():
                self._stop_at_once()
            stopping.set()

        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop)
        # A terminal that is closed sends SIGHUP; nohup says that it does not matter.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, stop)
        return stopping

    async def _work(self) -> None:
        """Start everything and keep it running; a Failure when something does not start."""
        try:
            async with asyncio.TaskGroup() as tasks:
                progress = tasks.create_task(self._say_what_is_awaited())
                redis = await self._start_store(tasks)
                self._environ = parts.environment(plan.part_environment(self._environ, redis))
                self._plan_parts()
                for part in self._parts.values():
                    tasks.create_task(self._keep(part))
                services = tasks.create_task(self._start_demo_services(tasks))
                for part in self._parts.values():
                    await part.ready.wait()
                await services
                await self._start_sidecars(tasks)
                progress.cancel()
                self._write_ready_file()
                self._print_guide()
                tasks.create_task(self._watch_processes())
        except* Failure as failures:
            raise _first(failures.exceptions) from None

    # --- the store --------------------------------------------------------------------------

    async def _start_store(self, tasks: asyncio.TaskGroup) -> str:
        """The URL of the store; the embedded one answers by then."""
        if self._options.redis:
            return self._options.redis
        server = require_server()
        self._data.take()
        self._store = StoreProcess(server, self._data, self._run_dir, self._console)
        child = await self._begin_store(self._store)
        tasks.create_task(self._keep_store(self._store, child))
        return self._store.url

    async def _begin_store(self, store: StoreProcess) -> Child:
        self._store_child = child = await store.start(self._environ)
        await store.answers(child)
        return child

    async def _keep_store(self, store: StoreProcess, child: Child) -> None:
        pause = _Pause()
        while True:
            status = await child.wait()
            self._console.say(f"store ended ({_how(status)}); starting it again on {store.socket}")
            await pause.take()
            child = await self._begin_store(store)

    # --- the parts --------------------------------------------------------------------------

    def _plan_parts(self) -> None:
        options = self._options
        places = plan.wishes(options)
        named = {"CALLBOARD_NS", "CALLBOARD_DNSD_NS"} & self._environ.keys()
        own_address = "" if named else machine.address_of_this_machine()
        makers: dict[str, Callable[[Place], list[str]]] = {
            "registrar": lambda place: plan.registrar_arguments(options, place),
            "dnsd": lambda place: plan.dnsd_arguments(options, place, own_address),
            "gateway": lambda place: plan.gateway_arguments(
                options, place, self._parts["dnsd"].place.listen
            ),
        }
        for name, place in places.items():
            self._parts[name] = Part(
                name=name,
                module=parts.MODULES[name],
                place=machine.with_free_admin(place),
                arguments=makers[name],
                address_file=self._run_dir / f"{name}.json",
            )
            if place.listen.port:
                self._parts[name].known.set()

    async def _keep(self, part: Part) -> None:
        """Start *part*, and again whenever it ends; a Failure when it never came to be ready."""
        if part.name == "gateway":
            await self._parts["dnsd"].known.wait()
        pause = _Pause()
        while True:
            child = await self._begin(part)
            getting_ready = asyncio.create_task(self._until_ready(part, child))
            try:
                status = await child.wait()
            finally:
                getting_ready.cancel()
                await asyncio.gather(getting_ready, return_exceptions=True)
            if not part.ready.is_set():
                raise Failure(
                    f"{part.name} ended while starting ({_how(status)}); its reason stands above",
                    status=status if status == WRONG_USAGE else FAILED,
                )
            part.missing = "to be started again"
            self._console.say(
                f"{part.name} ended ({_how(status)}); starting it again on {part.place.listen}"
            )
            await pause.take()

    async def _begin(self, part: Part) -> Child:
        part.address_file.unlink(missing_ok=True)
        arguments = [*part.arguments(part.place), "--address-file", str(part.address_file)]
        part.child = await Child.start(
            part.name,
            parts.command(part.module, arguments),
            self._console,
            environ=self._environ,
        )
        return part.child

    async def _until_ready(self, part: Part, child: Child) -> None:
        """Learn where *child* listens, then wait until it says that it is ready."""
        part.missing = "to listen"
        found = await _addresses_in(part.address_file)
        part.place = _place_of(part, found)
        part.known.set()
        base = f"http://{plan.reachable(part.place.admin or part.place.listen)}"
        while reason := await _not_ready(base):
            part.missing = reason
            await asyncio.sleep(POLL_INTERVAL)
        part.missing = ""
        part.ready.set()

    # --- the demo ---------------------------------------------------------------------------

    async def _start_demo_services(self, tasks: asyncio.TaskGroup) -> None:
        if not self._options.demo:
            return
        line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        child = await Child.start(
            "demo",
            parts.command("callboard.demo_services", []),
            self._console,
            environ=self._environ,
            first_line=line,
        )
        self._extras.append(child)
        ended = tasks.create_task(self._mourn(child))
        either: set[asyncio.Future[Any]] = {line, ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not line.done():
            raise Failure("the demo's services ended while starting; their reason stands above")
        self._demo = demo.understand(line.result())

    async def _start_sidecars(self, tasks: asyncio.TaskGroup) -> None:
        """Start them, and wait until every demo service is answered in DNS."""
        if not self._demo:
            return
        environ = plan.sidecar_environment(self._environ, self._url("registrar"))
        file = self._run_dir / "sidecar.toml"
        file.write_text(demo.sidecar_file(demo.shared(self._demo)))
        await self._start_sidecar(tasks, environ, ["--config", str(file)])
        for running in demo.starred(self._demo):
            await self._start_sidecar(tasks, {**environ, **demo.sidecar_environment(running)}, [])
        wanted = {r.service.name for r in self._demo}
        while wanted:
            self._waiting_for = f"{len(wanted)} demo services to be in DNS"
            wanted -= {name for name in wanted if await self._is_in_dns(name)}
            await asyncio.sleep(POLL_INTERVAL)

    async def _start_sidecar(
        self, tasks: asyncio.TaskGroup, environ: Mapping[str, str], arguments: list[str]
    ) -> None:
        argv = parts.command(parts.MODULES["sidecar"], [*arguments, "--no-drain"])
        child = await Child.start("sidecar", argv, self._console, environ=environ)
        self._extras.append(child)
        tasks.create_task(self._mourn(child))

    async def _mourn(self, child: Child) -> None:
        status = await child.wait()
        self._console.say(f"{child.name} (pid {child.pid}) ended ({_how(status)}); it stays dead")

    async def _is_in_dns(self, service: str) -> bool:
        """Whether each of its addresses is answered."""
        addresses = {r.host for r in self._demo if r.service.name == service}
        server = plan.reachable(self._parts["dnsd"].place.listen)
        return await dns_probe.count(server, service, self._options.zones[0]) >= len(addresses)

    # --- what others see --------------------------------------------------------------------

    async def _say_what_is_awaited(self) -> None:
        """A line each second, from the first on."""
        while True:
            await asyncio.sleep(1.0)
            late = [f"{p.name} ({p.missing})" for p in self._parts.values() if p.missing]
            waited = time.monotonic() - self._began
            self._console.say(f"{waited:.0f} s: waiting for {', '.join(late) or self._waiting_for}")

    async def _watch_processes(self) -> None:
        """Write the ready file anew whenever the parts, all ready, are other processes."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            if not any(part.missing for part in self._parts.values()):
                self._write_ready_file()

    def _write_ready_file(self) -> None:
        document = self._document()
        file = self._options.ready_file
        if file is None or document == self._written:
            return
        try:
            machine.write_at_one_stroke(file, json.dumps(document) + "\n")
        except OSError as error:
            self._console.say(f"error: {file} (--ready-file): {error.strerror}")
        self._written = document

    def _document(self) -> dict[str, Any]:
        document = {
            "zone": self._options.zones[0],
            "dns": str(plan.reachable(self._parts["dnsd"].place.listen)),
            "registrar": self._url("registrar"),
            "gateway": self._url("gateway"),
            "redis": self._redis(),
            "pids": {
                **{name: _pids(part.child) for name, part in sorted(self._parts.items())},
                "redis": _pids(self._store_child)[:1],
                "sidecar": [c.pid for c in self._extras if c.name == "sidecar" and c.running],
            },
        }
        return document | ({"demo": [r.as_document() for r in self._demo]} if self._demo else {})

    def _redis(self) -> str:
        return self._store.url if self._store else plan.without_password(self._options.redis)

    def _url(self, name: str) -> str:
        return f"http://{plan.reachable(self._parts[name].place.listen)}"

    def _print_guide(self) -> None:
        scene = guide.Scene(
            seconds=time.monotonic() - self._began,
            zone=self._options.zones[0],
            dns=plan.reachable(self._parts["dnsd"].place.listen),
            registrar=self._url("registrar"),
            gateway=self._url("gateway"),
            store=str(self._options.data_dir) if self._store is not None else self._redis(),
            command=guide.command_name(sys.argv, sys.executable, Path.cwd(), os.environ),
            demo_pid=self._demo[-1].pid if self._demo else None,
            platform=sys.platform,
        )
        with contextlib.suppress(OSError):
            sys.stdout.write(guide.guide(scene))
            sys.stdout.flush()

    # --- the end ----------------------------------------------------------------------------

    async def _stop_all(self) -> None:
        """Stop what runs: who registers first, the store last."""
        if self._options.ready_file is not None and self._written:
            self._options.ready_file.unlink(missing_ok=True)
        for name, seconds in STOP_SECONDS.items():
            await asyncio.gather(*(c.stop(seconds) for c in self._children() if c.name == name))
        self._data.release()

    def _stop_at_once(self) -> None:
        for child in self._children():
            child.kill()
        shutil.rmtree(self._run_dir, ignore_errors=True)
        os._exit(INTERRUPTED)

    def _children(self) -> list[Child]:
        own = [self._store_child, *(p.child for p in self._parts.values())]
        return [*self._extras, *(child for child in own if child is not None)]


class _Pause:
    """Keeps two starts of one thing RESTART_INTERVAL apart, the first two excepted."""

    def __init__(self) -> None:
        self._last = -RESTART_INTERVAL

    async def take(self) -> None:
        now = time.monotonic()
        await asyncio.sleep(max(0.0, self._last + RESTART_INTERVAL - now))
        self._last = time.monotonic()


def _first(exceptions: Iterable[BaseException]) -> Failure:
    """The first Failure in what a group of tasks raised."""
    for error in exceptions:
        if isinstance(error, Failure):
            return error
        if isinstance(error, BaseExceptionGroup):
            return _first(error.exceptions)
    raise AssertionError("a group of failures without a failure")


def _how(status: int) -> str:
    """`status 1`, `SIGKILL`."""
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


def _pids(child: Child | None) -> list[int]:
    return child.pids() if child is not None else []


async def _addresses_in(file: Path) -> dict[str, str]:
    """What a part writes of where it listens, once it has."""
    while True:
        if found := _read_addresses(file):
            return found
        await asyncio.sleep(POLL_INTERVAL)


def _read_addresses(file: Path) -> dict[str, str]:
    """What stands in *file*; nothing as long as there is none."""
    try:
        found: dict[str, str] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def _place_of(part: Part, found: Mapping[str, str]) -> Place:
    """Where *part* turned out to listen; hosts stay as they were wished for."""
    key = {"dnsd": "dns"}.get(part.name, part.name)
    admin = part.place.admin
    return Place(
        HostPort(part.place.listen.host, _port_in(found[key])),
        admin if admin is None else HostPort(admin.host, _port_in(found["admin"])),
    )


def _port_in(address: str) -> int:
    """The port of `127.0.0.1:53`, the first of several, or of `http://127.0.0.1:8888`."""
    return HostPort.parse(address.rpartition("/")[2].partition(",")[0]).port


async def _not_ready(base: str) -> str:
    """What a part still misses; empty once it is ready."""
    try:
        answer = await http.request("GET", f"{base}/readyz", timeout=ASK_TIMEOUT)
    except (OSError, TimeoutError, ValueError) as error:
        return str(error) or "no answer"
    if answer.status == 200:
        return ""
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        return ", ".join(answer.json()["missing"])
    return f"/readyz answers {answer.status}"


def main(options: Options, environ: Mapping[str, str]) -> int:
    """Run `up` to its end; returns the exit status, or a Failure that says why it cannot start."""
    if problems := machine.taken_ports(options):
        raise Failure(*problems)
    if options.ready_file is not None:
        machine.make_way_for(options.ready_file)
    console = Console(sys.stderr, style_of(sys.stderr, environ))
    run_dir = machine.run_directory(environ)
    try:
        return asyncio.run(Up(options, console, environ, run_dir).run())
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
