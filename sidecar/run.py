"""`sidecar run … -- COMMAND`: begins a command, keeps it registered, stops it in order.

The command stands in a session of its own, so that Ctrl-C at a terminal reaches the
sidecar alone, which drains before it passes it on.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from registry.errors import CallboardError
from registry.runtime import lifecycle, logs
from registry.runtime.config import Common, ConfigError, HelpRequested
from sidecar.children import Child, Children
from sidecar.commands import Commands, without_secrets
from sidecar.config import Settings
from sidecar.probe import Prober
from sidecar.wrapping import (
    Act,
    Drain,
    Kill,
    Leave,
    Pass,
    Reload,
    Wrapping,
    exit_status,
)

if TYPE_CHECKING:
    from sidecar.__main__ import Given
    from sidecar.service import Sidecar

USAGE = "usage: callboard sidecar run [options] -- COMMAND [ARGUMENT …]\n"

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

PASSED_ON = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""Signals that are the command's to understand; SIGHUP is the sidecar's as well."""

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""What shells exit with when a command cannot be begun."""

LEAVE_BUDGET = 9.0
"""Seconds for drain or deregistration to come to an end by themselves; both are shorter."""

log = logs.get("sidecar")


def main(given: "Given", command: Sequence[str]) -> int:
    """Run *command* with a sidecar; its exit status, or 2 where something is wrong beforehand."""
    problems = [] if command else ["run: no command; give it after --, such as -- npm start"]
    try:
        settings, common = given.load()
    except HelpRequested as request:
        sys.stdout.write(f"{USAGE}\n{request}")
        return lifecycle.EXIT_OK
    except ConfigError as error:
        problems += error.problems
    if problems:
        sys.stderr.writelines(f"error: {problem}\n" for problem in problems)
        return lifecycle.EXIT_USAGE
    if common.check_config:
        return lifecycle.EXIT_OK
    logs.configure(common.log_format, common.log_level)
    with asyncio.Runner() as runner:
        return runner.run(_run(given, settings, common, command))


async def _run(given: "Given", settings: Settings, common: Common, command: Sequence[str]) -> int:
    children = Children(adopts=True)
    sidecar = given.build(settings, common, Prober(Commands(children)))
    wrapped = Wrapped(sidecar, Wrapping(settings.stop_timeout))
    try:
        await sidecar.listen()
        # Before the command: from now on nothing ends us that would not end it too.
        wrapped.listen()
        child = children.start(command, environ=without_secrets(os.environ))
        log.info("command begun", command=command[0], pid=child.pid)
        return await wrapped.live(child)
    except CallboardError as error:
        log.error("cannot go on", part="sidecar", error=str(error))
        return lifecycle.EXIT_FAILED
    except OSError as error:
        log.error("command cannot be begun", command=command[0], error=error.strerror or error)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    finally:
        await sidecar.stop()
        children.close()


class Wrapped:
    """The loop that obeys wrapping.py until the command has ended and nothing is left to say."""

    def __init__(self, sidecar: "Sidecar", wrapping: Wrapping) -> None:
        self._loop = asyncio.get_running_loop()
        self._sidecar = sidecar
        self._wrapping = wrapping
        self._wake = asyncio.Event()
        self._child: Child | None = None
        self._leaving: list[asyncio.Task[None]] = []

    def listen(self) -> None:
        """Take the signals that are sent to this process."""
        for signum in (*STOP_SIGNALS, *PASSED_ON):
            self._loop.add_signal_handler(signum, self._signalled, signum)

    async def live(self, child: Child) -> int:
        """Until *child* has ended; our exit status."""
        self._child = child
        child.exit.add_done_callback(self._ended)
        keeping = asyncio.create_task(self._sidecar.keep())
        try:
            while not (child.has_ended and all(task.done() for task in self._leaving)):
                await self._wait()
        finally:
            tasks = [keeping, *self._leaving]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # What it has begun and left behind would hold its port.
            child.signal_group(signal.SIGTERM)
        status = exit_status(child.exit.result())
        log.info("command ended", status=status)
        return status

    async def _wait(self) -> None:
        """Until something has happened, or is due."""
        kill_at = self._wrapping.kill_at
        try:
            async with asyncio.timeout_at(kill_at):
                await self._wake.wait()
        except TimeoutError:
            log.warning("the command has not ended in time, it is killed")
        self._wake.clear()
        self._do(self._wrapping.at(self._loop.time()))

    def _signalled(self, signum: int) -> None:
        if signum in STOP_SIGNALS:
            self._do(self._wrapping.told_to_stop(signum, self._loop.time()))
        else:
            self._do(self._wrapping.told(signum, reloads=signum == signal.SIGHUP))
        self._wake.set()

    def _ended(self, _: "asyncio.Future[int]") -> None:
        self._do(self._wrapping.ended())
        self._wake.set()

    def _do(self, acts: Iterable[Act]) -> None:
        child = self._child
        assert child is not None, "nothing runs between listening and the beginning of the command"
        for act in acts:
            match act:
                case Drain():
                    log.info("stopping", part="sidecar")
                    self._leave(self._drain())
                case Leave():
                    self._leave(self._sidecar.drain(at_once=True))
                case Pass(signum):
                    child.signal(signum)
                case Kill():
                    child.signal_group(signal.SIGKILL)
                case Reload():
                    self._sidecar.reload()

    async def _drain(self) -> None:
        await self._sidecar.drain()
        self._do(self._wrapping.drained())

    def _leave(self, call: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            try:
                async with asyncio.timeout(LEAVE_BUDGET):
                    await call
            except TimeoutError:
                log.warning("the registrar was not told in time")
            finally:
                self._wake.set()

        self._leaving.append(asyncio.create_task(bounded()))
