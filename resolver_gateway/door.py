"""Who may come in: clients, how many of them, and what those who may not are told."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate

from resolver_gateway import headers, problems
from resolver_gateway.addresses import Network
from resolver_gateway.downstream import Downstream
from resolver_gateway.metrics import Counts
from resolver_gateway.request import Refusal


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may use."""

    head_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 60.0
    tunnel_timeout: float = 3600.0
    min_body_rate: int = 240
    """Octets a second; 0: none."""
    connections: int = 10_000
    connections_per_client: int = 2_048


class Door:
    """The clients that are here; `repr` counts them."""

    def __init__(self, limits: Limits, counts: Counts, trusted: Sequence[Network]) -> None:
        self.limits = limits
        self.clients: set[Downstream] = set()
        self.draining = False
        self.quiet = asyncio.Event()
        """Set when it drains and the last client is gone."""
        self._counts = counts
        self._trusted = tuple(trusted)
        self._per_client: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Door {len(self.clients)} clients of {len(self._per_client)} addresses>"

    def connected(self, client: Downstream) -> None:
        """A client connected: within the limits, or told so and closed."""
        self.clients.add(client)
        self._per_client[client.origin] += 1
        client.stranger = not headers.is_trusted(client.peer, self._trusted)
        if len(self.clients) > self.limits.connections:
            self._turn_away(client, 503, "connections")
        elif self._per_client[client.origin] > self.limits.connections_per_client:
            self._turn_away(client, 429, "connections-per-client")

    def _turn_away(self, client: Downstream, status: int, limit: str) -> None:
        self._counts.refused_connections[limit] += 1
        client.write(
            problems.response(
                status,
                problems.body(status, "too-many-connections", f"the limit of {limit} is reached"),
                cause="too-many-connections",
                keep=False,
                date=formatdate(usegmt=True),
                fields={"Retry-After": "1"},
            )
        )
        client.transport.close()

    def disconnected(self, client: Downstream) -> None:
        self.clients.discard(client)
        self._per_client[client.origin] -= 1
        if not self._per_client[client.origin]:
            del self._per_client[client.origin]
        if self.draining and not self.clients:
            self.quiet.set()

    def refused(self, client: Downstream, refusal: Refusal) -> None:
        """A head that was not taken: answered, counted, and the connection ends."""
        status, cause, detail = refusal
        self._counts.unanswered["4xx" if status < 500 else "5xx", cause] += 1
        # A refused method is CONNECT; what else is allowed depends on the service.
        fields = {"Allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"} if status == 405 else {}
        client.write(
            problems.response(
                status,
                problems.body(status, cause, detail),
                cause=cause,
                keep=False,
                date=formatdate(usegmt=True),
                fields=fields,
            )
        )

    def tick(self, now: float) -> None:
        """Act on every deadline of a client that has passed."""
        for client in list(self.clients):
            client.tick(now)

    def drain(self) -> None:
        """Take no further requests; what is under way goes on."""
        self.draining = True
        for client in list(self.clients):
            client.drain()
        if not self.clients:
            self.quiet.set()

    def close(self) -> None:
        """Cut everyone off."""
        for client in list(self.clients):
            client.transport.abort()
