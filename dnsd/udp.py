"""The UDP socket that a worker was given: drained in batches, mostly from memory.

Per packet the loop does five things: it judges the sender (from a table), takes the request,
looks it up, writes the answer into the buffer of the request, and notes its length.
"""

import asyncio
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from dnsd.front import Front
from dnsd.memo import Memo
from dnsd.metrics import Counts
from dnsd.mmsg import (
    BATCH,
    NAME,
    RECEIVE,
    SLOT,
    Batch,
    available,
    readers,
    writers,
)
from dnsd.responder import Peer
from dnsd.sockets import IP_PKTINFO, is_wildcard
from registry.runtime.config import Network

BATCHES_A_TURN = 4
"""Batches before the event loop may do something else: 256 packets are 2 ms at most."""

MAX_VERDICTS = 8192
"""Addresses whose judgement is remembered; all are forgotten when there are more."""

UNANSWERED_PORTS = frozenset({0, 7, 13, 17, 19, 37})
"""None at all; and echo, daytime, qotd, chargen, time, which would answer our answers."""

_UNANSWERED = frozenset(map(socket.htons, UNANSWERED_PORTS))

Lookup = Callable[[bytes, Iterator[bytes]], Iterator[bytes]]

_NOTHING: Iterator[bytes] = iter(())


def _never(request: bytes, default: Iterator[bytes]) -> Iterator[bytes]:
    """Nothing is answered here for a sender that was not judged yet, or is a stranger."""
    return default


class Senders:
    """Who may ask, and whom we trust."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: bytes) -> bool:
        """Whether *address* (4 or 16 octets) is in one of the networks."""
        ip = ipaddress.ip_address(address)
        return any(ip in network for network in self._networks)

    @staticmethod
    def is_answered(address: bytes, port: int) -> bool:
        """Whether a datagram from there can be a question: no source that is no single host."""
        if port in UNANSWERED_PORTS:
            return False
        ip = ipaddress.ip_address(address)
        return not (ip.is_multicast or ip.is_unspecified or address == b"\xff\xff\xff\xff")


class UdpEndpoint:
    """Answers what arrives at *sock* until closed.  The socket stays its owner's."""

    def __init__(
        self,
        sock: socket.socket,
        front: Front,
        memo: Memo,
        senders: Senders,
        counts: Counts,
    ) -> None:
        self._sock = sock
        self._front = front
        self._memo = memo
        self._senders = senders
        self._counts = counts
        self._wildcard = is_wildcard(sock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._verdicts: dict[int | bytes, Lookup] = {}
        self._peers: dict[int | bytes, Peer] = {}
        self._batch: Batch | None = None
        if available():
            self._read = readers()
            ipv6 = sock.family == socket.AF_INET6
            self._batch = Batch(sock.fileno(), ipv6=ipv6, wildcard=self._wildcard)
            self._slots = [
                (SLOT * i + 2, Batch.length_at(i), Batch.size_at(i), i) for i in range(BATCH)
            ]
            self._ports = memoryview(self._batch.names).cast("H")[1 :: NAME // 2]
            self._addresses = _ipv6(self._batch) if ipv6 else _ipv4(self._batch)

    def open(self) -> None:
        """Begin to answer, in the running loop."""
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(
            self._sock.fileno(), self.drain if self._batch else self.drain_plainly
        )

    def close(self) -> None:
        """Stop answering; what is queued stays in the socket for whoever has it next."""
        if self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._loop = None

    def drain(self) -> None:
        """Answer what has arrived, up to a bound."""
        batch = self._batch
        assert batch is not None
        buffer, lengths, sizes = batch.buffer, batch.lengths, batch.sizes
        ports, addresses = self._ports, self._addresses
        verdicts, nothing, unanswered = self._verdicts.get, _NOTHING, _UNANSWERED
        read, write = readers(), writers()
        for _ in range(BATCHES_A_TURN):
            count = batch.receive()
            if count <= 0:
                return
            first = 0
            for start, length_at, size_at, i in self._slots[:count]:
                length = lengths[length_at]
                if ports[i] in unanswered:
                    reply = None
                else:
                    request = read[length](buffer, start)[0]
                    reply = next(verdicts(addresses[i], _never)(request, nothing), None)
                if reply is None:
                    reply = self._ask(batch, i, length)
                    if reply is None:
                        self._send(batch, first, i)
                        first = i + 1
                        continue
                size = len(reply)
                write[size](buffer, start, reply)
                sizes[size_at] = size + 2
            self._send(batch, first, count)
            if count < BATCH:
                return

    def _send(self, batch: Batch, first: int, last: int) -> None:
        if first < last and (failed := batch.send(first, last)):
            self._counts.drop("send", failed)

    def _ask(self, batch: Batch, i: int, length: int) -> bytes | None:
        """The reply after its ID to what the loop cannot answer; None for none."""
        if length == RECEIVE and batch.is_cut(i):
            self._counts.drop("oversize")
            return None
        key = self._addresses[i]
        peer = self._peers.get(key)
        known = peer is not None
        if not known or self._ports[i] in _UNANSWERED:
            peer = self._judge(batch, i)
        if peer is None:
            self._counts.drop("source")
            return None
        (packet,) = self._read[length + 2](batch.buffer, SLOT * i)
        ask = self._front.missed if known and peer.trusted else self._front.answer
        reply = ask(packet, peer, time.monotonic())
        return None if reply is None else reply[2:]

    def _judge(self, batch: Batch, i: int) -> Peer | None:
        """Who sent datagram *i*, remembered for its next one; None for nobody whom we answer."""
        name = batch.names[NAME * i : NAME * i + NAME]
        address = bytes(name[8:24] if batch.ipv6 else name[4:8])
        if not self._senders.is_answered(address, name[2] << 8 | name[3]):
            return None
        if len(self._peers) >= MAX_VERDICTS:
            self._verdicts.clear()
            self._peers.clear()
        peer = Peer(address, trusted=self._senders.trusts(address))
        key = self._addresses[i]
        self._verdicts[key] = self._memo.trusted.get if peer.trusted else _never
        self._peers[key] = peer
        return peer

    def drain_plainly(self) -> None:
        """The same, a datagram a call, where there are no batches to be had."""
        for _ in range(BATCH):
            try:
                packet, control, flags, source = self._sock.recvmsg(RECEIVE, 64)
            except OSError:  # nothing there (any more), or an error of the network
                return
            address = _packed(source[0])
            if not self._senders.is_answered(address, source[1]):
                self._counts.drop("source")
            elif flags & socket.MSG_TRUNC:
                self._counts.drop("oversize")
            else:
                peer = Peer(address, trusted=self._senders.trusts(address))
                reply = self._front.answer(packet, peer, time.monotonic())
                self._reply_plainly(reply, control, source)

    def _reply_plainly(
        self, reply: bytes | None, control: list[tuple[int, int, bytes]], source: object
    ) -> None:
        if reply is None:
            return
        own = [_without_interface(c) for c in control] if self._wildcard else []
        try:
            self._sock.sendmsg([reply], own, 0, source)  # type: ignore[arg-type]
        except OSError:
            self._counts.drop("send")


def _ipv4(batch: Batch) -> "memoryview[int]":
    """The address of sender *i*, as a number."""
    return memoryview(batch.names).cast("I")[1 :: NAME // 4]


def _ipv6(batch: Batch) -> "_Ipv6Addresses":
    return _Ipv6Addresses(batch.names)


class _Ipv6Addresses:
    """The same of IPv6, as octets: no view has numbers of that size."""

    def __init__(self, names: bytearray) -> None:
        self._names = names

    def __getitem__(self, i: int) -> bytes:
        return bytes(self._names[NAME * i + 8 : NAME * i + 24])


def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host.partition("%")[0]).packed


def _without_interface(control: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    """A destination as the source to send from, the interface left to the routes."""
    level, kind, data = control
    if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
        return level, kind, struct.pack("@i", 0) + data[4:]
    if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
        return level, kind, data[:16] + struct.pack("@i", 0)
    return control
