"""The whole tree of names: each exists or does not, and below what does not exist nothing does.

What exists is read from a transfer, so it is what other servers would be given.
"""

from functools import cache

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.model import Port
from tests.support.dns import header, question
from tests.support.dnsd import LOCAL_TCP, Dnsd, instance, outcome, query_of, rdatas
from tests.support.primary import Copy, World

ZONES = ("svc.internal.", "deep.er.svc.internal.", "other.example.")
NETWORKS = ("10.0.0.0/8", "192.0.2.0/25", "fd00::/8")
PORTS = (Port("http", 8080), Port("metrics", 9100), Port("game", 4000, "udp"))
TYPES = ("A", "AAAA", "SRV", "PTR", "TXT", "NS", "SOA", "ANY", "HTTPS", "CNAME", "MX")

INSTANCES = (
    instance("payments", "pay-1", ("10.0.0.1",), PORTS, version="v1.0", zone="eu-1", tags=("x",)),
    instance("payments", "pay-2", ("10.0.0.2", "fd00::2"), PORTS[:1], version="v2", zone="us-1"),
    instance("nmap_service", "vertice_a", ("192.0.2.5",), PORTS[2:], health_endpoint="/ready"),
    instance("http", "h1", ("10.0.0.1",), (Port("web", 80),), tags=("a", "b")),
    instance("idle", "i1", ("10.9.0.1",), state="draining"),
    instance("s" * 63, "i" * 63, ("10.0.0.3",)),
)


@cache
def world() -> World:
    made = World(zones=ZONES, reverse=NETWORKS)
    for one in (*INSTANCES, instance("gone", "g1", ("10.8.0.1",))):
        made.up(one)
    made.down("gone", "g1")
    return made


@cache
def apexes() -> tuple[str, ...]:
    return tuple(served.zone.apex for served in world().table.zones)


@cache
def owners() -> frozenset[dns.name.Name]:
    """Every name with records in any of the zones."""
    found: set[dns.name.Name] = set()
    for apex in apexes():
        found |= set(Copy(apex).transfer(world()).zone.nodes)
    return frozenset(found)


def wire(name: dns.name.Name) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in name.labels)


def ask(name: dns.name.Name, rtype: str = "A") -> dns.message.Message:
    packet = header() + question(wire(name), dns.rdatatype.from_text(rtype))
    reply = world().reply(packet, LOCAL_TCP).packet
    assert reply is not None
    return dns.message.from_wire(reply)


def above(name: dns.name.Name) -> list[dns.name.Name]:
    """*name* and the names above it, as far as they are ours."""
    tops = [dns.name.from_text(apex) for apex in apexes()]
    chain = []
    while any(name.is_subdomain(top) for top in tops):
        chain.append(name)
        name = name.parent()
    return chain


@cache
def existing() -> tuple[dns.name.Name, ...]:
    """Every name that has to exist, in an order that does not change."""
    names = {name for owner in owners() for name in above(owner)}
    return tuple(sorted(names, key=wire))


def test_l4_every_name_above_a_record_exists() -> None:
    """NXDOMAIN would deny everything below (RFC 8020)."""
    assert len(existing()) > 400

    for name in existing():
        for rtype in ("A", "PTR", "HTTPS"):
            assert ask(name, rtype).rcode() == dns.rcode.NOERROR, name


@pytest.mark.parametrize("apex", ["svc.internal.", "10.in-addr.arpa.", "d.f.ip6.arpa."])
def test_l2_x6_what_is_transferred_is_what_is_answered(apex: str) -> None:
    """Every set of every name, with its TTL."""
    records = Copy(apex).transfer(world()).records()
    for name, rtype in {(r[0], r[2]) for r in records}:
        answer = ask(dns.name.from_text(name), rtype).answer[0]

        asked = {(name, answer.ttl, rtype, rdata.to_text()) for rdata in answer}
        assert {r for r in records if (r[0], r[2]) == (name, rtype)} == asked


@cache
def labels() -> tuple[bytes, ...]:
    """Labels of the tree, and others."""
    found = {label for owner in owners() for label in owner.labels if label}
    near = {b"tag", b"zone", b"state", b"version", b"prefer", b"service", b"_sub", b"_udp", b"v1-0"}
    odd = {b"x", b"_x", b"01", b"256", b"a.b", b"\0", b"\xff", b"*", b"S" * 63, b"_tcp", b"deep"}
    return tuple(sorted(found | near | odd))


NAMES = st.tuples(st.lists(st.integers(0, 9999), max_size=4), st.integers(0, 9999))


def name_of(before: list[int], start: int) -> dns.name.Name:
    """A name near one of the tree: some labels before one that exists."""
    base = existing()[start % len(existing())]
    parts = [labels()[n % len(labels())] for n in before]
    while sum(len(p) + 1 for p in (*parts, *base.labels)) > 255:
        parts.pop()
    return dns.name.Name([*parts, *base.labels])


@given(NAMES)
def test_l5_l6_below_a_name_that_does_not_exist_nothing_does(
    drawn: tuple[list[int], int],
) -> None:
    """Every name has one of data, NODATA and NXDOMAIN, whatever is asked; in that order down."""
    chain = above(name_of(*drawn))
    exists = []
    for name in chain:
        codes = {ask(name, rtype).rcode() for rtype in TYPES}
        assert len(codes) == 1, f"{name}: {codes}"
        assert codes <= {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}
        exists.append(codes == {dns.rcode.NOERROR})

    # From the name itself up to the apex: once something exists, all above it does.
    assert exists == sorted(exists)
    assert exists[-1], "an apex exists"


@given(NAMES, st.sampled_from(TYPES))
def test_g1_l10_every_answer_is_of_one_form(drawn: tuple[list[int], int], rtype: str) -> None:
    name = name_of(*drawn)
    answer = ask(name, rtype)

    assert answer.flags & dns.flags.AA
    assert len(answer.answer) <= 1
    if answer.answer:
        (rrset,) = answer.answer
        assert rrset.name == name
        assert rtype in (dns.rdatatype.to_text(rrset.rdtype), "ANY")
        assert not answer.authority
        assert 0 < rrset.ttl <= 60
    else:
        (soa,) = answer.authority
        assert name.is_subdomain(soa.name)
        assert soa.name == max(
            (dns.name.from_text(a) for a in apexes() if name.is_subdomain(dns.name.from_text(a))),
            key=len,
        )
        assert soa.ttl == 5


@given(NAMES)
def test_answers_from_one_table_are_the_same_the_second_time(
    drawn: tuple[list[int], int],
) -> None:
    name = name_of(*drawn)
    for rtype in ("A", "SRV", "PTR", "TXT"):
        first, second = ask(name, rtype), ask(name, rtype)
        assert first.rcode() == second.rcode()
        assert {str(r) for s in first.answer for r in s} == {
            str(r) for s in second.answer for r in s
        }


def test_r2_every_target_has_an_address_and_is_no_alias() -> None:
    targets = set()
    for apex in apexes():
        for r in Copy(apex).transfer(world()).records():
            if r[2] == "SRV":
                targets.add(r[3].split()[3])
            elif r[2] == "PTR" and "arpa" in r[0] and "_dns-sd" not in r[0]:
                targets.add(r[3])
    assert len(targets) == 5

    for target in targets:
        name = dns.name.from_text(target)
        assert ask(name, "A").answer or ask(name, "AAAA").answer
        assert not ask(name, "CNAME").answer


# --- zones within others --------------------------------------------------------------------------


def test_l28_names_above_an_inner_zone_exist_in_the_outer_one() -> None:
    dnsd = Dnsd(instance(), zones=ZONES)

    assert outcome(dnsd.dig("er.svc.internal.")) == "NODATA"
    assert outcome(dnsd.dig("x.er.svc.internal.")) == "NXDOMAIN"
    assert rdatas(dnsd.dig("payments.deep.er.svc.internal.")) == ["10.0.0.1"]
    inner = dnsd.dig("x.deep.er.svc.internal.").authority[0]
    assert str(inner.name) == "deep.er.svc.internal."
    assert rdatas(dnsd.dig("deep.er.svc.internal.", "SOA"))[0].startswith("ns1.deep.er.")


def test_l28_the_order_in_which_zones_are_given_does_not_matter() -> None:
    for zones in (ZONES, ZONES[::-1]):
        dnsd = Dnsd(instance(), zones=zones)
        assert outcome(dnsd.dig("er.svc.internal.")) == "NODATA"
        assert rdatas(dnsd.dig("payments.deep.er.svc.internal.")) == ["10.0.0.1"]


# --- memory ---------------------------------------------------------------------------------------


def test_b8_compiled_answers_are_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnsd.table.MAX_COMPILED", 20_000)
    dnsd = Dnsd(*(instance(f"service-{n}", "a", (f"10.0.0.{n}",)) for n in range(40)))
    for n in range(40):
        dnsd.dig(f"service-{n}")

    table = dnsd.table
    assert 0 < table._size <= 20_000
    assert table._size == sum(group.size for group in table._groups.values())
    assert len(table._names) == sum(len(group.names) for group in table._groups.values())
    assert "service-39" in table._groups
    assert "service-0" not in table._groups
    assert rdatas(dnsd.dig("service-0")) == ["10.0.0.0"]


def test_b8_every_combination_of_values_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnsd.table.MAX_COMPILED", 50_000)
    tags = tuple(f"t{n}" for n in range(10))
    dnsd = Dnsd(*(instance("pay", f"p{n}", (f"10.0.0.{n}",), tags=tags) for n in range(20)))
    for a in tags:
        for b in tags:
            assert outcome(dnsd.dig(f"{a}.tag.{b}.tag.pay", "SRV")) == "NOERROR"

    assert dnsd.table._size <= 50_000


def test_names_as_they_are_spelled_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnsd.table.MAX_NAMES", 10)
    dnsd = Dnsd(*(instance(f"service-{n}", "a") for n in range(40)))
    for n in range(40):
        dnsd.reply(query_of(f"service-{n}.svc.internal."))
        assert len(dnsd.table._names) <= 10
    assert sum(len(group.names) for group in dnsd.table._groups.values()) <= 10
