"""Reads names and records out of a message, compression pointers followed.

For the rare messages that need it: signed ones, IXFR, and replies to NOTIFY.
"""

from collections.abc import Iterator
from typing import NamedTuple

from dnsd.query import HEADER, MAX_QNAME

ANSWER, AUTHORITY, ADDITIONAL = 1, 2, 3

MAX_JUMPS = 127
"""Pointers followed in one name: more than labels fit into one."""


class Record(NamedTuple):
    """Where a record stands: `at` its owner (`owner`, in lower case), `rdata` to `end` its data."""

    section: int
    at: int
    owner: bytes
    rtype: int
    rclass: int
    ttl: int
    rdata: int
    end: int


def read_name(packet: bytes, at: int) -> tuple[bytes, int]:
    """The name at *at*, uncompressed and in lower case, and where it ends; ValueError for none.

    A pointer has to lead backwards: so there is no loop (RFC 1035, section 4.1.4).
    """
    labels: list[bytes] = []
    size, end, limit = 0, -1, at
    for _ in range(MAX_QNAME + MAX_JUMPS):
        if at >= len(packet):
            break
        length = packet[at]
        if length >= 0xC0:
            if at + 2 > len(packet):
                break
            end = at + 2 if end < 0 else end
            at = (length & 0x3F) << 8 | packet[at + 1]
            if at >= limit:
                break
            limit = at
            continue
        size += length + 1
        if length > 63 or size > MAX_QNAME or at + 1 + length > len(packet):
            break
        labels.append(packet[at : at + 1 + length])
        at += 1 + length
        if length == 0:
            return b"".join(labels).lower(), at if end < 0 else end
    raise ValueError("not a name")


def records(packet: bytes) -> Iterator[Record]:
    """The records of *packet* in their order; ValueError where one does not fit."""
    if len(packet) < HEADER:
        raise ValueError("not a message")
    questions, *counts = (_u16(packet, at) for at in (4, 6, 8, 10))
    at = HEADER
    for _ in range(questions):
        at = read_name(packet, at)[1] + 4
    for section, count in enumerate(counts, ANSWER):
        for _ in range(count):
            start = at
            owner, at = read_name(packet, at)
            if at + 10 > len(packet):
                raise ValueError("a record is cut")
            rdata = at + 10
            end = rdata + _u16(packet, at + 8)
            if end > len(packet):
                raise ValueError("a record is cut")
            ttl = int.from_bytes(packet[at + 4 : at + 8], "big")
            rtype, rclass = _u16(packet, at), _u16(packet, at + 2)
            yield Record(section, start, owner, rtype, rclass, ttl, rdata, end)
            at = end


def _u16(packet: bytes, at: int) -> int:
    return packet[at] << 8 | packet[at + 1]
