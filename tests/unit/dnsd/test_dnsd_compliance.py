"""The eighteen tests of RFC 8906, section 8, on the apex SOA; the ids are those of the README."""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from tests.support.dns import counts, flag_word, header, opt, option, question
from tests.support.dnsd import LOCAL, LOCAL_TCP, Dnsd, instance

APEX = "svc.internal"
SOA, DNSKEY = 6, 48
OURS = opt()
OURS_WITH_DO = opt(flags=0x8000)
BADVERS = b"\0\0\x29\x04\xd0\1\0\0\0\0\0"
BADVERS_WITH_DO = b"\0\0\x29\x04\xd0\1\0\x80\0\0\0"


@pytest.fixture
def dnsd() -> Dnsd:
    return Dnsd(instance())


@pytest.mark.parametrize(
    ("flags", "rtype", "tcp", "word", "sections"),
    [
        pytest.param(0, SOA, False, 0x8400, (1, 1, 0, 0), id="TB1 SOA"),
        pytest.param(0, 1000, False, 0x8400, (1, 0, 1, 0), id="TB2 unknown type"),
        pytest.param(0x0010, SOA, False, 0x8400, (1, 1, 0, 0), id="TB3 CD"),
        pytest.param(0x0020, SOA, False, 0x8400, (1, 1, 0, 0), id="TB4 AD"),
        pytest.param(0x0040, SOA, False, 0x8400, (1, 1, 0, 0), id="TB5 Z"),
        pytest.param(0x0100, SOA, False, 0x8500, (1, 1, 0, 0), id="TB6 RD"),
        pytest.param(0, SOA, True, 0x8400, (1, 1, 0, 0), id="TB8 TCP"),
    ],
)
def test_without_edns(
    dnsd: Dnsd,
    flags: int,
    rtype: int,
    tcp: bool,
    word: int,
    sections: tuple[int, int, int, int],
) -> None:
    reply = dnsd.raw(header(flags) + question(APEX, rtype), LOCAL_TCP if tcp else LOCAL)

    assert reply is not None
    assert flag_word(reply) == word
    assert counts(reply) == sections


def test_tb7_an_unknown_opcode(dnsd: Dnsd) -> None:
    assert dnsd.raw(header(15 << 11, qd=0)) == header(0xF804, qd=0)


@pytest.mark.parametrize(
    ("asked", "word", "ours"),
    [
        pytest.param(opt(), 0x8400, OURS, id="TE1 plain"),
        pytest.param(opt(version=1), 0x8000, BADVERS, id="TE2 version"),
        pytest.param(opt(rdata=option(100)), 0x8400, OURS, id="TE3 option"),
        pytest.param(opt(flags=0x40), 0x8400, OURS, id="TE4 flag"),
        pytest.param(opt(version=1, flags=0x40), 0x8000, BADVERS, id="TE5 version, flag"),
        pytest.param(opt(version=1, rdata=option(100)), 0x8000, BADVERS, id="TE6 version, option"),
        pytest.param(opt(flags=0x8000), 0x8400, OURS_WITH_DO, id="TE8 DO"),
        pytest.param(opt(version=1, flags=0x8000), 0x8000, BADVERS_WITH_DO, id="TE9 version, DO"),
        pytest.param(
            opt(rdata=option(10, b"8 octets") + option(3) + option(9) + option(8, b"\0\1\0\0")),
            0x8400,
            opt(rdata=option(9, b"\0\1\x51\x80")),
            id="TE10 defined options",
        ),
    ],
)
def test_with_edns(dnsd: Dnsd, asked: bytes, word: int, ours: bytes) -> None:
    reply = dnsd.raw(header(ar=1) + question(APEX, SOA) + asked)

    assert reply is not None
    assert flag_word(reply) == word
    assert counts(reply) == (1, 1 if word == 0x8400 else 0, 0, 1)
    assert reply.endswith(ours)


def test_te7_a_small_buffer_is_kept_to_with_opt_and_tc(dnsd: Dnsd) -> None:
    asked = opt(size=512, flags=0x8000)
    reply = dnsd.raw(header(ar=1) + question(APEX, DNSKEY) + asked)
    assert reply is not None
    assert flag_word(reply) == 0x8400
    assert counts(reply) == (1, 0, 1, 1)
    assert len(reply) <= 512
    for n in range(60):
        dnsd.up(instance("crowd", f"c{n}", (f"10.0.0.{n}",)))

    reply = dnsd.raw(header(ar=1) + question(f"_http._tcp.crowd.{APEX}", 33) + asked)

    assert reply is not None
    assert flag_word(reply) == 0x8600
    assert len(reply) <= 512
    assert reply.endswith(OURS_WITH_DO)
    assert counts(reply)[3] == 1
    message = dns.message.from_wire(reply)
    assert message.rcode() == dns.rcode.NOERROR
    assert message.flags & dns.flags.TC
    assert {s.rdtype for s in message.answer} == {dns.rdatatype.SRV}
