"""EDNS options that speak of the zone: EXPIRE (E31) and ZONEVERSION (E35)."""

import struct

import dns.edns
import dns.message
import dns.rcode
import pytest

from dnsd.wire import option
from tests.support.dns import query
from tests.support.dnsd import APEX, LOCAL_TCP, Dnsd, instance, outcome
from tests.support.primary import World, replies, signed_query

EXPIRE, ZONEVERSION = 9, 19


@pytest.fixture
def dnsd() -> Dnsd:
    return Dnsd(instance())


def options(message: dns.message.Message) -> dict[int, bytes]:
    return {int(o.otype): o.to_wire() or b"" for o in message.options}


@pytest.mark.parametrize(
    ("name", "rtype", "expected"),
    [
        (APEX, "SOA", "NOERROR"),
        ("payments", "A", "NOERROR"),
        ("payments", "MX", "NODATA"),
        ("nobody", "A", "NXDOMAIN"),
    ],
)
def test_e35_the_version_of_the_zone_comes_with_every_answer_from_it(
    dnsd: Dnsd, name: str, rtype: str, expected: str
) -> None:
    answer = dnsd.dig(name, rtype, edns=1232, options=[(ZONEVERSION, b"")])

    assert outcome(answer) == expected
    assert options(answer) == {ZONEVERSION: struct.pack("!BBI", 2, 0, dnsd.catalog.revision)}


def test_e35_it_moves_with_the_zone_also_for_names_asked_before(dnsd: Dnsd) -> None:
    for _ in range(3):
        dnsd.dig("payments", "A", edns=1232)
    dnsd.up(instance("other"))

    answer = dnsd.dig("payments", "A", edns=1232, options=[(ZONEVERSION, b"")])

    assert options(answer)[ZONEVERSION][2:] == struct.pack("!I", dnsd.catalog.revision)


def test_e35_unasked_it_does_not_come(dnsd: Dnsd) -> None:
    assert options(dnsd.dig("payments", "A", edns=1232)) == {}
    assert options(dnsd.dig("payments", "A", edns=1232, options=[(100, b"")])) == {}


def test_e35_a_name_that_is_not_ours_has_no_version(dnsd: Dnsd) -> None:
    answer = dnsd.dig("example.org.", "A", edns=1232, options=[(ZONEVERSION, b"")])

    assert outcome(answer) == "REFUSED"
    assert ZONEVERSION not in options(answer)


def test_e35_s1_before_the_zone_is_loaded_it_has_no_version() -> None:
    answer = Dnsd(state="loading").dig(APEX, "SOA", edns=1232, options=[(ZONEVERSION, b"")])

    assert outcome(answer) == "SERVFAIL"
    assert ZONEVERSION not in options(answer)


@pytest.mark.parametrize("asked", [[(ZONEVERSION, b"\2")], [(ZONEVERSION, b"")] * 2])
def test_e35_with_data_or_twice_it_is_formerr(dnsd: Dnsd, asked: list[tuple[int, bytes]]) -> None:
    answer = dnsd.dig("payments", "A", edns=1232, options=asked)

    assert outcome(answer) == "FORMERR"
    assert answer.question
    assert answer.edns == 0
    assert options(answer) == {}


@pytest.mark.parametrize("sent", [b"", b"\0\0\0\1"])
def test_e31_with_the_soa_of_the_apex_comes_its_expire(dnsd: Dnsd, sent: bytes) -> None:
    answer = dnsd.dig(APEX, "SOA", edns=1232, options=[(EXPIRE, sent)])

    assert options(answer) == {EXPIRE: struct.pack("!I", answer.answer[0][0].expire)}


@pytest.mark.parametrize(
    ("name", "rtype"),
    [("payments", "A"), ("payments", "SOA"), (APEX, "NS"), ("example.org.", "SOA")],
)
def test_e31_other_names_and_types_get_none(dnsd: Dnsd, name: str, rtype: str) -> None:
    answer = dnsd.dig(name, rtype, edns=1232, options=[(EXPIRE, b"")])

    assert EXPIRE not in options(answer)


@pytest.mark.parametrize("rtype", ["AXFR", "IXFR"])
def test_e31_it_comes_with_the_first_message_of_a_transfer(rtype: str) -> None:
    world = World()
    for n in range(200):
        world.up(instance("crowd", f"c{n}", (f"10.0.0.{n}",)))
    asked = signed_query(rtype=rtype, serial=0 if rtype == "IXFR" else None, edns=1232)
    expire = dns.edns.GenericOption(dns.edns.OptionType(EXPIRE), b"")
    asked.use_edns(0, 0, 1232, options=[expire])

    first, *rest = replies(world.messages(asked), asked)

    assert options(first) == {EXPIRE: struct.pack("!I", 86400)}
    assert rest
    assert all(message.edns < 0 for message in rest)


def test_refused_transfers_say_nothing_of_the_zone() -> None:
    world = World()
    packet = query(APEX, "AXFR", edns=1232, options=[(EXPIRE, b""), (ZONEVERSION, b"")])

    reply = world.reply(packet, LOCAL_TCP).packet

    assert reply is not None
    answer = dns.message.from_wire(reply)
    assert answer.rcode() == dns.rcode.REFUSED
    assert set(options(answer)) == {15}


def test_t1_options_are_counted_when_the_reply_has_to_fit() -> None:
    dnsd = Dnsd(*(instance("crowd", f"c{n}", (f"10.0.0.{n}",)) for n in range(40)))
    for size in range(512, 700):
        packet = query("crowd.svc.internal.", "A", edns=size, options=[(ZONEVERSION, b"")])
        reply = dnsd.raw(packet)
        assert reply is not None
        assert len(reply) <= size
        assert option(ZONEVERSION, b"\2\0" + bytes(dnsd.table.serial)) in reply
