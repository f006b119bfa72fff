"""The life of a process: configure, start, run until told to stop, drain, stop.

SIGTERM and SIGINT drain and stop, a second one stops at once, SIGHUP reloads.
"""

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from registry.errors import CallboardError
from registry.runtime import config, logs
from registry.runtime.config import Common, ConfigError, HelpRequested, HostPort

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_UNREACHABLE = 0, 1, 2, 3, 4

STOP_BUDGET = 9.0
"""Seconds for drain and stop together: a second less than Docker waits before it kills."""

DRAIN_BUDGET = 8.0
"""Seconds of these that draining may take, so that something is left to stop in."""

T = TypeVar("T")

log = logs.get("callboard")


class Part(Protocol):
    """A running part, as its process sees it."""

    async def start(self) -> None:
        """Listen and begin to work; OSError or CallboardError end the process with a clear line."""

    async def drain(self) -> None:
        """Become unready, finish what is under way."""

    async def stop(self) -> None:
        """Release everything.  Called exactly once, also when start failed half-way."""

    def reload(self) -> None:
        """Read certificates and the like again."""


def main(
    part_name: str,
    config_cls: type[T],
    build: Callable[[T, Common], Part],
    *,
    admin: HostPort | None,
    problems: Callable[[T], Iterable[str]] = config.no_problems,
    uvloop: bool = True,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a part from its command line; returns the exit status."""
    try:
        settings, common = config.load(
            config_cls,
            part_name,
            sys.argv[1:] if argv is None else argv,
            os.environ,
            admin=admin,
            problems=problems,
        )
    except HelpRequested as request:
        sys.stdout.write(str(request))
        return EXIT_OK
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"error: {problem}\n")
        return EXIT_USAGE
    if common.check_config:
        return EXIT_OK
    logs.configure(common.log_format, common.log_level)
    if common.health:
        return _run(_ask_health(common.admin, settings), uvloop=False)
    return _run(_live(part_name, lambda: build(settings, common)), uvloop=uvloop)


def _run(coroutine: Any, *, uvloop: bool) -> int:
    factory = _uvloop_factory() if uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(coroutine)
        assert isinstance(result, int)
        return result


def _uvloop_factory() -> Any:
    """uvloop's loop where it is to be had; asyncio's own, with one line, elsewhere."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        log.info("uvloop is not installed, asyncio's own loop is used")
        return None
    return new_event_loop


async def _live(name: str, build: Callable[[], Part]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    part = build()

    def stop() -> None:
        if stopping.is_set():
            log.warning("stopping at once", part=name)
            os._exit(EXIT_FAILED)
        stopping.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    loop.add_signal_handler(signal.SIGHUP, part.reload)
    ends = None
    try:
        starting = asyncio.ensure_future(part.start())
        await _first(starting, stopping)
        if stopping.is_set() and not starting.done():
            starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        await stopping.wait()
        log.info("stopping", part=name)
        ends = loop.time() + STOP_BUDGET
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_BUDGET):
                await part.drain()
    except (OSError, CallboardError) as error:
        log.error("cannot go on", part=name, error=explain(error))
        return EXIT_FAILED
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ends or loop.time() + STOP_BUDGET):
                await part.stop()
    log.info("stopped", part=name)
    return EXIT_OK


async def _first(task: "asyncio.Future[None]", event: asyncio.Event) -> None:
    waiting = asyncio.ensure_future(event.wait())
    either: set[asyncio.Future[Any]] = {task, waiting}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


class AddressInUse(CallboardError):
    """Somebody else listens there; names address and option."""

    def __init__(self, address: HostPort, option: str) -> None:
        super().__init__(
            f"{address} ({option}) is in use by another process; stop it, or give {option}"
            " another port (0 takes a free one)"
        )


def binding_error(error: OSError, address: HostPort, option: str) -> Exception:
    """What to raise when binding *address* failed: our own error where we can say what to do."""
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(address, option)
    if error.errno in (errno.EACCES, errno.EPERM):
        return CallboardError(
            f"{address} ({option}): not allowed; ports below 1024 need CAP_NET_BIND_SERVICE or"
            f" net.ipv4.ip_unprivileged_port_start=0, or give {option} a port above 1023"
        )
    return CallboardError(f"{address} ({option}): {error.strerror or error}")


def explain(error: BaseException) -> str:
    """An error in one line, for a person."""
    return str(error) or type(error).__name__


async def _ask_health(admin: HostPort | None, settings: object) -> int:
    """`--health`: 0 ready, 1 not ready (the reason on stdout), 4 nobody answers."""
    from registry.runtime import http

    address = admin or getattr(settings, "health_address", None)
    if address is None:
        sys.stderr.write("error: option --health: the admin side is off; give --admin HOST:PORT\n")
        return EXIT_USAGE
    # A container without IPv6 has no ::1 although [::] can be bound; localhost tries both.
    host = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(address.host, address.host)
    try:
        response = await http.request(
            "GET", f"http://{HostPort(host, address.port)}/readyz", timeout=3.0
        )
    except (OSError, TimeoutError, ValueError) as error:
        sys.stderr.write(f"error: {address}: {explain(error)}\n")
        return EXIT_UNREACHABLE
    sys.stdout.write(response.body.decode(errors="replace").rstrip() + "\n")
    return EXIT_OK if response.status == 200 else EXIT_FAILED
