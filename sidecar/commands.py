"""Probes by a command: healthy when it ends with status 0 in time."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping

from sidecar.children import Child, Children
from sidecar.health import Healthy, Unhealthy, Verdict
from sidecar.probe import explained
from sidecar.registration import Service

MAX_OUTPUT = 4096
"""Octets of what a command says that are kept, its last ones; a reason has room for fewer."""

AFTER_END = 0.1
"""Seconds that what was said is waited for once the command has ended: whatever it has left
running in the background may hold its output open for ever."""

KILL_PATIENCE = 1.0
"""Seconds that a killed command is waited for; the kernel needs none, unless a disk hangs."""

SECRETS = frozenset({"REGISTRY_TOKEN", "CALLBOARD_TOKEN", "CALLBOARD_SIDECAR_TOKEN"})
"""Variables that are nobody's but the sidecar's."""


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* for processes that need not be able to register anything."""
    return {name: value for name, value in environ.items() if name not in SECRETS}


class Commands:
    """Runs the commands of services, one a service at a time."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._running: dict[str, Child] = {}

    async def verdict(self, service: Service) -> Verdict:
        """Run its command once; it and all it has begun are killed when it is too late."""
        key = f"{service.name}/{service.id}"
        last = self._running.get(key)
        if last is not None and not last.has_ended:
            return Unhealthy("the last command cannot be ended")
        try:
            child = self._children.start(
                service.command,
                environ=without_secrets(os.environ) | _facts(service),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            return Unhealthy(f"{service.command[0]}: {explained(error)}")
        self._running[key] = child
        try:
            return await self._outcome(child, service.policy.timeout)
        finally:
            if not child.has_ended:
                child.signal_group(signal.SIGKILL)
                await asyncio.wait([child.exit], timeout=KILL_PATIENCE)

    async def _outcome(self, child: Child, timeout: float) -> Verdict:
        output = _Output()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: output, child.stdout
        )
        try:
            async with asyncio.timeout(timeout):
                status = await asyncio.shield(child.exit)
            if status == 0:
                return Healthy()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AFTER_END):
                    await output.ended.wait()
            return Unhealthy(_reason(status, output.last_line()))
        except TimeoutError:
            return Unhealthy(f"not done within {timeout:g} s")
        finally:
            transport.close()


def _facts(service: Service) -> dict[str, str]:
    return {
        "SERVICE_NAME": service.name,
        "SERVICE_HOST": service.host,
        "SERVICE_PORT": str(service.probe_port),
    }


def _reason(status: int, said: str) -> str:
    how = f"status {status}" if status >= 0 else f"ended by {_signal_name(-status)}"
    return f"{how}: {said}" if said else how


def _signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


class _Output(asyncio.Protocol):
    """The end of what a command says."""

    def __init__(self) -> None:
        self._tail = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-MAX_OUTPUT:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def last_line(self) -> str:
        lines = self._tail.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
