"""A dnsd with keys but without sockets, and a secondary made of dnspython that copies it."""

import random
import time
from collections.abc import Iterator, Sequence

import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.tsigkeyring
import dns.xfr
import dns.zone

from dnsd.journal import Journal
from dnsd.keyring import Keyring, read_keys
from dnsd.responder import Peer, Reply, Responder
from dnsd.table import AnswerTable, State
from dnsd.transfer import Transfers
from dnsd.tsig import Signatures
from registry.catalog import Catalog
from registry.changes import Change, InstanceDown, InstanceUp, ServiceForgotten
from registry.model import Instance
from tests.support.dnsd import APEX, LOCAL, LOCAL_TCP, zones_of

KEY_NAME = "knot.svc.internal."
SECRET = "bm90IGEgc2VjcmV0LCBidXQgMzIgb2N0ZXRzISE="
KEYS = f"""
[[key]]
name = "{KEY_NAME}"
secret = "{SECRET}"
"""

Ring = dict[dns.name.Name, dns.tsig.Key]

Record = tuple[str, int, str, str]
"""Owner, TTL, type, data."""


class World:
    """The core of a primary; `up`, `down` and `forget` change what it knows."""

    def __init__(
        self,
        *,
        keys: str = KEYS,
        zones: Sequence[str] = (APEX,),
        reverse: Sequence[str] = (),
        revision: int = 0,
        journal: Journal | None = None,
        state: State = "fresh",
    ) -> None:
        self.now = time.time()  # dnspython signs by it
        self.settled = True
        self.problems: list[tuple[str, str]] = []
        self.catalog = Catalog(revision)
        own = zones_of(zones, reverse)
        self.table = AnswerTable(own, lambda: self.catalog, state=state)
        self.journal = Journal() if journal is None else journal
        self.signatures = Signatures(keys_in(keys), lambda: self.now)
        self.responder = Responder(
            self.table,
            random.Random(1),
            transfers=Transfers(
                self.table,
                own[0],
                self.journal,
                settled=lambda: self.settled,
                problem=lambda service, what: self.problems.append((service, what)),
            ),
            signatures=self.signatures,
        )
        self.journal.reset(self.catalog)

    @property
    def serial(self) -> int:
        return self.catalog.revision % (1 << 32)

    def up(self, one: Instance) -> None:
        revision = self.catalog.revision + 1
        numbered = Instance(
            one.registration,
            revision,
            one.lease_id,
            0,
            state=one.state,
            found=one.found,
            listed_as=one.listed_as,
        )
        self.apply(InstanceUp(numbered, revision, revision - 1))

    def down(self, service: str, id: str) -> None:
        revision = self.catalog.revision + 1
        self.apply(InstanceDown(service, id, "deregistered", revision, revision - 1))

    def forget(self, service: str) -> None:
        revision = self.catalog.revision + 1
        self.apply(ServiceForgotten(service, revision, revision - 1))

    def apply(self, change: Change) -> None:
        touched = self.catalog.apply(change)
        services = () if touched is None else (touched,)
        self.table.invalidate(services)
        self.journal.note(services, self.catalog, self.now)

    def load(self, catalog: Catalog) -> None:
        """A snapshot of the store is taken."""
        self.catalog = catalog
        self.table.reset("fresh")
        self.journal.reset(catalog)

    def reply(self, packet: bytes, peer: Peer = LOCAL) -> Reply:
        reply = self.responder.answer(packet, peer, 0.0)
        assert reply.error is None, reply.error
        return reply

    def ask(self, query: dns.message.Message, peer: Peer = LOCAL) -> dns.message.Message:
        """The one reply to *query*, its signature checked where it has one."""
        packet = self.reply(query.to_wire(), peer).packet
        assert packet is not None
        return read(packet, query)

    def messages(self, query: dns.message.Message) -> list[bytes]:
        """All messages that answer *query* over TCP, as they leave."""
        reply = self.reply(query.to_wire(), LOCAL_TCP)
        if reply.transfer is None:
            return [] if reply.packet is None else [reply.packet]
        return [message for message in reply.transfer.messages() if message is not None]


def keys_in(text: str) -> Keyring:
    return read_keys(text) if text else {}


def keyring(name: str = KEY_NAME, secret: str = SECRET, algorithm: str = "hmac-sha256") -> Ring:
    """The same key, as dnspython takes it."""
    return dns.tsigkeyring.from_text({name: (algorithm + ".", secret)})


def signed_query(
    name: str = APEX,
    rtype: str = "SOA",
    *,
    serial: int | None = None,
    edns: int | None = None,
    ring: Ring | None = None,
    fudge: int = 300,
) -> dns.message.Message:
    """A question under the common key; with *serial* an IXFR from there."""
    query = dns.message.make_query(name, rtype, use_edns=0 if edns else -1, payload=edns or 0)
    query.flags = dns.flags.Flag(0)
    if serial is not None:
        soa = dns.rrset.from_text(name, 0, "IN", "SOA", f". . {serial} 0 0 0 0")
        query.authority.append(soa)
    query.use_tsig(ring or keyring(), fudge=fudge)
    return query


def read(packet: bytes, query: dns.message.Message) -> dns.message.Message:
    """*packet* as dnspython reads it."""
    return dns.message.from_wire(packet, keyring=query.keyring, request_mac=query.mac or b"")


def replies(messages: Sequence[bytes], query: dns.message.Message) -> Iterator[dns.message.Message]:
    """The messages of a transfer, their chain of signatures checked."""
    context = None
    for number, packet in enumerate(messages):
        reply = dns.message.from_wire(
            packet,
            keyring=query.keyring,
            request_mac=query.mac or b"",
            xfr=True,
            multi=True,
            tsig_ctx=context,
            one_rr_per_rrset=True,
        )
        assert not query.had_tsig or reply.had_tsig, f"message {number} is not signed"
        context = reply.tsig_ctx
        yield reply


class Copy:
    """A secondary: dnspython's own reading of AXFR and IXFR, strict about what is removed."""

    def __init__(self, apex: str = APEX) -> None:
        self.apex = apex
        self.zone = dns.zone.Zone(apex, relativize=False)
        self.serial: int | None = None
        self.was_incremental = False

    def transfer(self, world: World) -> "Copy":
        """Follow *world*: all of it the first time, the difference later."""
        incremental = self.serial is not None
        query = signed_query(self.apex, "IXFR" if incremental else "AXFR", serial=self.serial)
        rdtype = dns.rdatatype.IXFR if incremental else dns.rdatatype.AXFR
        with dns.xfr.Inbound(self.zone, rdtype, self.serial) as inbound:
            done = False
            for reply in replies(world.messages(query), query):
                assert not done, "a message after the last"
                done = inbound.process_message(reply)
            assert done, "the last SOA did not come"
            self.was_incremental = bool(inbound.incremental)
        soa = self.zone.get_rdataset(self.apex, "SOA")
        assert soa is not None
        self.serial = soa[0].serial
        return self

    def records(self) -> set[Record]:
        """Everything but the SOA."""
        return {
            (str(name), int(rdataset.ttl), dns.rdatatype.to_text(rdataset.rdtype), rdata.to_text())
            for name, rdataset in self.zone.iterate_rdatasets()
            if rdataset.rdtype != dns.rdatatype.SOA
            for rdata in rdataset
        }
