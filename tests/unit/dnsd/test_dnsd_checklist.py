"""Lines of the README's table that no other file holds: each test is named after its line."""

import socket
import struct

import dns.flags
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.journal import HALF, SERIALS, distance
from dnsd.query import MAX_UDP
from dnsd.sockets import bind_all, close_all
from dnsd.zone import NEGATIVE_TTL
from registry.lease import next_epoch
from registry.model import Port, default_record_ttl
from registry.runtime.config import HostPort
from tests.support.dns import counts, ede, flag_word, header, opt, option, query, question
from tests.support.dnsd import LOCAL, LOCAL_TCP, Dnsd, glue, instance, outcome, rdatas

APEX = "svc.internal"
PORTS = (Port("http", 8080), Port("metrics", 9100))

NO_DATA_OF_OURS = [
    pytest.param(question("example.org"), 0, b"", dns.rcode.REFUSED, id="REFUSED"),
    pytest.param(question(APEX, 1, 4), 0, b"", dns.rcode.REFUSED, id="REFUSED for the class"),
    pytest.param(question(APEX, 252), 0, b"", dns.rcode.NOTIMP, id="NOTIMP"),
    pytest.param(b"", 5 << 11, b"", dns.rcode.NOTIMP, id="NOTIMP for the opcode"),
    pytest.param(b"\x40", 0, b"", dns.rcode.FORMERR, id="FORMERR"),
    pytest.param(question(APEX), 0, opt(rdata=b"\0"), dns.rcode.FORMERR, id="FORMERR for the OPT"),
    pytest.param(question("payments." + APEX, 252), 0, b"", dns.rcode.NOTAUTH, id="NOTAUTH"),
    pytest.param(question(APEX, 6), 0, opt(version=1), dns.rcode.NOERROR, id="BADVERS"),
]


@pytest.fixture
def dnsd() -> Dnsd:
    return Dnsd(
        instance("payments", "pay-1", ("10.0.0.1", "2001:db8::1"), PORTS),
        instance("payments", "pay-2", ("10.0.0.2",), PORTS, priority=7, weight=9),
    )


# --- AA, SOA, TTL ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rtype"),
    [
        *(("payments", "A"), ("payments", "MX"), ("nobody", "A"), (f"{APEX}.", "SOA")),
        *(("_tcp.payments", "A"), ("tag.payments", "A"), ("catalog", "PTR"), ("nobody", "ANY")),
    ],
)
def test_h19_answers_from_our_zones_have_authority(dnsd: Dnsd, name: str, rtype: str) -> None:
    """glibc takes an empty answer without AA for one of a broken server."""
    for tcp in (False, True):
        assert dnsd.dig(name, rtype, tcp=tcp).flags & dns.flags.AA


@pytest.mark.parametrize(("body", "flags", "more", "rcode"), NO_DATA_OF_OURS)
def test_h19_g5_errors_have_neither_authority_nor_a_soa(
    dnsd: Dnsd, body: bytes, flags: int, more: bytes, rcode: int
) -> None:
    message = header(flags, qd=1 if body else 0, ar=1 if more else 0) + body + more
    reply = dnsd.raw(message)

    assert reply is not None
    assert not flag_word(reply) & 0x0400
    assert flag_word(reply) & 0xF == rcode
    assert counts(reply)[1:3] == (0, 0)


def test_h19_g5_servfail_too() -> None:
    reply = Dnsd(state="loading").raw(query("payments.svc.internal."))

    assert reply is not None
    assert flag_word(reply) == 0x8002
    assert counts(reply) == (1, 0, 0, 0)


def test_g4_what_is_not_there_is_kept_no_longer_than_what_is() -> None:
    """Who registers a shorter life of records than by default is found again later than lost."""
    for lease in (20, 60, 3600, 0):
        assert default_record_ttl(lease) >= NEGATIVE_TTL


@given(
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.integers(1_700_000_000, 2**31 - 2_000_000),
)
def test_g8_a_store_that_begins_anew_leads_every_serial_forward(
    stored: int, known: int, now: int
) -> None:
    """A secondary that has the serial of what was lost takes the new one for newer."""
    seen = max(stored, known)

    raised = next_epoch(stored, known, now)

    assert 0 < distance(seen % SERIALS, raised % SERIALS) < HALF


@pytest.mark.parametrize("ttl", [1, 5, 3600])
@pytest.mark.parametrize("rtype", ["A", "SRV", "TXT"])
def test_r10_a_ttl_is_constant_and_never_0(ttl: int, rtype: str) -> None:
    """It does not count down, so that caches in a row do not wait for each other."""
    dnsd = Dnsd(instance(lease_ttl=0, record_ttl=ttl))
    for state in ("fresh", "away", "stale"):
        dnsd.table.reset(state)
        found = {dnsd.dig("pay-1.payments", rtype).answer[0].ttl for _ in range(3)}

        assert found == {ttl if state == "fresh" else min(ttl, 30)}


# --- records --------------------------------------------------------------------------------------


def test_r1_srv_is_three_numbers_and_a_whole_name(dnsd: Dnsd) -> None:
    reply = dnsd.raw(query(f"_metrics._tcp.payments.{APEX}.", "SRV"))

    target = b"\x05pay-2\x08payments\x03svc\x08internal\0"
    assert reply is not None
    assert struct.pack("!HHHH", 6 + len(target), 7, 9, 9100) + target in reply


def test_l29_all_parts_of_a_reply_are_of_one_version() -> None:
    """Records, addresses of targets and serials: whatever changed just before."""
    dnsd = Dnsd()
    for n in range(1, 40):
        for id in ("a", "b"):
            dnsd.up(instance("pay", id, (f"10.0.{n}.1",), (Port("http", n),)))
        answer = dnsd.dig("_http._tcp.pay", "SRV")
        assert {r.split()[2] for r in rdatas(answer)} == {str(n)}
        assert {line.split()[1] for line in glue(answer)} == {f"10.0.{n}.1"}
        assert dnsd.dig("nobody").authority[0][0].serial == dnsd.catalog.revision


# --- EDNS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 511, 512])
def test_e3_a_buffer_of_less_than_512_octets_is_one_of_512(size: int) -> None:
    dnsd = Dnsd(*(instance("pay", f"p{n:02}", (f"10.0.0.{n}",)) for n in range(60)))

    reply = dnsd.raw(query(f"pay.{APEX}.", edns=size))

    assert reply is not None
    assert 512 - 16 < len(reply) <= 512


@pytest.mark.parametrize("count", [9, 10, 11, 12, 13])
def test_t13_the_extended_error_is_kept_before_addresses_of_targets(count: int) -> None:
    dnsd = Dnsd(*(instance("pay", f"p{n:02}", (f"10.0.0.{n}",)) for n in range(count)))
    dnsd.table.reset("stale")

    answer = dnsd.dig("pay", "SRV", edns=600)

    assert ede(answer) == [3]
    assert not answer.flags & dns.flags.TC or not answer.additional
    assert answer.flags & dns.flags.TC or len(rdatas(answer)) == count


# --- sockets --------------------------------------------------------------------------------------


def udp_sockets(host: str) -> list[socket.socket]:
    found = bind_all([HostPort(host, 0)], 1)[0]
    for sock in found:
        if sock.type != socket.SOCK_DGRAM:
            sock.close()
    return [sock for sock in found if sock.type == socket.SOCK_DGRAM]


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="Linux' options")
@pytest.mark.parametrize(
    ("host", "level", "number"), [("127.0.0.1", socket.IPPROTO_IP, 10), ("::1", 41, 23)]
)
def test_u4_forged_icmp_does_not_shrink_paths(host: str, level: int, number: int) -> None:
    """IP_PMTUDISC_OMIT: the system keeps no path's MTU, so no reply is ever too long to send."""
    socks = udp_sockets(host)
    try:
        assert [sock.getsockopt(level, number) for sock in socks] == [5]
        assert MAX_UDP <= 1232
    finally:
        close_all([socks])


def test_u10_checksums_are_left_on() -> None:
    socks = udp_sockets("127.0.0.1")
    try:
        assert [sock.getsockopt(socket.SOL_SOCKET, 11) for sock in socks] == [0]  # SO_NO_CHECK
    finally:
        close_all([socks])


def test_y4_nothing_listens_or_is_told_of_for_encrypted_transports(dnsd: Dnsd) -> None:
    sockets = bind_all([HostPort("127.0.0.1", 0)], 1)
    try:
        ports = {sock.getsockname()[1] for sock in sockets[0]}
        assert len(ports) == 1, "the one that was asked for"
        assert {sock.type for sock in sockets[0]} == {socket.SOCK_DGRAM, socket.SOCK_STREAM}
    finally:
        close_all(sockets)
    for name in ("_dns", "_dns.ns1"):
        assert outcome(dnsd.dig(name, "SVCB")) == "NXDOMAIN"
    assert outcome(dnsd.dig("_dns.resolver.arpa.", "SVCB")) == "REFUSED"


# --- not ready ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["payments", "nobody", "_http._tcp.payments", f"{APEX}."])
@pytest.mark.parametrize("rtype", ["A", "SRV", "SOA", "NS", "ANY", "HTTPS"])
def test_s2_without_data_nothing_is_said_that_would_be_believed(name: str, rtype: str) -> None:
    """A resolver takes NOERROR or NXDOMAIN with AA for the truth, and forgets what it had."""
    dnsd = Dnsd(state="loading")
    for peer in (LOCAL, LOCAL_TCP):
        whole = name if name.endswith(".") else f"{name}.{APEX}."
        reply = dnsd.raw(query(whole, rtype, edns=1232, options=[(3, b"")]), peer)

        assert reply is not None
        assert flag_word(reply) == 0x8002
        assert reply.endswith(opt(rdata=option(15, b"\0\x0e")))
