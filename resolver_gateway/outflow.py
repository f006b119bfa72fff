"""Whether a peer takes what is sent to it: how much still waits, and whether it goes down."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from typing import Final

WRITE_STALL: Final = 30.0
"""Seconds in which a peer that has something to read takes less than `LEAST_RATE` of it: then it
is cut off."""

LEAST_RATE: Final = 240.0
"""Octets a second that a peer has to take, on average: a GSM modem's quarter, and Kestrel's
default.  Without it one octet a second holds a connection and its buffers for ever."""

KERNEL_UNSENT: Final = 128 * 1024
"""Octets that the kernel holds for a peer beside what is on its way.  Left alone it takes up to
4 MiB for each (tcp_wmem), and says that more can be written only when a third of that is gone."""

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: close() sends a reset."""


class Outflow:
    """What waits to be taken by the peer of *transport*, looked at now and then."""

    __slots__ = ("_left", "_since", "_transport")

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self._transport = transport
        self._left = unsent(transport)
        self._since = now

    def is_stuck(self, now: float) -> bool:
        """Whether too little went since it last went well, for as long as that is borne."""
        left = unsent(self._transport)
        gone = self._left - left
        if gone > 0 and gone >= LEAST_RATE * (now - self._since):
            self._left, self._since = left, now
        return now - self._since >= WRITE_STALL


def unsent(transport: asyncio.Transport) -> int:
    """Octets written that the peer has not acknowledged: ours, and the kernel's where it tells."""
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        waiting += struct.unpack("i", answer)[0]
    return waiting


def bound(transport: asyncio.Transport) -> None:
    """Have the kernel hold no more than `KERNEL_UNSENT` for the peer of *transport*."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_UNSENT)


def reset(transport: asyncio.Transport) -> None:
    """Close at once with a reset, which tells the peer that what it got is not all."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
