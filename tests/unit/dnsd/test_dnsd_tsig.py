"""Signatures: dnspython signs and reads, dnsd judges and answers."""

import base64
import struct
import time
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd import reading, tsig
from dnsd.keyring import read_keys, shown
from registry.runtime.config import ConfigError
from tests.support.dns import counts, flag_word, header, opt, question, wire_name
from tests.support.dnsd import APEX, LOCAL_TCP, instance
from tests.support.primary import KEY_NAME, SECRET, World, keyring, read, signed_query

Q = question(APEX, 6)
OTHER_SECRET = base64.b64encode(b"another one, of no use elsewhere").decode()


@pytest.fixture
def world() -> World:
    world = World()
    world.up(instance())
    return world


def tsig_of(packet: bytes) -> tsig.Tsig | None:
    """The signature's record, read by hand: dnspython will not show one that it cannot check."""
    last = list(reading.records(packet))[-1]
    return tsig.read_tsig(packet, last.at) if last.rtype == 250 else None


def record(
    of: tsig.Tsig | None = None,
    *,
    rclass: int = 255,
    ttl: int = 0,
    more: bytes = b"",
    **change: Any,
) -> bytes:
    """The record of *of* with some of it changed; of nothing, one with a MAC that is none."""
    zero = tsig.Tsig(
        wire_name(KEY_NAME),
        wire_name("hmac-sha256."),
        int(time.time()),
        300,
        bytes(32),
        b"\0\1",
        0,
        b"",
    )
    t = (of or zero)._replace(**change)
    rdata = b"".join(
        (
            t.algorithm,
            t.time.to_bytes(6, "big"),
            struct.pack("!HH", t.fudge, len(t.mac)),
            t.mac,
            t.original_id,
            struct.pack("!HH", t.error, len(t.other)),
            t.other,
            more,
        )
    )
    return t.name + struct.pack("!HHIH", 250, rclass, ttl, len(rdata)) + rdata


def resigned(query: dns.message.Message, **change: Any) -> bytes:
    """*query* with something else in the record of its signature."""
    packet = query.to_wire()
    last = list(reading.records(packet))[-1]
    return packet[: last.at] + record(tsig.read_tsig(packet, last.at), **change)


def key_file(**secrets: str) -> str:
    return "".join(f'[[key]]\nname="{n}"\nsecret="{s}"\n' for n, s in secrets.items())


# --- good ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha1"])
@pytest.mark.parametrize("rtype", ["SOA", "SRV", "NS", "MX", "ANY"])
def test_k9_a_good_signature_on_any_query_is_answered_by_one(algorithm: str, rtype: str) -> None:
    world = World(keys=f'[[key]]\nname="k"\nalgorithm="{algorithm}"\nsecret="{SECRET}"')
    query = signed_query(rtype=rtype, ring=keyring("k.", algorithm=algorithm))

    reply = world.ask(query)

    assert reply.had_tsig
    assert reply.rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize(
    ("name", "rtype", "rcode"),
    [
        ("elsewhere.example.", "A", dns.rcode.REFUSED),
        ("nobody.svc.internal.", "A", dns.rcode.NXDOMAIN),
        ("x.svc.internal.", "AXFR", dns.rcode.NOTAUTH),
        (APEX, "AXFR", dns.rcode.NOTIMP),
    ],
)
def test_k9_errors_are_signed_too(world: World, name: str, rtype: str, rcode: int) -> None:
    reply = world.ask(signed_query(name, rtype, edns=1232))

    assert reply.had_tsig
    assert reply.rcode() == rcode


def test_k9_badvers_found_after_the_signature_is_signed(world: World) -> None:
    query = signed_query(edns=1232)
    query.use_edns(1, 0, 1232)
    query.use_tsig(keyring())

    reply = world.ask(query)

    assert reply.had_tsig
    assert reply.rcode() == dns.rcode.BADVERS


def test_k9_formerr_found_after_the_signature_is_signed(world: World) -> None:
    query = signed_query(edns=1232)
    query.use_edns(
        0, 0, 1232, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"short")]
    )
    query.use_tsig(keyring())

    reply = world.ask(query)

    assert reply.had_tsig
    assert reply.rcode() == dns.rcode.FORMERR


def test_k9_without_a_signature_the_reply_has_none(world: World) -> None:
    query = dns.message.make_query(APEX, "SOA", use_edns=0)
    packet = world.reply(query.to_wire()).packet

    assert packet is not None
    assert tsig_of(packet) is None


def test_k9_a_signed_reply_is_never_remembered_for_others(world: World) -> None:
    assert world.reply(signed_query().to_wire()).keep is None


def test_k1_the_record_is_last_of_class_any_ttl_0_and_names_whole(world: World) -> None:
    packet = world.reply(signed_query(edns=1232).to_wire()).packet

    assert packet is not None
    *_, last_but_one, last = reading.records(packet)
    assert (last.rtype, last.rclass, last.ttl) == (250, 255, 0)
    assert last_but_one.rtype == dns.rdatatype.OPT
    assert packet[last.at :].startswith(wire_name(KEY_NAME))
    assert packet[last.rdata :].startswith(wire_name("hmac-sha256."))
    assert last.end == len(packet)


def test_k10_a_forwarder_may_have_changed_the_id(world: World) -> None:
    """The MAC is over the original ID; the reply has the one that came, and says so."""
    query = signed_query()
    packet = bytearray(query.to_wire())
    packet[:2] = b"\xab\xcd"

    reply = world.reply(bytes(packet)).packet

    assert reply is not None
    assert reply[:2] == b"\xab\xcd"
    query.id = 0xABCD
    assert read(reply, query).had_tsig


def test_k13_names_of_keys_are_compared_without_case(world: World) -> None:
    reply = world.ask(signed_query(ring=keyring("KNOT.svc.INTERNAL.")))

    assert reply.had_tsig


def test_k13_several_keys_at_once_each_signs_its_own() -> None:
    world = World(keys=key_file(one=SECRET, two=OTHER_SECRET))

    assert world.ask(signed_query(ring=keyring("one."))).had_tsig
    assert world.ask(signed_query(ring=keyring("two.", OTHER_SECRET))).had_tsig
    with pytest.raises(dns.tsig.PeerBadSignature):
        world.ask(signed_query(ring=keyring("two.")))


def test_k13_keys_change_while_it_runs(world: World) -> None:
    world.signatures.keys = read_keys(f'[[key]]\nname="new"\nsecret="{SECRET}"')

    assert world.ask(signed_query(ring=keyring("new."))).had_tsig
    with pytest.raises(dns.tsig.PeerBadKey):
        world.ask(signed_query())


# --- bad ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    [
        header(ar=2) + Q + record() + record(),
        header(ar=2) + Q + record() + opt(),
        header(an=1) + Q + record(),
        header(ns=1) + Q + record(),
        header(ar=1) + Q + record(rclass=1),
        header(ar=1) + Q + record(ttl=1),
        header(ar=1) + Q + record(mac=bytes(33)),
        header(ar=1) + Q + record(mac=bytes(15)),
        header(ar=1) + Q + record(mac=b""),
        header(ar=1) + Q + record(more=b"\0"),
        header(ar=1) + Q + record()[:-1],
    ],
    ids="two|not-last|answer|authority|class|ttl|long|short|none|longer|cut".split("|"),
)
def test_k2_a_record_that_is_wrong_is_formerr(world: World, packet: bytes) -> None:
    reply = world.reply(packet).packet

    assert reply is not None
    assert flag_word(reply) == 0x8001
    assert reply[12 : 12 + len(Q)] == Q


@pytest.mark.parametrize("size", [0, 5, 32, 100])
def test_k2_under_an_unknown_key_the_length_of_the_mac_does_not_matter(
    world: World, size: int
) -> None:
    reply = world.reply(header(ar=1) + Q + record(name=wire_name("other."), mac=bytes(size)))

    assert reply.tsig == "badkey"


def test_k2_a_compressed_name_of_the_algorithm_is_formerr(world: World) -> None:
    packet = header(ar=1) + Q + record(algorithm=b"\xc0\x0c")

    assert world.reply(packet).tsig == "formerr"


@pytest.mark.parametrize(
    "change",
    [
        {"name": wire_name("other.")},
        {"algorithm": wire_name("hmac-sha512.")},
        {"algorithm": wire_name("hmac-md5.sig-alg.reg.int.")},
        {"algorithm": wire_name("gss-tsig.")},
    ],
    ids="name|algorithm|md5|gss".split("|"),
)
def test_k4_an_unknown_key_or_algorithm_is_badkey_and_unsigned(
    world: World, change: dict[str, bytes]
) -> None:
    reply = world.reply(resigned(signed_query(), **change))

    check_unsigned(reply.packet, tsig.BADKEY)
    assert reply.tsig == "badkey"


def test_k4_without_any_key_every_signature_is_badkey() -> None:
    check_unsigned(World(keys="").reply(signed_query().to_wire()).packet, tsig.BADKEY)


def test_k5_a_wrong_secret_is_badsig_and_unsigned(world: World) -> None:
    query = signed_query(ring=keyring(secret=OTHER_SECRET))
    reply = world.reply(query.to_wire())

    check_unsigned(reply.packet, tsig.BADSIG)
    with pytest.raises(dns.tsig.PeerBadSignature):
        world.ask(query)


@pytest.mark.parametrize(
    "change",
    [{"time": 1}, {"fudge": 299}, {"error": 1}, {"other": b"x"}, {"original_id": b"\0\0"}],
    ids="time|fudge|error|other|id".split("|"),
)
def test_k10_the_mac_covers_all_of_the_record(world: World, change: dict[str, Any]) -> None:
    assert world.reply(resigned(signed_query(), **change)).tsig == "badsig"


@pytest.mark.parametrize("offset", [-600, -301, 301, 600])
def test_k6_a_clock_off_by_more_than_the_fudge_is_badtime_signed_with_both_times(
    world: World, offset: int
) -> None:
    query = signed_query()
    packet = query.to_wire()
    asked = tsig_of(packet)
    world.now += offset

    reply = world.reply(packet)

    assert reply.packet is not None
    assert reply.tsig == "badtime"
    assert flag_word(reply.packet) == 0x8009
    answer = tsig_of(reply.packet)
    assert answer is not None
    assert asked is not None
    assert (answer.error, len(answer.mac)) == (tsig.BADTIME, 32)
    assert (answer.time, answer.fudge) == (asked.time, asked.fudge)
    assert answer.other == int(world.now).to_bytes(6, "big")
    with pytest.raises(dns.tsig.PeerBadTime):  # and not a bad signature: that was checked first
        read(reply.packet, query)


@pytest.mark.parametrize("offset", [-299, 0, 299])
def test_k6_within_the_fudge_all_is_well(world: World, offset: int) -> None:
    world.now += offset

    assert world.reply(signed_query().to_wire()).tsig == ""


def test_k6_a_peer_that_grants_itself_hours_gets_five_minutes(world: World) -> None:
    packet = signed_query(fudge=65535).to_wire()
    world.now += 400

    assert world.reply(packet).tsig == "badtime"


def test_k6_a_captured_transfer_is_good_once_and_a_poll_as_often_as_it_comes(world: World) -> None:
    transfer, poll = signed_query(rtype="AXFR").to_wire(), signed_query().to_wire()

    assert world.reply(transfer, LOCAL_TCP).transfer is not None
    again = world.reply(transfer, LOCAL_TCP)
    assert (again.transfer, again.tsig) == (None, "badtime")
    assert [world.reply(poll, LOCAL_TCP).tsig for _ in range(3)] == [""] * 3


def test_k6_ixfr_over_udp_may_be_sent_again_as_it_was(world: World) -> None:
    packet = signed_query(rtype="IXFR", serial=0).to_wire()

    assert [world.reply(packet).tsig for _ in range(3)] == [""] * 3


def test_what_is_remembered_against_replays_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tsig, "MAX_SEEN", 2)
    first, *others = (signed_query(rtype="AXFR").to_wire() for _ in range(4))

    for packet in (first, *others):
        assert world.reply(packet, LOCAL_TCP).tsig == ""
    assert world.reply(first, LOCAL_TCP).tsig == ""
    assert world.reply(others[-1], LOCAL_TCP).tsig == "badtime"


@pytest.mark.parametrize("size", [16, 20, 31])
def test_k7_a_mac_cut_to_a_legal_length_is_badtrunc_and_signed(world: World, size: int) -> None:
    query = signed_query()
    whole = tsig_of(query.to_wire())
    assert whole is not None

    reply = world.reply(resigned(query, mac=whole.mac[:size]))

    assert reply.packet is not None
    assert reply.tsig == "badtrunc"
    assert flag_word(reply.packet) == 0x8009
    answer = tsig_of(reply.packet)
    assert answer is not None
    assert (answer.error, len(answer.mac)) == (tsig.BADTRUNC, 32)


def test_k3_the_mac_is_judged_before_the_time(world: World) -> None:
    query = signed_query(ring=keyring(secret=OTHER_SECRET))
    packet = query.to_wire()
    world.now += 1000

    assert world.reply(packet).tsig == "badsig"


def test_k3_the_time_is_judged_before_the_truncation(world: World) -> None:
    query = signed_query()
    whole = tsig_of(query.to_wire())
    assert whole is not None
    packet = resigned(query, mac=whole.mac[:16])
    world.now += 1000

    assert world.reply(packet).tsig == "badtime"


def check_unsigned(packet: bytes | None, error: int) -> None:
    """NOTAUTH, the question, and a record that says why without a MAC."""
    assert packet is not None
    assert flag_word(packet) == 0x8009
    assert counts(packet) == (1, 0, 0, 1)
    answer = tsig_of(packet)
    assert answer is not None
    assert (answer.error, answer.mac, answer.other) == (error, b"", b"")


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("edns", [None, 512, 700, 1232])
@pytest.mark.parametrize("count", [1, 4, 5, 6, 7, 8, 12, 16, 17, 18, 19, 40])
def test_k11_a_signed_reply_fits_or_is_question_opt_and_tsig_with_tc(
    count: int, edns: int | None
) -> None:
    world = World()
    for n in range(count):
        world.up(instance("crowd", f"c{n}", (f"10.0.0.{n + 1}",)))
    query = signed_query("_http._tcp.crowd.svc.internal.", "SRV", edns=edns)
    packet = world.reply(query.to_wire()).packet

    assert packet is not None
    assert len(packet) <= (edns or 512)
    reply = read(packet, query)
    assert reply.had_tsig
    if reply.flags & dns.flags.TC:
        assert counts(packet)[:3] == (1, 0, 0)
        assert reply.rcode() == dns.rcode.NOERROR
        assert (reply.edns == 0) == (edns is not None)
    else:
        assert len(reply.answer[0]) == count


def test_t2_room_for_the_signature_is_kept_before_glue_is_added() -> None:
    """What would need TC with its glue is sent without, and the signature with it."""
    world = World()
    for n in range(8):
        world.up(instance("crowd", f"c{n}", (f"10.0.0.{n + 1}",)))
    query = signed_query("_http._tcp.crowd.svc.internal.", "SRV", edns=512)

    reply = world.ask(query)

    assert not reply.flags & dns.flags.TC
    assert 0 < len(reply.additional) < 8


def test_k11_over_tcp_nothing_is_truncated() -> None:
    world = World()
    for n in range(300):
        world.up(instance("crowd", f"c{n}", (f"10.0.{n // 200}.{n % 200 + 1}",)))
    query = signed_query("_http._tcp.crowd.svc.internal.", "SRV")

    reply = world.ask(query, LOCAL_TCP)

    assert reply.had_tsig
    assert not reply.flags & dns.flags.TC
    assert len(reply.answer[0]) == 300


# --- any bytes ----------------------------------------------------------------------------------


@given(st.data())
def test_a_signed_query_changed_anywhere_is_never_let_through(data: st.DataObject) -> None:
    """Save for its ID, which a forwarder may change."""
    world = World()
    original = signed_query(rtype="AXFR").to_wire()
    packet = bytearray(original)
    at = data.draw(st.integers(2, len(packet) - 1))
    packet[at] ^= data.draw(st.integers(1, 255))

    reply = world.reply(bytes(packet), LOCAL_TCP)

    # The names of key and algorithm mean the same in the other case.
    assert reply.transfer is None or packet.lower() == original.lower()


@given(st.binary(max_size=80), st.integers(0, 80))
def test_any_octets_are_a_record_or_none(octets: bytes, at: int) -> None:
    found = tsig.read_tsig(octets, at)

    assert found is None or len(found.original_id) == 2


# --- the file of keys ---------------------------------------------------------------------------


def test_a_file_of_keys_is_read_with_what_each_allows() -> None:
    keys = read_keys(f"""
        [[key]]
        name = "Knot.svc.internal"
        algorithm = "HMAC-SHA512."
        secret = "{SECRET[:20]} {SECRET[20:]}"
        zones = ["svc.internal"]
        addresses = ["10.0.0.2", "fd00::/8"]
        """)

    (key,) = keys.values()
    assert shown(key.name) == KEY_NAME
    assert key.algorithm.size == 64
    assert key.secret == base64.b64decode(SECRET)
    assert key.allows(APEX, bytes((10, 0, 0, 2)))
    assert key.allows(APEX, b"\xfd" + bytes(15))
    assert not key.allows(APEX, bytes((10, 0, 0, 3)))
    assert not key.allows("other.internal.", bytes((10, 0, 0, 2)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "one or more tables"),
        ("key = 1", "one or more tables"),
        ("[[key]]\nname='k'\nsecret=1", "key 1 (k): secret: required, in base64"),
        ("[[key]]\nname='k'\nsecret='####'", "secret: required, in base64"),
        ("[[key]]\nname='k'\nsecret='AAAA'", "secret: 3 octets; at least 16"),
        (f"[[key]]\nsecret='{SECRET}'", "key 1: name: required"),
        (f"[[key]]\nname='{'k' * 64}'\nsecret='{SECRET}'", "name: required"),
        (f"[[key]]\nname='k'\nalgorithm='hmac-md5'\nsecret='{SECRET}'", "algorithm: not one of"),
        (f"[[key]]\nname='k'\nsecret='{SECRET}'\nzone=['a']", "unknown field zone"),
        (f"[[key]]\nname='k'\nsecret='{SECRET}'\nzones='a'", "zones: not a list"),
        (f"[[key]]\nname='k'\nsecret='{SECRET}'\naddresses=['a']", "addresses: 'a' does not"),
        (f"[[key]]\nname='k'\nsecret='{SECRET}'\n" * 2, "key 2: its name is that of another"),
        ("[[key", "not TOML"),
    ],
)
def test_what_is_wrong_with_a_file_of_keys_is_said_without_secrets(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_keys(text)

    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)


def test_every_problem_of_a_file_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_keys("[[key]]\nname='a'\n[[key]]\nname='b'\nalgorithm='x'")

    assert len(caught.value.problems) == 3


def test_a_key_never_shows_its_secret() -> None:
    (key,) = read_keys(key_file(k=SECRET)).values()

    assert "secret" not in repr(key)
    assert "octets" not in repr(key)
