"""Messages on the wire: sizes, truncation, glue, order; read by dnslib and dnspython alike."""

import contextlib
import ipaddress
import random
from collections import Counter
from collections.abc import Iterable

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.compiler import Bucket, CompiledAnswer, compile_rrset, draw_order
from dnsd.places import AtPort, AtService
from dnsd.query import AAAA, MAX_UDP, SRV, TXT, A
from dnsd.served import ServedZone
from dnsd.zone import (
    Address,
    Record,
    Rrset,
    Srv,
    Txt,
    Zone,
    service_rrset,
    to_wire,
)
from registry.model import Port
from tests.support.dns import query
from tests.support.dnsd import LOCAL, LOCAL_TCP, SERVERS, Dnsd, glue, instance, rdatas

PORTS = (Port("http", 8080),)


def crowd(count: int, family: int = 4) -> Dnsd:
    addresses = [
        f"10.0.{n // 250}.{n % 250 + 1}" if family == 4 else f"2001:db8::{n + 1:x}"
        for n in range(count)
    ]
    return Dnsd(*(instance("crowd", f"c{n}", (a,)) for n, a in enumerate(addresses)))


# --- what two other libraries read is what zone.py asked for --------------------------------------


def plain(text: str) -> str:
    """*text* with the address in it as `ipaddress` writes it: libraries differ on IPv6."""
    *before, last = text.split(" ")
    with contextlib.suppress(ValueError):
        last = str(ipaddress.ip_address(last))
    return " ".join([*before, last])


IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).map(str)


@st.composite
def services(draw: st.DrawFn) -> Dnsd:
    ids = draw(st.lists(st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True), min_size=1, max_size=12))
    dnsd = Dnsd()
    for id in dict.fromkeys(ids):
        dnsd.up(
            instance(
                "payments",
                id,
                draw(st.lists(IPV4 | IPV6, min_size=1, max_size=4, unique=True)),
                PORTS,
                priority=draw(st.integers(0, 2)),
                weight=draw(st.sampled_from([0, 1, 100, 65535])),
                record_ttl=draw(st.integers(1, 15)),
                metadata={"k": draw(st.text(st.characters(codec="ascii"), max_size=200))},
                state=draw(st.sampled_from(["serving", "serving", "suspect", "draining"])),
            )
        )
    return dnsd


def texts(records: Iterable[Record]) -> set[str]:
    """Records of zone.py as zone files write them."""
    found = set()
    for record in records:
        match record:
            case Address(address):
                found.add(address)
            case Srv(priority, weight, port, target):
                found.add(f"{priority} {weight} {port} {target}")
            case Txt(strings):
                found.add(repr(strings))
    return found


def read_by_dnspython(packet: bytes) -> tuple[set[str], set[str]]:
    message = dns.message.from_wire(packet)
    answer = {
        repr(rdata.strings) if s.rdtype == dns.rdatatype.TXT else plain(rdata.to_text())
        for s in message.answer
        for rdata in s
    }
    return answer, set(map(plain, glue(message)))


def read_by_dnslib(packet: bytes) -> tuple[set[str], set[str]]:
    record = dnslib.DNSRecord.parse(packet)
    answer = {
        repr(tuple(r.rdata.data)) if r.rtype == dnslib.QTYPE.TXT else plain(str(r.rdata))
        for r in record.rr
    }
    return answer, {plain(f"{r.rname} {r.rdata}") for r in record.ar}


@given(services(), st.sampled_from([A, AAAA, SRV, TXT]), st.booleans())
def test_two_readers_find_exactly_the_records_that_the_zone_implies(
    dnsd: Dnsd, qtype: int, at_port: bool
) -> None:
    service = dnsd.catalog.service("payments")
    assert service is not None
    place = AtPort("http", "tcp") if at_port else AtService()
    name = "_http._tcp.payments.svc.internal." if at_port else "payments.svc.internal."
    zone = Zone("svc.internal.", SERVERS)
    rrset = service_rrset(zone, service, place, qtype, 3600)
    wanted = set() if rrset is None else texts(rrset.records)
    wanted_glue = {
        f"{srv.target} {address}"
        for srv in (rrset.records if rrset is not None else ())
        if isinstance(srv, Srv)
        for address in srv.addresses
    }

    packet = dnsd.reply(query(name, qtype), LOCAL_TCP).packet

    assert packet is not None
    for read in (read_by_dnspython, read_by_dnslib):
        answer, additional = read(packet)
        assert answer == wanted
        assert additional == wanted_glue
    ttls = {s.ttl for s in dns.message.from_wire(packet).answer}
    assert ttls == (set() if rrset is None else {rrset.ttl})


@given(
    services(),
    st.sampled_from(["A", "AAAA", "SRV", "TXT", "ANY"]),
    st.sampled_from(["payments", "_http._tcp.payments", "_payments._tcp", "_tcp.payments", "x"]),
    st.sampled_from([None, 0, 512, 600, 1000, 1232, 4096, 65535]),
)
def test_t1_t5_t10_t11_no_reply_is_longer_than_the_asker_takes(
    dnsd: Dnsd, rtype: str, name: str, edns: int | None
) -> None:
    limit = 512 if edns is None else min(max(edns, 512), MAX_UDP)
    packet = dnsd.reply(query(f"{name}.svc.internal.", rtype, edns=edns)).packet
    assert packet is not None
    whole = dnsd.dig(name, rtype, tcp=True)

    message = dns.message.from_wire(packet)  # counts match what is there, or it raises

    assert len(packet) <= limit
    assert (message.edns >= 0) == (edns is not None)
    truncated = bool(message.flags & dns.flags.TC)
    assert truncated or sorted(rdatas(message)) == sorted(rdatas(whole))
    assert set(rdatas(message)) <= set(rdatas(whole))
    if truncated:
        assert not message.additional
    assert not whole.flags & dns.flags.TC


# --- section 6 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("edns", "limit"), [(None, 512), (0, 512), (600, 600), (4096, 1232)])
@pytest.mark.parametrize(
    ("name", "rtype"), [("crowd", "A"), ("crowd", "SRV"), ("_http._tcp", "PTR")]
)
def test_t5_t6_t11_what_fits_is_kept_and_changes(
    edns: int | None, limit: int, name: str, rtype: str
) -> None:
    dnsd = crowd(100)
    packet = query(f"{name}.svc.internal.", rtype, edns=edns)
    replies = [dnsd.reply(packet) for _ in range(8)]
    messages = []
    for reply in replies:
        assert reply.packet is not None
        assert reply.truncated
        assert limit - 60 < len(reply.packet) <= limit
        messages.append(dns.message.from_wire(reply.packet))

    assert all(m.flags & dns.flags.TC for m in messages)
    assert len({tuple(rdatas(m)) for m in messages}) > 1


def test_t4_glue_is_left_out_by_whole_targets_from_the_end() -> None:
    dnsd = Dnsd(*(instance("c", f"c{n}", (f"10.0.0.{n}", f"2001:db8::{n}")) for n in range(1, 9)))
    answer = dnsd.dig("_http._tcp.c", "SRV", edns=512)

    assert not answer.flags & dns.flags.TC
    targets = [rdata.split()[3] for rdata in rdatas(answer)]
    assert len(targets) == 8
    owners = [line.split()[0] for line in glue(answer)]
    kept = len(owners) // 2
    assert 0 < kept < 8
    assert owners == [t for t in targets[:kept] for _ in (4, 6)]


def test_t3_glue_follows_the_order_of_the_answer() -> None:
    answer = crowd(5).dig("_http._tcp.crowd", "SRV")

    assert [line.split()[0] for line in glue(answer)] == [r.split()[3] for r in rdatas(answer)]


def test_t2_n14_a_large_tcp_answer_holds_everything() -> None:
    """Past offset 16,383 no pointer reaches: owners are written out."""
    dnsd = crowd(600)
    packet = dnsd.reply(query("_http._tcp.crowd.svc.internal.", "SRV", edns=1232), LOCAL_TCP).packet
    assert packet is not None
    assert len(packet) > 0x4000

    answer, additional = read_by_dnspython(packet)

    assert len(answer) == len(additional) == 600
    assert read_by_dnslib(packet)[0] == answer
    assert packet.endswith(b"\0\0\x29\x04\xd0\0\0\0\0\0\0"), "OPT is last"


def test_r12_t12_a_set_beyond_64_kib_is_cut_when_compiled_alike_everywhere() -> None:
    one, other = crowd(2500), crowd(2500)
    answer = one.dig("_http._tcp.crowd", "SRV", tcp=True)

    assert not answer.flags & dns.flags.TC
    assert 500 < len(rdatas(answer)) < 2500
    assert set(rdatas(answer)) == set(rdatas(other.dig("_http._tcp.crowd", "SRV", tcp=True)))
    assert one.problems
    assert one.problems[0][0] == "crowd"
    one.up(instance("crowd", "c0", ("10.9.9.9",)))
    assert set(rdatas(answer)) != set(rdatas(one.dig("_http._tcp.crowd", "SRV", tcp=True)))


def test_n13_srv_targets_are_never_compressed() -> None:
    packet = Dnsd(instance()).reply(query("_http._tcp.payments.svc.internal.", "SRV")).packet

    assert packet is not None
    assert packet.count(to_wire("pay-1.payments.svc.internal.")) == 1


# --- order ----------------------------------------------------------------------------------------


def compiled(weights: list[int]) -> CompiledAnswer:
    records = tuple(Address(f"10.0.0.{n + 1}", w) for n, w in enumerate(weights))
    soa = ServedZone.of(Zone("svc.internal.", SERVERS)).soa
    return compile_rrset(Rrset(A, 5, records), "", soa, 0)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=150), st.integers())
def test_every_order_holds_every_record_once(weights: list[int], seed: int) -> None:
    order = draw_order(compiled(weights), random.Random(seed))

    assert sorted(order) == list(range(len(weights)))


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([100, 100, 100], [1 / 3, 1 / 3, 1 / 3]),
        ([0, 0, 0, 0], [1 / 4] * 4),
        ([300, 100], [300.5 / 401, 100.5 / 401]),
        ([9, 0], [9 / 10, 1 / 10]),
        ([8, 0, 0], [8 / 9, 1 / 18, 1 / 18]),
    ],
)
def test_r4_the_first_is_drawn_by_weight_zeros_with_a_small_chance(
    weights: list[int], shares: list[float]
) -> None:
    """The walk of RFC 2782: the first running sum to reach a number drawn from 0..sum inclusive."""
    answer, rng, draws = compiled(weights), random.Random(7), 20_000

    first = Counter(draw_order(answer, rng)[0] for _ in range(draws))

    for index, share in enumerate(shares):
        assert first[index] / draws == pytest.approx(share, abs=0.015)


def test_r7_priorities_come_in_order_whatever_the_weights() -> None:
    answer = CompiledAnswer(
        0, True, buckets=(Bucket((2, 0), (1, 65535)), Bucket((1, 3), ())), records=(b"",) * 4
    )

    for seed in range(50):
        order = draw_order(answer, random.Random(seed))
        assert set(order[:2]) == {0, 2}
        assert set(order[2:]) == {1, 3}


def test_r6_r7_orders_change_from_reply_to_reply() -> None:
    dnsd = crowd(5)

    for rtype in ("A", "SRV"):
        seen = {tuple(rdatas(dnsd.dig("crowd", rtype))) for _ in range(20)}
        assert len(seen) > 5


def test_one_reply_is_the_same_whoever_asks() -> None:
    dnsd = Dnsd(instance())
    packet = query("payments.svc.internal.", "A")

    assert dnsd.raw(packet, LOCAL) == dnsd.raw(packet, LOCAL_TCP)


@pytest.mark.parametrize("name", ["a" * 64 + ".", "..", "a..b.", ".".join(["a" * 63] * 5)])
def test_what_is_no_name_does_not_become_octets(name: str) -> None:
    with pytest.raises(ValueError, match="octets"):
        to_wire(name)


@given(st.lists(st.from_regex(r"[a-z0-9_-]{1,63}", fullmatch=True), max_size=3))
def test_names_become_the_octets_that_dnspython_makes(labels: list[str]) -> None:
    text = "".join(label + "." for label in labels) or "."

    assert to_wire(text) == dns.name.from_text(text).to_wire()
