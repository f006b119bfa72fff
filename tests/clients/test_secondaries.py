"""Knot, NSD and BIND as secondaries of a running dnsd: what X24 asks to be shown."""

import random
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.tsig
import pytest

from registry.model import Port, Registration
from registry.runtime.config import HostPort
from tests.support.dns import wire_name
from tests.support.primary import KEY_NAME, KEYS, SECRET, Ring, keyring, signed_query
from tests.support.secondaries import (
    KINDS,
    ZONE,
    Kind,
    Process,
    SecondaryServer,
    Yard,
    a_yard,
    free_port,
    wait_for,
    zone_at,
)

pytestmark = pytest.mark.xdist_group("secondaries")

SERVICES, INSTANCES = 16, 6
CHANGES = 1000
CHANGING = SERVICES // 4
"""Services that change: so that a difference never exceeds the zone, however long it took."""

PER_SECOND = 250.0

OTHER_SECRET = "YW5vdGhlciBvbmUsIG9mIG5vIHVzZSBlbHNld2hlcmU="

FIRST = 5 * (1 << 32) - SERVICES * INSTANCES - CHANGES // 2
"""The store's revision at the start: the serial passes 2^32 in the middle of the changes."""


def registration(service: int, instance: int, weight: int = 100) -> Registration:
    spelled = f"service_{service}" if service % 2 else f"service-{service}"
    return Registration(
        spelled,
        f"i-{instance}",
        (Port("http", 8080), Port("game", 4000, "udp")),
        (f"10.{service}.0.{instance + 1}", f"2001:db8::{service + 1:x}:{instance + 1:x}"),
        weight=weight,
        metadata={"rack": str(instance)},
        lease_ttl=0,
    )


def everyone() -> Iterator[Registration]:
    for service in range(SERVICES):
        for instance in range(INSTANCES):
            yield registration(service, instance)


def changes(count: int, rng: random.Random) -> Iterator[Registration]:
    """Each another weight of somebody."""
    for n in range(count):
        yield registration(rng.randrange(CHANGING), rng.randrange(INSTANCES), 1000 + n)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    if all(kind.path is None for kind in KINDS):
        pytest.skip("none of knotd, nsd and named is installed")
    with a_yard(tmp_path_factory.mktemp("yard"), everyone(), FIRST) as yard:
        yield yard


def test_x24_a_thousand_changes_in_a_row_reach_every_secondary_incrementally(yard: Yard) -> None:
    """Across the end of the 32 bits of the serial, by NOTIFY and IXFR alone."""
    yard.wait_until_equal()
    before, whole = yard.revision, yard.whole_zones
    assert before % (1 << 32) > 1 << 31

    yard.register(changes(CHANGES, random.Random(24)), per_second=PER_SECOND)
    yard.wait_until_equal()

    assert yard.revision == before + CHANGES
    assert yard.revision % (1 << 32) < 1 << 31
    assert yard.whole_zones == whole
    followed = yard.metric("dnsd_transfers_total", kind="ixfr", result="sent")
    assert followed >= 2 * len(yard.secondaries)
    assert yard.metric("dnsd_notifies_total", result="accepted") >= 2 * len(yard.secondaries)


def test_x24_x12_after_a_restart_the_journal_is_lost_and_the_zone_is_sent(yard: Yard) -> None:
    yard.dnsd.stop()
    yard.reads = 0
    yard.register([registration(0, 0, 5), registration(1, 1, 5)])

    yard.start_dnsd()
    yard.wait_until_equal()

    assert yard.metric("dnsd_transfers_total", kind="ixfr-whole") >= len(yard.secondaries)
    assert yard.metric("dnsd_transfers_total", kind="ixfr") == 0
    yard.register([registration(0, 0, 6)])
    yard.wait_until_equal()
    assert yard.metric("dnsd_transfers_total", kind="ixfr") >= len(yard.secondaries)


def test_x24_an_instance_that_leaves_leaves_every_secondary(yard: Yard) -> None:
    yard.register([registration(14, 77)])
    yard.wait_until_equal()
    name = f"i-77.service-14.{ZONE}"
    assert all(answers(s, name) for s in yard.secondaries)

    yard.deregister("service-14/i-77")
    yard.wait_until_equal()

    assert not any(answers(s, name) for s in yard.secondaries)


def answers(secondary: SecondaryServer, name: str) -> bool:
    reply = secondary.ask("A", name)
    return reply is not None and bool(reply.answer)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_x24_with_a_wrong_secret_nobody_gets_the_zone(
    yard: Yard, kind: Kind, tmp_path: Path
) -> None:
    if kind.path is None:
        pytest.skip(f"{kind.program} is not installed")
    failures = yard.metric("dnsd_tsig_failures_total", error="badsig")
    own = HostPort("127.0.0.1", free_port())
    wrong = SecondaryServer(kind, Process(tmp_path), own, yard.address, OTHER_SECRET)
    try:
        wrong.start()
        wait_for(lambda: yard.metric("dnsd_tsig_failures_total", error="badsig") > failures)
        assert wrong.serial is None
    finally:
        wrong.process.stop()


def test_k13_keys_are_exchanged_without_a_restart(yard: Yard) -> None:
    """SIGHUP: a new key is known, what cannot be read changes nothing, then the old one is back."""
    file = yard.directory / "keys.toml"
    new = keyring("new.", SECRET)
    try:
        file.write_text(KEYS + f'[[key]]\nname = "new"\nsecret = "{SECRET}"\n')
        yard.dnsd.signal(signal.SIGHUP)
        wait_for(lambda: rcode_of(yard, new) == dns.rcode.NOERROR)
        file.write_text("[[key]]")
        yard.dnsd.signal(signal.SIGHUP)
        wait_for(lambda: "keys not read again" in yard.dnsd.said)
        assert rcode_of(yard, new) == dns.rcode.NOERROR
    finally:
        file.write_text(KEYS)
        yard.dnsd.signal(signal.SIGHUP)
    wait_for(lambda: rcode_of(yard, new) == dns.rcode.NOTAUTH)
    assert SECRET not in yard.dnsd.said


def rcode_of(yard: Yard, ring: Ring) -> int:
    """Of several polls, which go to both workers: the worst."""

    def one() -> int:
        query = signed_query(ZONE, ring=ring)
        try:
            return int(dns.query.udp(query, "127.0.0.1", 2.0, yard.address.port).rcode())
        except dns.tsig.PeerError:
            return int(dns.rcode.NOTAUTH)

    return max(one() for _ in range(10))


@pytest.mark.parametrize("offset", [-600, 600])
@pytest.mark.parametrize("rtype", [dns.rdatatype.SOA, dns.rdatatype.AXFR])
def test_x24_k6_a_clock_off_by_600_seconds_is_told_so(
    yard: Yard, offset: int, rtype: dns.rdatatype.RdataType
) -> None:
    question = dns.message.make_query(ZONE, rtype).to_wire()
    assert question is not None
    packet, mac = signed_at(question, time.time() + offset)

    with pytest.raises(dns.tsig.PeerBadTime):  # its own signature was found good before
        dns.message.from_wire(exchange(yard, packet), keyring=keyring(), request_mac=mac)


def signed_at(packet: bytes, moment: float) -> tuple[bytes, bytes]:
    """*packet* signed by dnspython as if it were *moment*; and the MAC."""
    (key,) = keyring().values()
    original = packet[0] << 8 | packet[1]
    template: Any = dns.rdata.from_text("ANY", "TSIG", f"hmac-sha256. 0 300 3 AAAA {original} 0 0")
    sign: Any = dns.tsig.sign
    signature, _ = sign(packet, key, template, int(moment), b"")
    data: bytes = signature.to_wire()
    record = wire_name(KEY_NAME) + struct.pack("!HHIH", 250, 255, 0, len(data)) + data
    mac: bytes = signature.mac
    return packet[:10] + b"\0\1" + packet[12:] + record, mac


def exchange(yard: Yard, packet: bytes) -> bytes:
    """The first message that answers *packet* over TCP."""
    with socket.create_connection((yard.address.host, yard.address.port), 5.0) as connection:
        connection.sendall(struct.pack("!H", len(packet)) + packet)
        with connection.makefile("rb") as file:
            (size,) = struct.unpack("!H", file.read(2))
            return file.read(size)


def test_x6_both_workers_give_the_same_zone_at_the_same_serial(yard: Yard) -> None:
    yard.wait_until_equal()
    yard.reads += 4

    found = [zone_at(yard.address, keyring()) for _ in range(4)]

    assert all(zone == found[0] for zone in found)
