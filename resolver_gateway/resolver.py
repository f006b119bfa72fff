"""Where a service is, now: what the cache knows, what DNS says, one flight a name.

Fresh answers need no waiting (`lookup`); everything else waits here (`resolve`), bounded.
"""

import asyncio
import ipaddress
import random
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from registry.runtime import logs
from resolver_gateway import fallback, naming, srv
from resolver_gateway.balancer import upstream
from resolver_gateway.cache import Absent, Fresh, Lookup, SrvCache, Stale
from resolver_gateway.dnsclient import DnsClient
from resolver_gateway.srv import Answer, Failed, Resolution

STALE_WAIT: Final = 0.5
"""Seconds that a request waits for a new answer when it has an old one."""

RENEW_WAIT: Final = 2.0
"""The same when no instance takes a connection: there is nothing else to try."""

MISS_WAIT: Final = 5.0
"""Seconds that a request waits for the first answer; the client's own rounds end before that."""

MAX_FLIGHTS: Final = 512
"""Names asked for at one time: a stranger who asks for ever new ones gets 503 beyond it."""

FALLBACK_SECONDS: Final = 5.0
"""How long the address of a fallback's host is used: the TTL of our own records."""

log = logs.get("gateway.resolver")


class Found(NamedTuple):
    """What `resolve` came to: a resolution, an absence, or why there is neither."""

    answer: Resolution | Absent | Failed
    result: str
    """`hit`, `stale` or `miss`, for the metrics."""


class Resolver:
    """Owner of the cache and of every flight; *left* hears which upstreams of a name went.

    *tls_name* says what the certificates of a service's instances must be for; empty: no TLS.
    """

    def __init__(
        self,
        client: DnsClient,
        cache: SrvCache,
        clock: Callable[[], float],
        left: Callable[[str, Collection[str]], None],
        environ: Mapping[str, str],
        tls_name: Callable[[str], str] = lambda service: "",
    ) -> None:
        self._client = client
        self.cache = cache
        self._clock = clock
        self._left = left
        self._environ = environ
        self._tls_name = tls_name
        self._again: set[str] = set()
        """Names whose flight began before a change, so that another one must follow."""
        self._flights: dict[str, asyncio.Task[Answer]] = {}
        self._fallbacks: dict[str, tuple[Resolution, float]] = {}
        self._discovery = logs.Transition(log)

    def __repr__(self) -> str:
        return f"<Resolver {self.cache!r}, {len(self._flights)} in flight>"

    def lookup(self, name: str, now: float) -> Lookup:
        """What the cache knows; starts to ask when the answer nears its end.  Never waits."""
        found = self.cache.lookup(name, now)
        if type(found) is Fresh:
            if found.refresh:
                self._fly(name)
        elif type(found) is Stale and found.ask and not found.wait:
            self._fly(name, quick=True)
        return found

    async def resolve(self, name: str) -> Found:
        """The answer for *name*, after at most the wait that is left to it."""
        # 1. Fresh, or Absent: use it.
        # 2. Stale: ask again; only if that fails, use it within the bound, from then on without
        #    waiting, while it is asked for twice a second.
        # 3. Miss: wait for the one flight already asking, or start it.
        known = self.lookup(name, self._clock())
        if isinstance(known, Fresh):
            return Found(known.resolution, "hit")
        if isinstance(known, Absent):
            return Found(known, "hit")
        if isinstance(known, Stale) and not known.wait:
            return Found(known.resolution, "stale")
        flight = self._fly(name)
        answer: Answer = Failed("too many names are being asked for")
        if flight is not None:
            wait = STALE_WAIT if isinstance(known, Stale) else MISS_WAIT
            done, _ = await asyncio.wait({flight}, timeout=wait)
            answer = flight.result() if done else Failed("no answer in time")
        if isinstance(answer, Resolution):
            return Found(answer, "miss")
        if isinstance(answer, srv.Absent):
            return Found(Absent(answer.exists, answer.ttl), "miss")
        if isinstance(known, Stale):
            self.cache.unanswered(name, self._clock())
            return Found(known.resolution, "stale")
        assert isinstance(answer, Failed)
        return Found(answer, "miss")

    async def renew(self, name: str) -> Resolution | None:
        """Where *name* is now, asked although its answer holds, because none of its instances
        takes a connection; what was answered this very second is not asked again."""
        flight = self._flights.get(name)
        if flight is None and self.cache.may_renew(name, self._clock()):
            flight = self._fly(name)
        if flight is not None:
            await asyncio.wait({flight}, timeout=RENEW_WAIT)
        return self.cache.known(name)

    def concerns(self, services: Collection[str]) -> list[str]:
        """The names about one of *services* that are known, or being asked for."""
        asked = (name for name in self._flights if naming.service_in(name) in services)
        return list({*self.cache.names_of(services), *asked})

    def changed(self, services: Collection[str]) -> None:
        """These services changed: what is known of them is asked for anew, now."""
        for name in self.concerns(services):
            if name in self._flights:
                self._again.add(name)
            else:
                self._fly(name)

    def changed_all(self) -> None:
        """Anything may have changed."""
        self.changed({naming.service_in(name) for name in self.cache.names()})

    def _fly(self, name: str, *, quick: bool = False) -> asyncio.Task[Answer] | None:
        """The flight for *name*, started if there is none; None when there are too many."""
        flight = self._flights.get(name)
        if flight is None and len(self._flights) < MAX_FLIGHTS:
            flight = asyncio.get_running_loop().create_task(self._ask(name, quick))
            self._flights[name] = flight
            flight.add_done_callback(lambda ended: self._landed(name, ended))
        return flight

    def _landed(self, name: str, flight: asyncio.Task[Answer]) -> None:
        """Nobody may be waiting for a flight that was started ahead: a bug in it is said here."""
        del self._flights[name]
        if flight.cancelled():
            return
        if (error := flight.exception()) is not None:
            log.error("look-up failed", name=name, error=repr(error))
        if name in self._again:
            self._again.discard(name)
            self._fly(name)

    async def _ask(self, name: str, quick: bool) -> Answer:
        before = self.cache.known(name)
        tls_name = self._tls_name(naming.service_in(name))
        answer = await self._client.query_srv(name, quick=quick, tls_name=tls_name)
        if isinstance(answer, srv.Absent) and before is not None:
            # An empty answer for what had instances is asked for once more, of another server
            # where there is one: it is what one broken server looks like, and the most harmful
            # thing to believe.
            answer = await self._client.query_srv(name, another=True, tls_name=tls_name)
        now = self._clock()
        if isinstance(answer, Failed):
            self.cache.unanswered(name, now)
            self._discovery.enter("lost", "discovery lost", level="warning", error=answer.reason)
            return answer
        assert not isinstance(answer, srv.Incomplete)
        if self._discovery.enter("answering", "discovery answers", cache=repr(self.cache)):
            self.cache.answers_again()
        self.cache.store(name, answer, now, random.random())
        kept = {u.key for u in answer.upstreams} if isinstance(answer, Resolution) else set()
        if before is not None and (gone := {u.key for u in before.upstreams} - kept):
            self._gone(name, gone)
        return answer

    def _gone(self, name: str, keys: set[str]) -> None:
        """These are not listed under *name* any more; they left unless another name has them."""
        for other in self.cache.names_of([naming.service_in(name)]):
            if other != name and (resolution := self.cache.known(other)) is not None:
                keys -= {u.key for u in resolution.upstreams}
        if keys:
            self._left(name, keys)

    @property
    def discovery(self) -> str:
        """`answering`, `lost`, or nothing when nobody was asked yet."""
        return self._discovery.state

    async def fall_back(self, service: str) -> Resolution | None:
        """Where the environment says *service* is; None when it does not, or not to be found."""
        now = self._clock()
        known = self._fallbacks.get(service)
        if known is not None and now < known[1]:
            return known[0]
        place = fallback.place_of(service, self._environ)
        if place is None:
            return None
        addresses = await _addresses_of(place.host, place.port)
        if not addresses:
            return None
        found = Resolution(
            tuple(
                upstream(
                    service,
                    "fallback",
                    address,
                    place.port,
                    tls_name=place.host if place.secure else "",
                    base=place.base,
                )
                for address in addresses
            ),
            FALLBACK_SECONDS,
            "fallback",
        )
        self._fallbacks[service] = found, now + FALLBACK_SECONDS
        return found

    def has_fallback(self, service: str) -> bool:
        """Whether the environment names a place for *service*."""
        return fallback.place_of(service, self._environ) is not None

    def tick(self, now: float) -> None:
        """Forget what is too old; called now and then."""
        resolutions = {name: self.cache.known(name) for name in self.cache.names()}
        for name in self.cache.forget_old(now):
            resolution = resolutions[name]
            if resolution is not None:
                self._gone(name, {u.key for u in resolution.upstreams})

    async def close(self) -> None:
        """End every flight."""
        self._again.clear()
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)


async def _addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a fallback's host, IPv4 first; empty when it cannot be found in time."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(MISS_WAIT):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return []
    unique = dict.fromkeys(str(entry[4][0]) for entry in found)
    return sorted(unique, key=lambda address: ":" in address)
