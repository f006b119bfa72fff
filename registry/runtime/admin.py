"""The admin side of a process: alive, ready, metrics.

`/healthz` (`/livez`) is 200 while the process works; `/readyz` is 200, or 503 with a JSON list
of what is missing; `/metrics` is Prometheus text.
"""

from collections.abc import Awaitable, Callable

from registry.runtime.config import HostPort
from registry.runtime.http import Request, Response, Server, json_response
from registry.runtime.lifecycle import binding_error

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Admin:
    """Serves what *missing* and *metrics* say; off when *address* is None."""

    def __init__(
        self,
        address: HostPort | None,
        missing: Callable[[], list[str]],
        metrics: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._missing = missing
        self._metrics = metrics
        self._server = Server(address, self._handle) if address is not None else None

    @property
    def address(self) -> HostPort | None:
        """Where it listens; None when it is off."""
        return None if self._server is None else self._server.address

    async def start(self) -> None:
        """Listen; CallboardError naming `--admin` when it cannot."""
        if self._server is not None:
            try:
                await self._server.start()
            except OSError as error:
                raise binding_error(error, self._server.address, "--admin") from error

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    async def _handle(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"", {"allow": "GET, HEAD"})
        match request.target.partition("?")[0]:
            case "/healthz" | "/livez":
                return json_response(200, {"status": "alive"})
            case "/readyz":
                return readiness(self._missing())
            case "/metrics":
                return Response(200, await self._metrics(), {"content-type": METRICS_TYPE})
        return json_response(404, {"paths": ["/healthz", "/livez", "/readyz", "/metrics"]})


def readiness(missing: list[str]) -> Response:
    """The answer of `/readyz`: 200 when nothing is missing, else 503 with the list."""
    if not missing:
        return json_response(200, {"status": "ready"})
    return json_response(503, {"status": "not ready", "missing": missing})
