"""How a message is read: what is answered, what is rejected with which code, what is dropped."""

import struct

import dns.message
import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.query import Drop, Query, Reject, parse_query
from tests.support.dns import (
    counts,
    flag_word,
    header,
    opt,
    option,
    query,
    question,
    wire_name,
)
from tests.support.dnsd import LOCAL, LOCAL_TCP, Dnsd, instance

APEX = "svc.internal"
Q = question(APEX, 6)


@pytest.fixture
def dnsd() -> Dnsd:
    return Dnsd(instance())


@given(st.binary(max_size=600))
def test_any_octets_are_a_query_a_reject_or_a_drop(packet: bytes) -> None:
    assert isinstance(parse_query(packet), Query | Reject | Drop)


@given(st.binary(min_size=0, max_size=80), st.sampled_from([0, 0x0100, 0x0120]))
def test_any_octets_behind_a_header_leave_at_most_one_short_reply(body: bytes, flags: int) -> None:
    """Mostly FORMERR, sometimes a real question: never an exception, never over the limit."""
    dnsd = Dnsd(instance())
    reply = dnsd.reply(header(flags) + body).packet

    assert reply is not None
    assert len(reply) <= 512
    assert reply[:2] == b"\x12\x34"


@given(
    st.binary(max_size=40),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 3),
    st.lists(st.sampled_from([opt(), opt(4096), opt(rdata=option(3)), Q, b"\0", b"\xc0\x0c"])),
)
def test_records_in_any_number_and_place_never_fail(
    tail: bytes, an: int, ns: int, ar: int, parts: list[bytes]
) -> None:
    packet = header(an=an, ns=ns, ar=ar) + Q + b"".join(parts) + tail

    reply = Dnsd(instance()).reply(packet).packet

    assert reply is not None
    assert len(reply) <= 1232


@given(
    st.lists(st.text("abcxyzABC019-_", min_size=1, max_size=20), min_size=1, max_size=6),
    st.sampled_from(["A", "AAAA", "SRV", "TXT", "MX", "ANY"]),
    st.booleans(),
)
def test_every_question_that_dnslib_writes_is_read_as_it_was_meant(
    labels: list[str], rtype: str, rd: bool
) -> None:
    name = ".".join(labels)
    record = dnslib.DNSRecord.question(name, rtype)
    record.header.rd = int(rd)
    packet = bytes(record.pack())

    parsed = parse_query(packet)

    assert isinstance(parsed, Query)
    assert parsed.name == wire_name(name)
    assert parsed.key == wire_name(name.lower())
    assert (parsed.qtype, parsed.qclass, parsed.rd) == (getattr(dnslib.QTYPE, rtype), 1, rd)
    assert len(parsed.labels) == len(labels) + 1


# --- section 1: header and question -------------------------------------------------------------


@pytest.mark.parametrize("size", range(12))
def test_h1_less_than_a_header_is_not_answered(dnsd: Dnsd, size: int) -> None:
    assert dnsd.raw((header() + Q)[:size]) is None


@pytest.mark.parametrize("flags", [0x8000, 0x8400, 0xA000, 0xF80F])
def test_h2_responses_are_not_answered(dnsd: Dnsd, flags: int) -> None:
    """Answering them would let two servers talk for ever."""
    for peer in (LOCAL, LOCAL_TCP):
        assert dnsd.raw(header(flags) + Q, peer) is None


@pytest.mark.parametrize("number", [0, 1, 0xFFFF])
def test_h3_any_id_is_echoed(dnsd: Dnsd, number: int) -> None:
    reply = dnsd.raw(header(number=number) + Q)

    assert reply is not None
    assert reply[:2] == number.to_bytes(2, "big")


@pytest.mark.parametrize("flags", [0x0400, 0x0200, 0x0080, 0x0040, 0x0020, 0x0010, 0x0001, 0x000F])
def test_h4_other_flags_of_a_query_are_ignored_and_not_copied(dnsd: Dnsd, flags: int) -> None:
    reply = dnsd.raw(header(flags) + Q)

    assert reply is not None
    assert flag_word(reply) == 0x8400


def test_h5_two_questions_are_an_error(dnsd: Dnsd) -> None:
    reply = dnsd.raw(header(qd=2) + Q + Q)

    assert reply == header(0x8001, qd=0)


def test_h6_no_question_is_an_error(dnsd: Dnsd) -> None:
    assert dnsd.raw(header(qd=0)) == header(0x8001, qd=0)
    reply = dnsd.raw(header(qd=0, ar=1) + opt())
    assert reply == header(0x8001, qd=0, ar=1) + opt()


@pytest.mark.parametrize(
    ("counted", "records"),
    [
        ({"an": 1}, b""),
        ({"ns": 1}, b"\0\0\1"),
        ({"ar": 2}, opt()),
        ({"ar": 1}, opt()[:-1] + b"\5"),
        ({"ar": 1}, b"\x40" + opt()[1:]),
    ],
)
def test_h8_h17_promised_records_that_are_not_there(
    dnsd: Dnsd, counted: dict[str, int], records: bytes
) -> None:
    reply = dnsd.raw(header(**counted) + Q + records)

    assert reply is not None
    assert flag_word(reply) == 0x8001
    assert reply[12 : 12 + len(Q)] == Q
    whole_opt_was_read = counted == {"ar": 2}
    assert counts(reply) == (1, 0, 0, int(whole_opt_was_read))


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, *range(7, 16)])
@pytest.mark.parametrize("body", [b"", Q, b"\xff" * 9])
def test_h9_to_h14_other_opcodes_are_not_implemented(dnsd: Dnsd, opcode: int, body: bytes) -> None:
    """H10 IQUERY and STATUS, H12 NOTIFY, H13 UPDATE, and those that nobody knows."""
    for rd in (0, 0x0100):
        reply = dnsd.raw(header(opcode << 11 | rd, qd=1 if body else 0) + body)

        assert reply == header(0x8004 | opcode << 11 | rd, qd=0)


def test_e1_other_opcodes_get_an_opt_when_the_message_parses(dnsd: Dnsd) -> None:
    reply = dnsd.raw(header(0x2000, ar=1) + Q + opt())

    assert reply == header(0xA004, qd=0, ar=1) + opt()


def test_h15_stray_records_are_skipped(dnsd: Dnsd) -> None:
    stray = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + b"\1\2\3\4"
    reply = dnsd.raw(header(an=1, ns=1, ar=2) + Q + stray * 3 + opt())

    assert reply is not None
    assert flag_word(reply) == 0x8400


def test_h16_octets_behind_the_message_are_ignored_and_never_remembered(dnsd: Dnsd) -> None:
    reply = dnsd.reply(header() + Q + b"more")

    assert reply.packet == dnsd.raw(header() + Q)
    assert reply.keep is None
    assert dnsd.reply(header() + Q).keep is not None


def test_h20_recursion_desired_is_echoed_and_not_offered(dnsd: Dnsd) -> None:
    reply = dnsd.raw(header(0x0100) + Q)

    assert reply is not None
    assert flag_word(reply) == 0x8500


# --- section 2: names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"\xc0\x0c", id="N1 a pointer"),
        pytest.param(b"\3svc\xc0\x0c", id="N1 a pointer behind a label"),
        *(pytest.param(bytes((n,)) + b"x" * n + b"\0", id=f"N2 {n:#x}") for n in (64, 128, 191)),
        pytest.param((b"\x3f" + b"a" * 63) * 4 + b"\0", id="N4 257 octets"),
        pytest.param((b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0", id="N4 256 octets"),
    ],
)
def test_n1_n2_n4_unreadable_questions_get_the_bare_header(dnsd: Dnsd, name: bytes) -> None:
    for records in (b"", opt()):
        packet = header(ar=1 if records else 0) + question(name) + records

        assert dnsd.raw(packet) == header(0x8001, qd=0)


@pytest.mark.parametrize("size", range(len(Q)))
def test_n5_a_cut_question_gets_the_bare_header(dnsd: Dnsd, size: int) -> None:
    assert dnsd.raw(header() + Q[:size]) == header(0x8001, qd=0)


def test_n3_the_longest_name_is_answered_within_512(dnsd: Dnsd) -> None:
    left = 255 - len(wire_name(APEX))
    labels = []
    while left:
        size = min(63, left - 1) if left - 64 != 1 else 62
        labels.append(b"%c" % size + b"a" * size)
        left -= size + 1
    name = b"".join(labels) + wire_name(APEX)
    assert len(name) == 255

    reply = dnsd.raw(header() + question(name))

    assert reply is not None
    assert flag_word(reply) == 0x8403
    assert len(reply) < 512
    assert dns.message.from_wire(reply).authority[0].name.to_text() == "svc.internal."


# --- section 7: EDNS ------------------------------------------------------------------------------


def test_e2_our_opt(dnsd: Dnsd) -> None:
    reply = dnsd.raw(header(ar=1) + Q + opt(4096))

    assert reply is not None
    assert reply.endswith(b"\0\0\x29\x04\xd0\0\0\0\0\0\0")


@pytest.mark.parametrize("version", [1, 2, 255])
@pytest.mark.parametrize("flags", [0, 0x40, 0x8000])
@pytest.mark.parametrize("rdata", [b"", option(100), b"\0\1\xff"])
def test_e4_another_version_is_badvers(dnsd: Dnsd, version: int, flags: int, rdata: bytes) -> None:
    reply = dnsd.raw(header(ar=1) + Q + opt(1232, version, flags, rdata))

    do = b"\x80\0" if flags & 0x8000 else b"\0\0"
    assert reply == header(0x8000, ar=1) + Q + b"\0\0\x29\x04\xd0\1\0" + do + b"\0\0"


@pytest.mark.parametrize("second", [opt(), opt(version=1)])
def test_e5_two_opts_are_an_error_with_one_opt(dnsd: Dnsd, second: bytes) -> None:
    reply = dnsd.raw(header(ar=2) + Q + opt() + second)

    assert reply == header(0x8001, ar=1) + Q + opt()


@pytest.mark.parametrize("section", ["an", "ns"])
def test_e6_an_opt_outside_additional_is_an_error(dnsd: Dnsd, section: str) -> None:
    reply = dnsd.raw(header(**{section: 1}) + Q + opt())

    assert reply == header(0x8001, ar=1) + Q + opt()


def test_e6_an_opt_before_other_additional_records_is_fine(dnsd: Dnsd) -> None:
    stray = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + b"\1\2\3\4"
    reply = dnsd.raw(header(ar=2) + Q + opt() + stray)

    assert reply is not None
    assert flag_word(reply) == 0x8400


def test_e7_an_opt_with_a_name_is_an_error(dnsd: Dnsd) -> None:
    reply = dnsd.raw(header(ar=1) + Q + opt(owner=b"\xc0\x0c"))

    assert reply == header(0x8001, ar=1) + Q + opt()


@pytest.mark.parametrize("rdata", [b"\0", b"\0\1\0", b"\0\1\0\5abcd", option(3) + b"\0\3\0\1"])
def test_e9_a_broken_list_of_options_is_an_error(dnsd: Dnsd, rdata: bytes) -> None:
    reply = dnsd.raw(header(ar=1) + Q + opt(rdata=rdata))

    assert reply == header(0x8001, ar=1) + Q + opt()


@pytest.mark.parametrize("flags", [0x0001, 0x0040, 0x7FFF])
def test_e10_unknown_flags_are_not_echoed(dnsd: Dnsd, flags: int) -> None:
    reply = dnsd.raw(header(ar=1) + Q + opt(flags=flags))

    assert reply is not None
    assert reply.endswith(opt())


@pytest.mark.parametrize("name", [APEX, f"nothing.{APEX}", "example.org"])
def test_e11_do_is_echoed(dnsd: Dnsd, name: str) -> None:
    reply = dnsd.raw(query(name, "A", edns=1232, do=True))

    assert reply is not None
    assert dns.message.from_wire(reply).ednsflags & dns.flags.DO


@pytest.mark.parametrize(
    "rdata",
    [
        pytest.param(option(100) + option(65001, b"x") + option(100), id="E12 unknown"),
        pytest.param(option(3), id="E13 NSID, none configured"),
        pytest.param(option(11), id="E25 keepalive over UDP"),
        pytest.param(option(12, b"\0" * 30), id="E27 padding"),
        pytest.param(option(15, b"\0\3"), id="E29 EDE"),
        pytest.param(option(8, b"\0\1\x18\0\x0a\0\0"), id="E30 client subnet"),
        pytest.param(option(8, b"\0"), id="E30 a broken one"),
        *(pytest.param(option(c, b"z"), id=f"E32 {c}") for c in (1, 5, 6, 7, 13, 14, 16, 17)),
    ],
)
def test_options_that_say_nothing_to_us_are_not_echoed(dnsd: Dnsd, rdata: bytes) -> None:
    reply = dnsd.raw(header(ar=1) + Q + opt(rdata=rdata))

    assert reply is not None
    assert flag_word(reply) == 0x8400
    assert reply.endswith(opt())


@pytest.mark.parametrize("size", [*range(8), *range(9, 16), 41, 60])
def test_e14_a_cookie_of_illegal_length_is_an_error(dnsd: Dnsd, size: int) -> None:
    reply = dnsd.raw(header(ar=1) + Q + opt(rdata=option(10, b"c" * size)))

    assert reply == header(0x8001, ar=1) + Q + opt()


@pytest.mark.parametrize("size", [8, 16, 24, 40])
def test_a_query_with_a_cookie_is_answered_and_never_remembered(dnsd: Dnsd, size: int) -> None:
    reply = dnsd.reply(header(ar=1) + Q + opt(rdata=option(10, b"c" * size)))

    assert reply.packet is not None
    assert flag_word(reply.packet) == 0x8400
    assert reply.keep is None


def test_k2_a_signature_without_content_is_formerr(dnsd: Dnsd) -> None:
    tsig = wire_name("key") + struct.pack("!HHIH", 250, 255, 0, 0)
    reply = dnsd.raw(header(ar=1) + Q + tsig)

    assert reply is not None
    assert flag_word(reply) == 0x8001


def test_k2_a_signature_that_is_not_last_is_an_error(dnsd: Dnsd) -> None:
    tsig = wire_name("key") + struct.pack("!HHIH", 250, 255, 0, 0)
    reply = dnsd.raw(header(ar=2) + Q + tsig + opt())

    assert reply == header(0x8001, ar=1) + Q + opt()
