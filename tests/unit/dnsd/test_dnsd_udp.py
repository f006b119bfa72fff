"""dnsd on real UDP sockets: batches, families, wildcard addresses, senders it does not answer."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import dns.message
import pytest

from dnsd import udp
from dnsd.config import PRIVATE
from dnsd.front import Front
from dnsd.limits import RateLimiter
from dnsd.metrics import Counts
from dnsd.mmsg import RECEIVE, available
from dnsd.sockets import bind_all, close_all
from dnsd.udp import UNANSWERED_PORTS, Senders, UdpEndpoint
from registry.runtime.config import HostPort, networks
from tests.support.dns import ask, header, query
from tests.support.dnsd import Dnsd, instance, rdatas
from tests.support.waiting import until


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


@contextlib.asynccontextmanager
async def serving(
    dnsd: Dnsd,
    host: str = "127.0.0.1",
    trusted: str = "",
    limiter: RateLimiter | None = None,
) -> AsyncIterator[tuple[HostPort, Counts]]:
    """*dnsd* on free UDP ports of *host*; where it is, and what it counts."""
    (sockets,) = bind_all([HostPort(host, 0)], 1)
    counts = Counts()
    senders = Senders(networks(trusted) if trusted else PRIVATE)
    front = Front(dnsd.responder, dnsd.memo, counts, limiter=limiter)
    endpoints = [
        UdpEndpoint(sock, front, dnsd.memo, senders, counts)
        for sock in sockets
        if sock.type == socket.SOCK_DGRAM
    ]
    for endpoint in endpoints:
        endpoint.open()
    try:
        yield HostPort(host, sockets[0].getsockname()[1]), counts
    finally:
        for endpoint in endpoints:
            endpoint.close()
        close_all([sockets])


@pytest.fixture(params=["batches", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both packet loops: with recvmmsg where there is one, and a datagram a call."""
    if request.param == "plain":
        monkeypatch.setattr(udp, "available", lambda: False)
    elif not available():
        pytest.skip("no recvmmsg on this system")
    return str(request.param)


@contextlib.contextmanager
def client(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        yield sock


async def receive(sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    async with asyncio.timeout(3):
        data, source = await asyncio.get_running_loop().sock_recvfrom(sock, 65535)
        return data, source[:2]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
async def test_questions_are_answered_from_responder_and_memory_alike(host: str) -> None:
    dnsd = Dnsd(instance(addresses=("10.0.0.1", "2001:db8::1")))
    async with serving(dnsd, host) as (address, _):
        for _ in range(3):
            answer = await ask(address, "payments.svc.internal.", "A")
            assert rdatas(answer) == ["10.0.0.1"]
            answer = await ask(address, "payments.svc.internal.", "AAAA", edns=1232)
            assert rdatas(answer) == ["2001:db8::1"]
            answer = await ask(address, "absent.svc.internal.")
            assert answer.rcode() == 3
    assert len(dnsd.memo) == 2
    assert dnsd.memo.hits().total() == 4


@pytest.mark.usefixtures("way")
async def test_a_change_shows_in_the_next_answer() -> None:
    dnsd = Dnsd(instance())
    async with serving(dnsd) as (address, _):
        for number in range(2, 5):
            await ask(address, "payments.svc.internal.")
            dnsd.up(instance("payments", "pay-1", (f"10.0.0.{number}",)))
            assert rdatas(await ask(address, "payments.svc.internal.")) == [f"10.0.0.{number}"]


@pytest.mark.usefixtures("way")
async def test_u11_a_batch_with_bad_packets_has_all_its_good_ones_answered() -> None:
    """300 datagrams are there before the first is read: several batches, with holes in them."""
    good = [query(f"{n}.svc.internal.") for n in range(200)]
    bad = [b"", b"short", header(0x8000) + b"\0", good[0][:11]]
    async with serving(Dnsd(instance())) as (address, counts):
        with client() as sock:
            for n, packet in enumerate(good):
                sock.sendto(n.to_bytes(2, "big") + packet[2:], address)
                if n % 2:
                    sock.sendto(bad[n // 2 % len(bad)], address)
            replies = [(await receive(sock))[0] for _ in good]
        await until(lambda: sum(counts.dropped.values()) == 100)

    assert sorted(r[:2] for r in replies) == [n.to_bytes(2, "big") for n in range(200)]
    for reply in replies:
        assert dns.message.from_wire(reply).rcode() == 3
    assert counts.dropped == {"short": 75, "response": 25}


@pytest.mark.usefixtures("way")
async def test_u11_the_same_question_twice_is_answered_twice() -> None:
    async with serving(Dnsd(instance())) as (address, _):
        with client() as sock:
            packet = query("payments.svc.internal.")
            for _ in range(70):
                sock.sendto(packet, address)
            replies = {(await receive(sock))[0] for _ in range(70)}

    assert len(replies) == 1


@pytest.mark.usefixtures("way")
async def test_u7_a_datagram_longer_than_the_buffer_is_dropped() -> None:
    packet = query("payments.svc.internal.")
    async with serving(Dnsd(instance())) as (address, counts):
        with client() as sock:
            sock.sendto(packet + b"x" * RECEIVE, address)
            sock.sendto(packet + b"x" * (RECEIVE - len(packet)), address)
            reply, _ = await receive(sock)
        await until(lambda: counts.dropped["oversize"] == 1)

    assert dns.message.from_wire(reply, ignore_trailing=True).rcode() == 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.77"),
        ("::", "127.0.0.77"),
        pytest.param("::", "::1", marks=needs_ipv6),
    ],
)
@pytest.mark.skipif(not available(), reason="Linux's IP_PKTINFO")
async def test_u1_u2_the_answer_comes_from_the_address_that_was_asked(
    host: str, asked: str
) -> None:
    """musl compares the whole of it; a reply from 127.0.0.1 would be thrown away."""
    async with serving(Dnsd(instance()), host) as (address, _):
        with client(asked) as sock:
            for n in range(3):
                packet = query("payments.svc.internal.")
                sock.sendto(packet, (asked, address.port))
                reply, source = await receive(sock)

                assert source == (asked, address.port)
                assert reply[:2] == packet[:2]
                assert rdatas(dns.message.from_wire(reply)) == ["10.0.0.1"], n


@pytest.mark.parametrize(
    ("address", "port", "answered"),
    [
        ("192.0.2.1", 1024, True),
        ("192.0.2.1", 53, True),
        *(("192.0.2.1", port, False) for port in sorted(UNANSWERED_PORTS)),
        ("224.0.0.251", 5353, False),
        ("255.255.255.255", 68, False),
        ("0.0.0.0", 1024, False),
        ("2001:db8::1", 1024, True),
        ("ff02::fb", 5353, False),
        ("::", 1024, False),
    ],
)
def test_u6_b2_b3_who_is_answered(address: str, port: int, answered: bool) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    assert Senders.is_answered(socket.inet_pton(family, address), port) is answered


@pytest.mark.usefixtures("way")
async def test_b2_a_port_that_would_answer_our_answers_gets_none() -> None:
    async with serving(Dnsd(instance())) as (address, counts):
        with client() as sock:
            try:
                sock.bind(("127.0.0.1", 19))
            except OSError:
                pytest.skip("not allowed to use port 19")
            await ask(address, "payments.svc.internal.")  # the address itself is a good one
            for _ in range(3):
                sock.sendto(query("payments.svc.internal."), address)
            await until(lambda: counts.dropped["source"] == 3)


async def test_b6_only_the_networks_that_were_named_are_trusted() -> None:
    dnsd = Dnsd(instance())
    async with serving(dnsd, trusted="10.0.0.0/8") as (address, _):
        await ask(address, "payments.svc.internal.")
    assert (len(dnsd.memo.trusted), len(dnsd.memo.strangers)) == (0, 1)

    async with serving(dnsd) as (address, _):
        await ask(address, "payments.svc.internal.")
    assert (len(dnsd.memo.trusted), len(dnsd.memo.strangers)) == (1, 1)


@pytest.mark.usefixtures("way")
async def test_u8_a_reply_that_cannot_be_sent_is_counted_and_the_next_one_leaves() -> None:
    """A peer that has closed its socket makes the kernel report errors; nobody else is hurt."""
    async with serving(Dnsd(instance())) as (address, _):
        with client() as gone:
            for _ in range(5):
                gone.sendto(query("payments.svc.internal."), address)
        for _ in range(3):
            assert rdatas(await ask(address, "payments.svc.internal.")) == ["10.0.0.1"]


def test_a_second_server_gets_an_error_and_not_half_of_the_questions() -> None:
    (sockets,) = bind_all([HostPort("127.0.0.1", 0)], 1)
    address = HostPort(*sockets[0].getsockname())
    try:
        with pytest.raises(Exception, match=rf"{address} \(--listen\) is in use"):
            bind_all([address], 2)
    finally:
        close_all([sockets])


def test_u13_every_worker_has_sockets_of_its_own_on_one_port() -> None:
    of_worker = bind_all([HostPort("127.0.0.1", 0)], 3)
    try:
        ports = {sock.getsockname()[1] for sockets in of_worker for sock in sockets}
        kinds = [[sock.type for sock in sockets] for sockets in of_worker]
    finally:
        close_all(of_worker)

    assert len(ports) == 1
    assert kinds == [[socket.SOCK_DGRAM, socket.SOCK_STREAM]] * 3


@needs_ipv6
def test_u2_the_wildcard_of_ipv6_takes_ipv4_too_on_sockets_apart() -> None:
    (sockets,) = bind_all([HostPort("::", 0)], 1)
    try:
        families = [sock.family for sock in sockets]
        v6_only = [
            sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            for sock in sockets
            if sock.family == socket.AF_INET6
        ]
    finally:
        close_all([sockets])

    assert families == [socket.AF_INET] * 2 + [socket.AF_INET6] * 2
    assert v6_only == [1, 1]


def test_the_batch_is_laid_out_as_the_kernel_expects() -> None:
    """On this platform struct mmsghdr has 64 octets, msg_len at 56."""
    if not available():
        pytest.skip("no recvmmsg on this system")
    from dnsd.mmsg import Batch

    assert struct.calcsize("P") == 8
    assert [Batch.length_at(i) for i in (0, 1)] == [14, 30]


@pytest.mark.usefixtures("way")
async def test_b4_strangers_over_sockets_are_limited_and_the_trusted_are_not() -> None:
    dnsd = Dnsd(instance())
    packet = query("payments.svc.internal.")
    for trusted, limited in (("10.0.0.0/8", True), ("127.0.0.0/8", False)):
        limiter = RateLimiter(1, 1, b"seed")
        async with serving(dnsd, trusted=trusted, limiter=limiter) as (address, counts):
            with client() as sock:
                for n in range(20):
                    sock.sendto(packet, address)
                    reply, _ = await receive(sock)
                    assert bool(reply[2] & 2) is (limited and n > 0)
            assert counts.limited["slipped"] == (19 if limited else 0)
