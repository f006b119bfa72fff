"""recvmmsg and sendmmsg through ctypes: 64 datagrams a call, in buffers that are made once.

A reply is written into the buffer that its request came in, behind the ID, which thereby is
in its place already.  Where Linux's calls are not to be had, `available()` says so.
"""

import array
import ctypes
import errno
import functools
import struct
import sys
from collections.abc import Callable
from typing import Any

from dnsd.query import MAX_UDP

BATCH = 64
"""Datagrams a call: beyond this the cost of the call no longer shows."""

SLOT = 4096 + 192
"""Octets a datagram may have, and some more, so that the slots do not all fall on the same
lines of the processor's cache."""

RECEIVE = 4096
"""What of a slot is received into: a datagram that is longer is not for us."""

NAME = 32
"""Octets kept for a socket address: a sockaddr_in6 has 28."""

CONTROL = 64
"""Octets kept for the destination of a datagram (IP_PKTINFO, IPV6_PKTINFO)."""

_MSG_DONTWAIT = 0x40
MSG_TRUNC = 0x20


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("hdr", _Msghdr), ("len", ctypes.c_uint))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def available() -> bool:
    """Whether this system has both calls, in the form that we know."""
    return (
        sys.platform == "linux"
        and ctypes.sizeof(ctypes.c_void_p) == 8
        and hasattr(_libc(), "recvmmsg")
        and hasattr(_libc(), "sendmmsg")
    )


class Batch:
    """The buffers of one socket, and the two calls on it.

    For the loop's sake they are laid open: datagram *i* stands in `buffer` from `SLOT * i`,
    `lengths[length_at(i)]` octets long, its sender at `names[NAME * i:]`; a reply's length goes
    to `sizes[size_at(i)]`.  With *wildcard*, the address that was asked travels along.
    """

    def __init__(self, fd: int, *, ipv6: bool, wildcard: bool) -> None:
        self.fd = fd
        self.ipv6 = ipv6
        self.buffer = bytearray(BATCH * SLOT)
        self.names = bytearray(BATCH * NAME)
        self._control = bytearray(BATCH * CONTROL)
        self._receive_iov = (_Iovec * BATCH)()
        self._send_iov = (_Iovec * BATCH)()
        self._received = (_Mmsghdr * BATCH)()
        self._sent = (_Mmsghdr * BATCH)()
        self._wildcard = wildcard
        data, name, control = map(_address, (self.buffer, self.names, self._control))
        for i in range(BATCH):
            for headers, iov in (
                (self._received, self._receive_iov),
                (self._sent, self._send_iov),
            ):
                iov[i].base = data + i * SLOT
                iov[i].len = RECEIVE
                header = headers[i].hdr
                header.name = name + i * NAME
                header.namelen = 28 if self.ipv6 else 16
                header.iov = ctypes.addressof(iov[i])
                header.iovlen = 1
                if wildcard:
                    header.control = control + i * CONTROL
                    header.controllen = self._control_size
        self.lengths = _view(self._received, "I")
        self.sizes = _view(self._send_iov, "Q")
        interface_at = 32 if self.ipv6 else 16
        self._interfaces = _view(self._control, "I")[interface_at // 4 :: CONTROL // 4]
        self._no_interface = memoryview(bytes(4 * BATCH)).cast("I")
        size_at = (_Mmsghdr.hdr.offset + _Msghdr.controllen.offset) // 8
        step = ctypes.sizeof(_Mmsghdr) // 8
        self._control_sizes = _view(self._received, "Q")[size_at::step]
        self._all_control = memoryview(array.array("Q", [self._control_size] * BATCH))
        libc = _libc()
        self._recvmmsg: Callable[..., int] = libc.recvmmsg
        self._sendmmsg: Callable[..., int] = libc.sendmmsg
        pointer, number = ctypes.c_void_p, ctypes.c_uint
        self._recvmmsg.argtypes = [ctypes.c_int, pointer, number, ctypes.c_int, pointer]
        self._sendmmsg.argtypes = [ctypes.c_int, pointer, number, ctypes.c_int]
        self._received_at = ctypes.addressof(self._received)
        self._sent_at = ctypes.addressof(self._sent)

    @property
    def _control_size(self) -> int:
        """CMSG_SPACE of one in6_pktinfo or in_pktinfo: exactly what the kernel fills."""
        return 40 if self.ipv6 else 32

    @staticmethod
    def length_at(i: int) -> int:
        """Where in `lengths` that of datagram *i* stands."""
        return (ctypes.sizeof(_Mmsghdr) * i + _Mmsghdr.len.offset) // 4

    @staticmethod
    def size_at(i: int) -> int:
        """Where in `sizes` that of reply *i* stands."""
        return 2 * i + 1

    def receive(self) -> int:
        """How many datagrams came; 0 when there is none (or an error of the network)."""
        count = self._recvmmsg(self.fd, self._received_at, BATCH, _MSG_DONTWAIT, None)
        if count > 0 and self._wildcard:
            self._prepare_control()
        return count

    def _prepare_control(self) -> None:
        """Let the routes choose the replies' way: an interface in them would override it."""
        self._interfaces[:] = self._no_interface
        self._control_sizes[:] = self._all_control

    def is_cut(self, i: int) -> bool:
        """Whether datagram *i* was longer than its slot."""
        return bool(self._received[i].hdr.flags & MSG_TRUNC)

    def send(self, first: int, last: int) -> int:
        """Send replies first..last-1; how many the system did not take.  Never waits."""
        failed = 0
        while first < last:
            at = self._sent_at + first * ctypes.sizeof(_Mmsghdr)
            sent = self._sendmmsg(self.fd, at, last - first, _MSG_DONTWAIT)
            if sent > 0:
                first += sent
                continue
            match ctypes.get_errno():
                case errno.EINTR:
                    continue
                case errno.EAGAIN | errno.ENOBUFS | errno.ENOMEM:
                    return failed + last - first
                case _:  # of this one destination: the others go on
                    failed += 1
                    first += 1
        return failed


def _address(buffer: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def _view(memory: Any, code: str) -> "memoryview[int]":
    return memoryview(memory).cast("B").cast(code)  # type: ignore[call-overload,no-any-return]


@functools.cache
def readers() -> tuple[Callable[..., tuple[bytes]], ...]:
    """For each length of a datagram what takes the octets after its ID, in one call; two more
    than its length takes the whole.

    Slicing a memoryview and copying takes twice as long.
    """
    return tuple(_struct(max(0, n - 2)).unpack_from for n in range(RECEIVE + 3))


@functools.cache
def writers() -> tuple[Callable[..., None], ...]:
    """For each length that a reply may have after its ID what writes it at an offset."""
    return tuple(_struct(n).pack_into for n in range(MAX_UDP - 1))


@functools.cache
def _struct(size: int) -> struct.Struct:
    return struct.Struct(f"{size}s")
