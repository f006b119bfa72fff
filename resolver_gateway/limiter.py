"""Who may be served now: how often a client and a service are asked, how much a service has to do.

Rates are refused at once (429 for a client's, 503 for a service's); what a service has to do beyond
its limit waits for a moment.
"""

from collections.abc import Callable
from math import ceil
from typing import Final, NamedTuple

from resolver_gateway.call import Call
from resolver_gateway.clients import limited_as
from resolver_gateway.gate import Entry, Gate
from resolver_gateway.gcra import Rates
from resolver_gateway.routing import Named
from resolver_gateway.rules import Rule

MAX_CLIENTS_OF_SERVICES: Final = 8_192
"""Keys in each generation of a rate that single services have: some 2.5 MB for each such rate."""


class Refused(NamedTuple):
    """Why a request is not served now, and when it may be worth asking again."""

    status: int
    cause: str
    detail: str
    retry_after: float


class Limiter:
    """The rates of clients and services, and the gates of services; `repr` counts them."""

    def __init__(self, client_rates: Rates | None, client_of: Callable[[Call], str]) -> None:
        self.limits_clients = client_rates is not None
        """Whether every request is counted for its client."""
        self.gates: dict[str, Gate[Call]] = {}
        """By service; only of those that have a limit."""
        self._client_rates = client_rates
        self._client_of = client_of
        self._rates: dict[tuple[float, int], Rates] = {}

    def __repr__(self) -> str:
        waiting = sum(gate.waiting for gate in self.gates.values())
        return f"<Limiter {len(self.gates)} gates, {waiting} waiting>"

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return sum(gate.waiting for gate in self.gates.values())

    def refusal_of(self, call: Call, named: Named, now: float) -> Refused | None:
        """Why *call* comes too soon; None when it does not, and then it counts."""
        rule = named.rule
        if self._client_rates is not None:
            wait = self._client_rates.take(limited_as(self._client_of(call)), now)
            if wait:
                return too_soon(429, "client-rate", "one client", self._client_rates, wait)
        if rule.client_rate:
            rates = self._rates_of(rule.client_rate, rule.client_burst)
            key = f"{named.service} {limited_as(self._client_of(call))}"
            if wait := rates.take(key, now):
                who = f"one client to {named.service}"
                return too_soon(429, "client-rate", who, rates, wait)
        if rule.rate:
            rates = self._rates_of(rule.rate, rule.burst)
            if wait := rates.take(named.service, now):
                return too_soon(503, "service-rate", f"all clients to {named.service}", rates, wait)
        return None

    def _rates_of(self, rate: float, burst: int) -> Rates:
        rates = self._rates.get((rate, burst))
        if rates is None:
            rates = self._rates[rate, burst] = Rates(
                rate, burst or default_burst(rate), MAX_CLIENTS_OF_SERVICES
            )
        return rates

    def enter(self, call: Call, named: Named, now: float) -> Entry:
        """Whether *call* may go on, waits, or finds no room to wait in."""
        rule = named.rule
        if not rule.max_requests:
            return Entry.ENTERED
        gate = self.gates.get(named.service)
        if gate is None:
            gate = self.gates[named.service] = Gate(0, 0, 0.0)
        gate.limit, gate.room, gate.patience = _sizes(rule)
        entry = gate.enter(call, now)
        if entry is not Entry.FULL:
            call.gate = gate
        return entry

    def leave(self, call: Call) -> Call | None:
        """*call* is over; the one whose turn it is now, if one waited."""
        gate = call.gate
        if gate is None:
            return None
        call.gate = None
        return None if gate.give_up(call) else gate.leave()

    def overdue(self, now: float) -> list[Call]:
        """Calls that waited for too long; they have left their gates."""
        late = [call for gate in self.gates.values() for call in gate.overdue(now)]
        for call in late:
            call.gate = None
        return late

    def tick(self, now: float) -> None:
        """Forget who need not be remembered; called now and then."""
        for rates in (*self._rates.values(), self._client_rates):
            if rates is not None:
                rates.forget_idle(now)
        for service in [s for s, g in self.gates.items() if not g.inside and not g.waiting]:
            del self.gates[service]


def _sizes(rule: Rule) -> tuple[int, int, float]:
    return rule.max_requests, rule.queue, rule.queue_timeout


def default_burst(rate: float) -> int:
    """Two seconds' worth at once: what a page with its images asks for."""
    return max(1, ceil(2 * rate))


def too_soon(status: int, cause: str, who: str, rates: Rates, wait: float) -> Refused:
    """The refusal of a request that came *wait* seconds too soon."""
    detail = f"at most {rates.rate:g} requests a second from {who}, {rates.burst} at once"
    return Refused(status, cause, detail, wait)
