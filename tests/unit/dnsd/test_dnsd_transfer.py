"""Zone transfers: dnspython copies the zone, and its copy must be what dnsd answers."""

import struct
from typing import Any, get_args

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsd import contents, transfer, zone
from dnsd.journal import HALF, SERIALS, Journal
from dnsd.places import (
    AtDefaultPort,
    AtInstance,
    AtListed,
    AtPort,
    AtService,
    AtSubtype,
    Between,
    Place,
)
from dnsd.query import HEADER, Query, parse_query
from dnsd.responder import Peer
from dnsd.zone import Rrset, Zone
from registry.catalog import Catalog, Service
from registry.model import Instance, Port
from tests.support.dns import ede, header, question, wire_name
from tests.support.dnsd import APEX, LOCAL, LOCAL_TCP, instance
from tests.support.primary import (
    KEY_NAME,
    SECRET,
    Copy,
    Record,
    World,
    read,
    replies,
    signed_query,
)

OTHER = "other.example."
PORTS = (Port("http", 8080), Port("metrics", 9100), Port("game", 4000, "udp"))


def a_world(**more: Any) -> World:
    """Services of every kind: spelled with `_`, of several ports, on IPv6, not serving, gone."""
    world = World(**more)
    world.up(instance())
    world.up(instance("nmap_service", "vertice_nmap", ("10.1.0.1", "2001:db8::1"), PORTS))
    world.up(instance("nmap_service", "second", ("10.1.0.2",), PORTS[:1], priority=10, weight=0))
    world.up(instance("idle", "i1", ("10.2.0.1",), state="draining"))
    world.up(instance("gone", "g1", ("10.2.0.2",)))
    world.up(instance("a" * 63, "b" * 63, ("10.3.0.1",), metadata={"k": "v" * 200}))
    world.down("gone", "g1")
    return world


def crowd(count: int, world: World | None = None) -> World:
    world = world or World()
    for n in range(count):
        world.up(instance("crowd", f"c{n}", (f"10.{n // 62500}.{n // 250 % 250}.{n % 250 + 1}",)))
    return world


# --- AXFR: who, what, in which form ---------------------------------------------------------------


def test_x1_a_zone_is_what_stands_between_two_soas() -> None:
    world = a_world()
    query = signed_query(rtype="AXFR", edns=1232)
    found = list(replies(world.messages(query), query))

    rrs = [rrset for message in found for rrset in message.answer]
    assert [rr.rdtype for rr in rrs].count(dns.rdatatype.SOA) == 2
    assert rrs[0] == rrs[-1]
    assert rrs[0].rdtype == dns.rdatatype.SOA
    assert rrs[0][0].serial == world.serial
    for message in found:
        assert message.id == query.id
        assert message.rcode() == dns.rcode.NOERROR
        assert message.flags == dns.flags.QR | dns.flags.AA
        assert message.question == query.question
    assert found[0].edns == 0


def test_x6_every_record_that_is_sent_is_what_a_question_gets() -> None:
    """And all of the set: an asker of the copy gets what an asker of dnsd gets."""
    world = a_world()
    records = Copy().transfer(world).records()
    for name, rtype in {(r[0], r[2]) for r in records}:
        sent = {r for r in records if (r[0], r[2]) == (name, rtype)}
        answer = world.ask(signed_query(name, rtype), LOCAL_TCP).answer[0]

        asked = {(name, answer.ttl, rtype, rdata.to_text()) for rdata in answer}
        assert sent == asked


def test_x6_every_name_that_dnsd_answers_with_data_is_sent() -> None:
    """Canonical and registered spellings of each kind of name."""
    names = {r[0] for r in Copy().transfer(a_world()).records()}

    for svc, ids in (
        ("payments", ["pay-1"]),
        ("nmap-service", ["vertice-nmap", "vertice_nmap", "second"]),
        ("nmap_service", ["vertice-nmap", "vertice_nmap", "second"]),
        ("a" * 63, ["b" * 63]),
    ):
        assert f"{svc}.{APEX}" in names
        assert f"_http._tcp.{svc}.{APEX}" in names
        assert (f"_{svc}._tcp.{APEX}" in names) == (len(svc) < 63)
        assert all(f"{i}.{svc}.{APEX}" in names for i in ids)
    assert f"_game._udp.nmap_service.{APEX}" in names
    assert f"_nmap_service._udp.{APEX}" in names
    assert f"ns1.{APEX}" in names
    assert not [name for name in names if "idle" in name or "gone" in name]


def test_every_kind_of_place_is_transferred_or_holds_no_records() -> None:
    """A new kind of name must be added to contents.py too."""
    records = {AtService, AtPort, AtDefaultPort, AtInstance, AtListed, AtSubtype}
    assert set(get_args(Place)) == records | {Between}


def test_x6_several_zones_show_the_same_services_with_targets_in_the_first() -> None:
    world = a_world(zones=(APEX, OTHER))

    records = Copy(OTHER).transfer(world).records()

    assert ("payments.other.example.", 5, "A", "10.0.0.1") in records
    assert (
        "_http._tcp.payments.other.example.", 5, "SRV", f"0 100 8080 pay-1.payments.{APEX}"
    ) in records  # fmt: skip
    assert ("ns1.other.example.", 60, "A", "192.0.2.53") in records


def test_a_service_with_the_name_of_a_name_server_is_not_sent_under_it() -> None:
    """As it is not answered under it."""
    world = World()
    world.up(instance("ns1", "x", ("10.9.9.9",)))

    assert {r for r in Copy().transfer(world).records() if r[0] == f"ns1.{APEX}"} == {
        (f"ns1.{APEX}", 60, "A", "192.0.2.53"),
        (f"ns1.{APEX}", 60, "AAAA", "2001:db8::53"),
    }


def test_x6_every_service_is_browsed_listed_and_chosen_from_in_the_copy() -> None:
    world = a_world()
    records = Copy().transfer(world).records()

    for name, rtype, data in (
        ("catalog", "PTR", f"nmap-service.{APEX}"),
        ("catalog", "TXT", f'"rev={world.catalog.revision}"'),
        ("dns-version", "TXT", '"1.0.0"'),
        ("_services._dns-sd._udp", "PTR", f"_game._udp.{APEX}"),
        ("_game._udp", "PTR", rf"vertice-nmap\.nmap-service._game._udp.{APEX}"),
        ("_nmap-service._sub._http._tcp", "PTR", rf"second\.nmap-service._http._tcp.{APEX}"),
        (r"second\.nmap-service._http._tcp", "SRV", f"10 0 8080 second.nmap-service.{APEX}"),
        ("b._dns-sd._udp", "PTR", APEX),
        ("payments.service", "A", "10.0.0.1"),
        ("_http._tcp.payments.service", "SRV", f"0 100 8080 pay-1.payments.{APEX}"),
        ("serving.state.payments", "A", "10.0.0.1"),
        ("_http._tcp.serving.state.payments", "SRV", f"0 100 8080 pay-1.payments.{APEX}"),
        (
            "_game._udp.vertice-nmap.nmap_service",
            "SRV",
            f"0 100 4000 vertice-nmap.nmap-service.{APEX}",
        ),
    ):
        assert (f"{name}.{APEX}", rtype, data) in {(r[0], r[2], r[3]) for r in records}


def test_x9_what_depends_on_the_question_is_not_in_the_copy() -> None:
    names = {r[0] for r in Copy().transfer(a_world()).records()}

    assert not [n for n in names if "prefer" in n or n.count(".state.") > 1]
    assert f"second.nmap-service.service.{APEX}" not in names


def test_names_too_long_to_be_asked_are_not_sent() -> None:
    """A zone of 127 octets, and the longest names in it: a port before them has no room."""
    home = ".".join(["h" * 62, "o" * 62]) + "."
    world = World(zones=(home,))
    world.up(instance("s" * 63, "i" * 63, version="v" * 63, ports=(Port("p" * 15, 1),)))

    records = Copy(home).transfer(world).records()

    names = {r[0] for r in records}
    assert f"{'i' * 63}.{'s' * 63}.{home}" in names
    assert f"_{'p' * 15}._tcp.{'s' * 63}.{home}" in names
    assert f"serving.state.{'s' * 63}.{home}" in names
    assert not [n for n in names if "v" * 63 in n or len(n) > 254]
    for name in (f"_{'p' * 15}._tcp.{'s' * 63}.{home}", f"_{'p' * 15}._tcp.{home}"):
        for rtype in ("SRV", "PTR"):
            world.ask(signed_query(name, rtype), LOCAL_TCP)


def test_x6_a_reverse_zone_has_the_addresses_in_it() -> None:
    world = a_world(reverse=("10.0.0.0/8", "fd00::/8"))

    records = Copy("10.in-addr.arpa.").transfer(world).records()

    pointers = {(r[0], r[3]) for r in records if r[2] == "PTR" and "_udp" not in r[0]}
    assert pointers == {
        ("1.0.0.10.in-addr.arpa.", f"pay-1.payments.{APEX}"),
        ("1.0.1.10.in-addr.arpa.", f"vertice-nmap.nmap-service.{APEX}"),
        ("2.0.1.10.in-addr.arpa.", f"second.nmap-service.{APEX}"),
        ("1.0.3.10.in-addr.arpa.", f"{'b' * 63}.{'a' * 63}.{APEX}"),
    }
    assert ("10.in-addr.arpa.", 60, "NS", f"ns1.{APEX}") in records
    assert not [r for r in Copy("d.f.ip6.arpa.").transfer(world).records() if "_udp" not in r[0]][
        1:
    ]


def test_x6_a_set_too_large_to_answer_is_no_larger_in_the_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dnsd.shared.MAX_RRSET", 3000)
    world = World()
    for n in range(200):
        world.up(instance(f"service-{n // 10}", f"i{n % 10}", (f"10.0.0.{n}",)))
    copy = Copy().transfer(world)

    def listed() -> set[str]:
        return {r[3] for r in copy.records() if r[0] == f"_http._tcp.{APEX}"}

    assert 80 < len(listed()) < 200
    for n in (3, 7, 15):
        world.down(f"service-{n}", "i5")
        world.up(instance("fresh", f"f{n}", (f"10.9.9.{n}",)))
    copy.transfer(world)
    assert copy.was_incremental
    answer = world.ask(signed_query(f"_http._tcp.{APEX}", "PTR"), LOCAL_TCP).answer[0]
    assert listed() == {rdata.to_text() for rdata in answer}


def test_x6_ttls_are_the_usual_ones_also_while_the_store_is_away() -> None:
    """Otherwise one serial would have two contents."""
    world = World()
    world.up(instance(lease_ttl=0, record_ttl=600))
    usual = Copy().transfer(world).records()
    world.table.reset("stale")

    assert Copy().transfer(world).records() == usual
    assert (f"payments.{APEX}", 600, "A", "10.0.0.1") in usual


def test_x6_the_same_serial_is_the_same_content_however_it_was_reached() -> None:
    """One replica saw each change, another took a snapshot, a third came in between."""
    first = a_world()
    loaded = World()
    loaded.load(Catalog.of(first.catalog.snapshot()))

    assert loaded.serial == first.serial
    assert Copy().transfer(loaded).records() == Copy().transfer(first).records()


def test_x6_a_transfer_is_of_one_version_though_changes_come_meanwhile() -> None:
    world = crowd(400)
    query = signed_query(rtype="AXFR")
    before = Copy().transfer(world).records()
    reply = world.reply(query.to_wire(), LOCAL_TCP)
    assert reply.transfer is not None
    messages = reply.transfer.messages()

    first = next(m for m in messages if m is not None)
    for n in range(200):
        world.down("crowd", f"c{n}")
    rest = [m for m in messages if m is not None]

    found: set[Record] = set()
    for message in replies([first, *rest], query):
        for rrset in message.answer:
            if rrset.rdtype != dns.rdatatype.SOA:
                rtype = dns.rdatatype.to_text(rrset.rdtype)
                found |= {(str(rrset.name), rrset.ttl, rtype, r.to_text()) for r in rrset}
    assert found == before


def test_x6_a_set_too_large_for_a_message_is_cut_as_it_is_answered() -> None:
    world = World()
    for n in range(700):
        world.up(instance("a" * 60, f"{n:05}{'b' * 55}", (f"10.0.{n // 250}.{n % 250 + 1}",)))
    name = f"_http._tcp.{'a' * 60}.{APEX}"

    sent = {r[3] for r in Copy().transfer(world).records() if r[0] == name}

    answer = world.ask(signed_query(name, "SRV"), LOCAL_TCP).answer[0]
    assert len(sent) < 700
    assert sent == {rdata.to_text() for rdata in answer}


@pytest.mark.parametrize("key", [KEY_NAME, "a-rather-longer-name.of-a-key.svc.internal."])
def test_x4_messages_are_filled_but_no_larger_than_16_kib(key: str) -> None:
    world = crowd(1500)
    query = signed_query(rtype="AXFR")
    messages = world.messages(query)

    assert len(messages) > 5
    assert all(len(m) <= transfer.MAX_MESSAGE for m in messages)
    assert all(len(m) > transfer.MAX_MESSAGE - 400 for m in messages[:-1])


def test_x5_each_message_is_signed_by_the_one_before() -> None:
    world = crowd(1000)
    query = signed_query(rtype="AXFR")
    messages = world.messages(query)
    assert len(messages) > 3

    assert all(m.had_tsig for m in replies(messages, query))
    for wrong in (messages[1:], [messages[0], *messages[2:]], messages[::-1]):
        with pytest.raises(dns.exception.DNSException):
            list(replies(wrong, query))


def test_n15_names_keep_their_case_whatever_case_was_asked_in() -> None:
    """RFC 5936, section 3.4: nothing points into a question that is spelled otherwise."""
    world = a_world()
    query = signed_query("SvC.InTeRnAl.", "AXFR")

    for message in replies(world.messages(query), query):
        assert str(message.question[0].name) == "SvC.InTeRnAl."
        for rrset in message.answer:
            assert str(rrset.name) == str(rrset.name).lower()


def test_n13_names_in_srv_data_are_not_compressed() -> None:
    world = crowd(3)
    (message,) = world.messages(signed_query(rtype="AXFR"))

    # At <svc> and _http._tcp.<svc>, both also below service and for its state; at _<svc>._tcp, its
    # own name, before that the port, and where it is browsed to.
    assert message.count(wire_name(f"c1.crowd.{APEX}")) == 10


def test_a_transfer_pauses_often() -> None:
    world = crowd(1000)
    reply = world.reply(signed_query(rtype="AXFR").to_wire(), LOCAL_TCP)
    assert reply.transfer is not None

    steps = list(reply.transfer.messages())

    assert steps.count(None) >= reply.transfer.records // transfer.SLICE - 1


@pytest.mark.parametrize("rtype", ["AXFR", "IXFR"])
def test_x2_without_a_key_transfers_are_refused_with_a_reason(rtype: str) -> None:
    world = a_world()
    query = dns.message.make_query(APEX, rtype, use_edns=0, payload=1232)
    packet = world.reply(query.to_wire(), LOCAL_TCP).packet

    assert packet is not None
    reply = dns.message.from_wire(packet)
    assert reply.rcode() == dns.rcode.REFUSED
    assert not reply.flags & dns.flags.AA
    assert reply.question == query.question
    assert ede(reply) == [18]


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ('zones = ["svc.internal"]', True),
        ('zones = ["other.example"]', False),
        ('addresses = ["127.0.0.0/8"]', True),
        ('addresses = ["10.0.0.0/8"]', False),
    ],
)
@pytest.mark.parametrize("rtype", ["AXFR", "IXFR"])
def test_x2_a_key_allows_its_zones_and_addresses(limits: str, allowed: bool, rtype: str) -> None:
    world = World(
        zones=(APEX, OTHER), keys=f'[[key]]\nname="{KEY_NAME}"\nsecret="{SECRET}"\n{limits}'
    )
    query = signed_query(rtype=rtype, serial=world.serial if rtype == "IXFR" else None)

    reply = read(world.messages(query)[0], query)

    assert reply.had_tsig
    assert (reply.rcode() == dns.rcode.NOERROR) == allowed
    assert (reply.rcode() == dns.rcode.REFUSED) == (not allowed)


@pytest.mark.parametrize("name", ["payments.svc.internal.", "nobody.svc.internal.", "example."])
@pytest.mark.parametrize("rtype", ["AXFR", "IXFR"])
def test_x3_of_what_is_no_apex_of_ours_nobody_is_the_authority(name: str, rtype: str) -> None:
    query = signed_query(name, rtype)
    reply = read(a_world().messages(query)[0], query)

    assert reply.rcode() == dns.rcode.NOTAUTH
    assert reply.question == query.question


def test_s1_before_the_first_load_transfers_are_servfail() -> None:
    world = World(state="loading")
    query = signed_query(rtype="AXFR", edns=1232)

    reply = read(world.messages(query)[0], query)

    assert reply.rcode() == dns.rcode.SERVFAIL
    assert ede(reply) == [14]


def test_x6_what_a_snapshot_lacked_is_not_transferred_as_its_content() -> None:
    """While such instances are kept this replica's content is not that of the serial."""
    world = a_world()
    world.settled = False

    for rtype in ("AXFR", "IXFR"):
        query = signed_query(rtype=rtype, serial=1 if rtype == "IXFR" else None)
        assert read(world.messages(query)[0], query).rcode() == dns.rcode.SERVFAIL


def test_x6_what_comes_unsettled_while_a_transfer_waits_is_servfail_too() -> None:
    world = a_world()
    query = signed_query(rtype="AXFR")
    reply = world.reply(query.to_wire(), LOCAL_TCP)
    assert reply.transfer is not None
    world.settled = False

    (message,) = reply.transfer.messages()

    assert message is not None
    assert read(message, query).rcode() == dns.rcode.SERVFAIL


def test_x8_a_transfer_for_which_there_is_no_room_is_refused_signed() -> None:
    query = signed_query(rtype="AXFR")
    reply = a_world().reply(query.to_wire(), LOCAL_TCP)
    assert reply.transfer is not None

    refusal = read(reply.transfer.refusal(), query)

    assert refusal.had_tsig
    assert refusal.rcode() == dns.rcode.REFUSED


def test_one_service_that_does_not_compile_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = zone.service_rrset

    def broken(apex: Zone, service: Service, *more: Any) -> Rrset | None:
        if service.name == "payments":
            raise ValueError("broken")
        return original(apex, service, *more)

    world = a_world()
    monkeypatch.setattr(contents, "service_rrset", broken)

    names = {r[0] for r in Copy().transfer(world).records()}

    assert f"nmap-service.{APEX}" in names
    assert not [n for n in names if "payments" in n and "_sub" not in n]
    assert ("payments", "not transferred: ValueError('broken')") in world.problems


# --- IXFR ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1, 1000, HALF - 1])
@pytest.mark.parametrize("peer", [LOCAL, LOCAL_TCP])
def test_x10_who_has_our_serial_or_a_newer_gets_our_soa_alone(ahead: int, peer: Peer) -> None:
    world = a_world()
    query = signed_query(rtype="IXFR", serial=(world.serial + ahead) % SERIALS)

    packet = world.reply(query.to_wire(), peer).packet

    assert packet is not None
    (rrset,) = read(packet, query).answer
    assert rrset[0].serial == world.serial


def test_x11_a_difference_is_one_step_between_the_serials() -> None:
    world = a_world()
    since = world.serial
    world.down("nmap-service", "second")
    world.up(instance("payments", "pay-2", ("10.0.0.2",)))
    query = signed_query(rtype="IXFR", serial=since)

    (message,) = replies(world.messages(query), query)

    rrs = list(message.answer)
    soas = [i for i, rr in enumerate(rrs) if rr.rdtype == dns.rdatatype.SOA]
    assert [rrs[i][0].serial for i in soas] == [world.serial, since, world.serial, world.serial]
    assert soas[0:2] == [0, 1]
    assert soas[3] == len(rrs) - 1
    removed, added = rrs[2 : soas[2]], rrs[soas[2] + 1 : -1]
    # Beside what names the instance or its address only: how many there are, and the revision.
    for rrs, told in (
        (removed, ("second", "10.1.0.2", "instances=", "rev=")),
        (added, ("pay-2", "10.0.0.2", "instances=", "rev=")),
    ):
        assert all(any(t in f"{rr.name} {rr[0]}" for t in told) for rr in rrs)


def test_x11_what_is_unchanged_is_not_sent() -> None:
    """One of 400 instances left: a message, not ten."""
    world = crowd(400)
    copy = Copy().transfer(world)
    world.down("crowd", "c77")
    world.up(instance("payments", "pay-2", ("10.0.0.2",)))

    messages = world.messages(signed_query(rtype="IXFR", serial=copy.serial))

    assert sum(map(len, messages)) < 3000
    assert copy.transfer(world).records() == Copy().transfer(world).records()
    assert copy.was_incremental


def test_x12_an_unknown_serial_gets_the_zone_under_qtype_ixfr() -> None:
    world = a_world(journal=Journal(max_bytes=2000))
    query = signed_query(rtype="IXFR", serial=0)

    (message,) = replies(world.messages(query), query)

    assert message.question[0].rdtype == dns.rdatatype.IXFR
    assert [rr.rdtype for rr in message.answer].count(dns.rdatatype.SOA) == 2
    assert len(message.answer) > 10


@pytest.mark.parametrize("far", [HALF, HALF + 5])
def test_g7_x12_a_serial_at_an_undefined_or_great_distance_is_unknown(far: int) -> None:
    world = a_world()
    query = signed_query(rtype="IXFR", serial=(world.serial - far) % SERIALS)
    messages = world.messages(query)

    soas = [
        rr for m in replies(messages, query) for rr in m.answer if rr.rdtype == dns.rdatatype.SOA
    ]
    # HALF + 5 behind is less than HALF ahead: newer than ours.
    assert len(soas) == (2 if far == HALF else 1)


def test_x12_a_difference_that_exceeds_the_zone_is_replaced_by_it() -> None:
    world = crowd(20)
    copy = Copy().transfer(world)
    for n in range(15):
        world.down("crowd", f"c{n}")

    copy.transfer(world)

    assert not copy.was_incremental
    assert copy.records() == Copy().transfer(world).records()


def test_x12_a_difference_that_is_too_large_to_make_at_once_is_replaced_by_the_zone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = crowd(100)
    copy = Copy().transfer(world)
    for n in range(20):
        world.down("crowd", f"c{n}")
    monkeypatch.setattr(transfer, "MAX_DIFFERENCE", 500)

    assert not copy.transfer(world).was_incremental
    assert copy.records() == Copy().transfer(world).records()


def test_x15_a_new_snapshot_ends_the_journal_and_the_zone_is_sent() -> None:
    world = a_world()
    copy = Copy().transfer(world)
    world.up(instance("payments", "pay-2", ("10.0.0.2",)))
    world.load(Catalog.of(world.catalog.snapshot()))

    assert not copy.transfer(world).was_incremental
    assert copy.records() == Copy().transfer(world).records()


def test_x11_another_replica_starts_from_any_serial_that_it_saw() -> None:
    """A secondary with two primaries asks now the one, now the other, and gets differences."""
    one, two = a_world(), a_world()
    copy = Copy().transfer(one)
    for n in range(10):
        for world in (one, two):
            world.up(instance("payments", f"pay-{n}", (f"10.0.1.{n}",)))
        copy.transfer((one, two)[n % 2])
        assert copy.was_incremental
        assert copy.records() == Copy().transfer(one).records()


def test_g6_g7_differences_across_the_end_of_32_bits() -> None:
    world = a_world(revision=SERIALS - 10)
    copy = Copy().transfer(world)
    assert world.serial > HALF
    for n in range(20):
        world.up(instance("payments", f"pay-{n}", (f"10.0.1.{n}",)))
    assert world.serial < 20

    assert copy.transfer(world).was_incremental
    assert copy.serial == world.serial
    assert copy.records() == Copy().transfer(world).records()


@pytest.mark.parametrize(
    "authority",
    [
        None,
        dns.rrset.from_text("other.example.", 0, "IN", "SOA", ". . 1 0 0 0 0"),
        dns.rrset.from_text(APEX, 0, "IN", "A", "10.0.0.1"),
    ],
    ids="none|another|not-soa".split("|"),
)
@pytest.mark.parametrize("peer", [LOCAL, LOCAL_TCP])
def test_x14_ixfr_that_does_not_say_from_where_is_formerr_signed(
    authority: dns.rrset.RRset | None, peer: Peer
) -> None:
    query = signed_query(rtype="IXFR")
    if authority is not None:
        query.authority.append(authority)

    reply = a_world().ask(query, peer)

    assert reply.had_tsig
    assert reply.rcode() == dns.rcode.FORMERR


def test_x14_without_a_key_the_same_is_refused() -> None:
    packet = a_world().reply(dns.message.make_query(APEX, "IXFR").to_wire(), LOCAL_TCP).packet

    assert packet is not None
    assert dns.message.from_wire(packet).rcode() == dns.rcode.REFUSED


def test_x13_over_udp_a_small_difference_comes_whole() -> None:
    world = a_world()
    copy = Copy().transfer(world)
    world.up(instance(metadata={"team": "red"}))
    query = signed_query(rtype="IXFR", serial=copy.serial, edns=1232)

    packet = world.reply(query.to_wire(), LOCAL).packet

    assert packet is not None
    assert len(packet) <= 1232
    reply = read(packet, query)
    assert sum(len(rrset) for rrset in reply.answer) > 5
    assert not reply.flags & dns.flags.TC


@pytest.mark.parametrize("many", [30, 100])
@pytest.mark.parametrize("known", [True, False])
def test_x13_over_udp_what_does_not_fit_is_our_soa_alone(many: int, known: bool) -> None:
    world = a_world(journal=Journal() if known else Journal(max_bytes=1000))
    since = world.serial
    crowd(many, world)
    query = signed_query(rtype="IXFR", serial=since, edns=1232)

    reply = world.ask(query)

    (rrset,) = reply.answer
    assert rrset[0].serial == world.serial
    assert not reply.flags & dns.flags.TC


def test_l24_axfr_over_udp_is_notimp() -> None:
    reply = a_world().ask(signed_query(rtype="AXFR"))

    assert reply.rcode() == dns.rcode.NOTIMP
    assert not reply.answer


# --- the law ------------------------------------------------------------------------------------

INSTANCES = st.builds(
    lambda service, id, address, port, weight, state: instance(
        service, id, (address,), (port,), weight=weight, state=state, tags=(f"w{weight}",)
    ),
    st.sampled_from(["web", "nmap_service", "db"]),
    st.sampled_from(["a", "b_1", "c"]),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1"]),
    st.sampled_from([Port("http", 80), Port("http", 81), Port("game", 80, "udp")]),
    st.sampled_from([0, 100]),
    st.sampled_from(["serving", "serving", "draining"]),
)
CHANGES = st.lists(
    st.tuples(INSTANCES, st.sampled_from(["up", "up", "down", "forget"])), max_size=25
)


def change(world: World, one: Instance, how: str) -> None:
    match how:
        case "up":
            world.up(one)
        case "down":
            world.down(one.service, one.id)
        case _:
            world.forget(one.service)


@settings(max_examples=15)
@given(
    CHANGES,
    st.integers(0, 2**33),
    st.integers(0, 5),
    st.sampled_from([APEX, OTHER, "10.in-addr.arpa."]),
)
def test_x11_a_difference_applied_to_the_old_zone_gives_the_new_one(
    changes: list[tuple[Instance, str]], revision: int, every: int, apex: str
) -> None:
    """Whatever happens in whatever order, from whatever serial on; removals are exact."""
    world = World(revision=revision, zones=(APEX, OTHER), reverse=("10.0.0.0/8",))
    filler = crowd(8, world)  # so that differences are less than the zone
    copies = [Copy(apex).transfer(filler)]
    for n, (one, how) in enumerate(changes):
        change(world, one, how)
        if every and n % every == 0:
            copies[-1].transfer(world)
            copies.append(Copy(apex).transfer(world))
    expected = Copy(apex).transfer(world).records()

    for copy in copies:
        copy.transfer(world)
        assert copy.serial == world.serial
        assert copy.records() == expected


def test_x14_a_soa_that_ends_before_its_serial_does_not_say_from_where() -> None:
    asked = parse_query(header() + question(APEX, 251))
    assert isinstance(asked, Query)
    soa = b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, 0, 2) + b"\0\0"

    assert transfer.asked_serial(header(ns=1) + asked.question + soa + bytes(20), asked) is None


@given(st.binary(max_size=80), st.integers(0, 3), st.integers(0, 3))
def test_any_octets_behind_an_ixfr_question_are_a_serial_or_none(
    octets: bytes, an: int, ns: int
) -> None:
    asked = parse_query(header() + question(APEX, 251))
    assert isinstance(asked, Query)
    packet = header(an=an, ns=ns) + asked.question + octets

    serial = transfer.asked_serial(packet, asked)

    assert serial is None or serial.to_bytes(4, "big") in packet[HEADER:]
