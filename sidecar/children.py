"""Processes that this one begins, and their ends.

Nobody else waits for children here, so that a process id belongs to us until we have
learned of its end: no signal ever meets a stranger that was given the same number.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any

from registry.runtime import logs

log = logs.get("sidecar")


class Child:
    """A process in a session of its own; `exit` is its status, minus the signal that ended it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        how = f"ended {self.exit.result()}" if self.exit.done() else "running"
        return f"<Child {self.pid} {how}>"

    @property
    def stdout(self) -> IO[bytes] | None:
        return self._process.stdout

    @property
    def has_ended(self) -> bool:
        return self.exit.done()

    def signal(self, signum: int) -> None:
        """Send *signum* to the process, unless it has ended."""
        if not self.has_ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signum)

    def signal_group(self, signum: int) -> None:
        """Send *signum* to it and to whatever it has begun that is still in its group.

        The number of a group is not given to another while one of it lives.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def ended(self, status: int) -> None:
        """Tell that it has ended; called by who has waited for it."""
        self._process.returncode = status
        if not self.exit.done():
            self.exit.set_result(status)


class Children:
    """Begins processes and waits for them.

    It *adopts* where this process may be the first of its container: whatever loses its parent
    becomes our child, and stays a zombie until somebody waits for it.
    """

    def __init__(self, *, adopts: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._adopts = adopts
        self._living: dict[int, Child] = {}
        self._is_listening = False

    def __repr__(self) -> str:
        return f"<Children {sorted(self._living)}>"

    def start(self, argv: Sequence[str], *, environ: Mapping[str, str], **streams: Any) -> Child:
        """Begin *argv*, without a shell; OSError when that cannot be done."""
        if not self._is_listening:
            self._loop.add_signal_handler(signal.SIGCHLD, self._look)
            self._is_listening = True
        process = subprocess.Popen(argv, env=dict(environ), start_new_session=True, **streams)
        child = self._living[process.pid] = Child(process)
        return child

    def close(self) -> None:
        """Wait for nobody any more."""
        if self._is_listening:
            self._loop.remove_signal_handler(signal.SIGCHLD)
            self._is_listening = False

    def _look(self) -> None:
        # Several ends may come with one signal, and none is told twice.
        for pid in list(self._living):
            self._wait_for(pid)
        if self._adopts:
            while self._wait_for(-1):
                pass

    def _wait_for(self, pid: int) -> bool:
        """Learn of the end of *pid* (-1: of anyone); whether there was one."""
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            if (child := self._living.pop(pid, None)) is not None:
                child.ended(1)  # somebody else has waited for it: what it said is lost
            return False
        if found and (child := self._living.pop(found, None)) is not None:
            child.ended(os.waitstatus_to_exitcode(status))
        elif found:
            log.debug("ended an orphan's zombie", pid=found)
        return found != 0
