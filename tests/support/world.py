"""A whole Callboard in memory: the store, its changes, a catalog, and the DNS server that reads it.

Everything is the real thing but sockets and clocks: time moves when a test says so.
"""

import random
from collections.abc import Iterable

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset

from dnsd.responder import Peer, Responder
from dnsd.table import AnswerTable
from dnsd.zone import Zone
from registry.catalog import Catalog
from registry.leases import Renewal, Renewed, Sweep
from registry.memory import MemoryStore
from registry.model import (
    DEFAULT_LEASE_TTL,
    Instance,
    Port,
    Registration,
    default_record_ttl,
)

ZONE = "svc.internal."
START_MS = 1_700_000_000_000
SWEEP_MS = 1_000


class World:
    """Registers, renews, waits and asks, as sidecars and resolvers would."""

    def __init__(self, seed: int = 1) -> None:
        self.now_ms = START_MS
        self.store = MemoryStore(lambda: self.now_ms)
        self.catalog = Catalog()
        zones = [Zone(ZONE, (("ns1", ("192.0.2.53",)),))]
        self.table = AnswerTable(zones, lambda: self.catalog, state="fresh")
        self.responder = Responder(self.table, random.Random(seed))
        self._leases = 0

    async def register(
        self,
        service: str,
        instance: str,
        address: str = "10.0.0.1",
        port: int = 8080,
        *,
        ports: Iterable[Port] = (),
        lease_ttl: int = DEFAULT_LEASE_TTL,
        record_ttl: int | None = None,
        generation: int = 0,
        priority: int = 0,
        weight: int = 100,
    ) -> Instance:
        """Register *instance* of *service*; what the store then holds."""
        self._leases += 1
        granted = await self.store.register(
            Registration(
                service=service,
                instance=instance,
                ports=tuple(ports) or (Port("http", port),),
                addresses=(address,),
                priority=priority,
                weight=weight,
                lease_ttl=lease_ttl,
                record_ttl=record_ttl or default_record_ttl(lease_ttl),
            ),
            lease_id=f"lease-{self._leases}",
            generation=generation,
        )
        self.hear()
        return granted.instance

    async def renew(self, service: str, instance: str) -> bool:
        """Send a heartbeat; False when the registrar would answer 404."""
        (result,) = await self.store.renew([Renewal(f"{service}/{instance}")])
        self.hear()
        return isinstance(result, Renewed)

    async def deregister(self, service: str, instance: str) -> None:
        await self.store.deregister(f"{service}/{instance}")
        self.hear()

    async def set_state(self, service: str, instance: str, state: str) -> None:
        await self.store.set_state(f"{service}/{instance}", state, "")
        self.hear()

    async def advance(self, seconds: float) -> Sweep:
        """Let time pass with a sweep each second; all that the sweeps did."""
        done = Sweep()
        ends = self.now_ms + round(seconds * 1000)
        while self.now_ms < ends:
            self.now_ms = min(ends, self.now_ms + SWEEP_MS)
            done = _joined(done, await self.store.sweep())
        self.hear()
        return done

    async def outage(self, seconds: float) -> None:
        """Let time pass in which nobody could renew: no sweep, no heartbeat."""
        self.now_ms += round(seconds * 1000)
        await self.store.sweep()
        self.hear()

    def hear(self) -> None:
        """Fold what the store has announced into the catalog, as the feed would."""
        for change in self.store.changes_after(self.catalog.revision):
            touched = self.catalog.apply(change)
            self.table.invalidate([touched] if touched is not None else [])

    def dig(
        self, name: str, qtype: str = "A", *, edns: int | None = None, tcp: bool = False
    ) -> dns.message.Message:
        """Ask the server, and read its answer with another library than its own."""
        query = dns.message.make_query(name, qtype, use_edns=edns is not None)
        query.flags = dns.flags.Flag(0)
        if edns is not None:
            query.use_edns(0, payload=edns)
        reply = self.responder.respond(query.to_wire(), Peer(b"\x7f\0\0\1", tcp=tcp), now=0.0)
        assert reply is not None
        message = dns.message.from_wire(reply)
        assert message.id == query.id
        return message

    def addresses(self, name: str) -> list[str]:
        """The A records of *name*, sorted; without a dot, of that service."""
        if "." not in name:
            name = f"{name}.{ZONE}"
        return sorted(str(record) for rrset in self.dig(name).answer for record in rrset)


def _joined(a: Sweep, b: Sweep) -> Sweep:
    return Sweep(a.evicted + b.evicted, a.suspects + b.suspects, a.forgotten + b.forgotten)


def outcome(message: dns.message.Message) -> str:
    """`NOERROR`, `NODATA`, `NXDOMAIN`, `REFUSED`…: what a resolver makes of an answer."""
    rcode = dns.rcode.to_text(message.rcode())
    return "NODATA" if rcode == "NOERROR" and not message.answer else rcode


def records(message: dns.message.Message) -> list[str]:
    """Answer records, then additional ones with `+`, one a line in a stable order."""
    answer = sorted(line for rrset in message.answer for line in _lines(rrset))
    extra = sorted(line for rrset in message.additional for line in _lines(rrset))
    return answer + [f"+ {line}" for line in extra]


def _lines(rrset: dns.rrset.RRset) -> Iterable[str]:
    kind = dns.rdatatype.to_text(rrset.rdtype)
    return (f"{rrset.name} {rrset.ttl} {kind} {record}" for record in rrset)
