"""Joins a query and a compiled answer into a message that fits the asker."""

from collections.abc import Sequence
from typing import NamedTuple

from dnsd.compiler import CompiledAnswer, Glue
from dnsd.query import (
    BADVERS,
    CH,
    HEADER,
    MAX_UDP,
    NOERROR,
    NOTIMP,
    TXT,
    Edns,
    Query,
    Reject,
)

STALE_ANSWER, NOT_READY, PROHIBITED, STALE_NXDOMAIN, NOT_AUTHORITATIVE = 3, 14, 18, 19, 20
"""Extended errors that we send (RFC 8914, section 4), always without text."""

MAX_POINTER = 0x3FFF
"""The farthest that a compression pointer reaches (RFC 1035, section 4.1.4)."""

_EDE = 15
_OPT_FIXED = b"\0\0\x29" + MAX_UDP.to_bytes(2, "big")
_PLAIN_OPT = {do: _OPT_FIXED + b"\0\0" + (b"\x80" if do else b"\0") + b"\0\0\0" for do in (0, 1)}
_AA, _TC = 0x04, 0x02
_NO_RECORDS = b"\0\0\0\0\0\0"


class Message(NamedTuple):
    """A reply after its ID: `head`, and, where it has a SOA, the serial and `tail` behind it."""

    head: bytes
    tail: bytes = b""
    has_serial: bool = False
    truncated: bool = False

    def after_id(self, serial: bytes | bytearray) -> bytes:
        return self.head + serial + self.tail if self.has_serial else self.head


def assemble(
    query: Query, answer: CompiledAnswer, order: Sequence[int], limit: int, ede: int | None = None
) -> Message:
    """The reply to *query*, its records in *order*, of at most *limit* octets.

    Room for OPT is kept first.  Addresses of targets that do not fit are left out, from the
    end, without a sign (RFC 2181, section 9); of records that do not fit, those that do are
    sent with TC, and nothing beside them.
    """
    opt = opt_record(query.edns, answer.rcode, ede) if query.edns is not None else b""
    if answer.soa is not None:
        return _with_soa(query, answer, opt)
    question = query.question
    room = limit - HEADER - len(question) - len(opt)
    records = [answer.records[i] for i in order]
    size = answer.size if not answer.most else sum(map(len, records))
    truncated = size > room
    additional: list[bytes] = []
    glue_count = 0
    if truncated:
        records = records[: _how_many_fit(records, room)]
    elif answer.glue:
        room -= size
        for layer in (answer.glue, *answer.further):
            glue = [layer[i] for i in order]
            count, room = _add_glue(additional, records, glue, HEADER + len(question), room)
            glue_count += count
    flags = 0x80 | (_AA if answer.authoritative else 0) | (_TC if truncated else 0) | query.rd
    return Message(
        b"".join(
            (
                bytes((flags, answer.rcode, 0, 1)),
                len(records).to_bytes(2, "big"),
                b"\0\0",
                (glue_count + (1 if opt else 0)).to_bytes(2, "big"),
                question,
                *records,
                *additional,
                opt,
            )
        ),
        truncated=truncated,
    )


def _with_soa(query: Query, answer: CompiledAnswer, opt: bytes) -> Message:
    """A negative answer, or the SOA itself.  It always fits: a name, a SOA that points into it."""
    assert answer.soa is not None
    head, tail = answer.soa.at(HEADER + len(query.name) - answer.soa.apex_size)
    counts = b"\0\1\0\0\0" if answer.soa_is_answer else b"\0\0\0\1\0"
    flags = 0x80 | _AA | query.rd
    return Message(
        b"".join(
            (
                bytes((flags, answer.rcode, 0, 1)),
                counts,
                b"\1" if opt else b"\0",
                query.question,
                head,
            )
        ),
        tail + opt,
        has_serial=True,
    )


def _how_many_fit(records: Sequence[bytes], room: int) -> int:
    for count, record in enumerate(records):
        room -= len(record)
        if room < 0:
            return count
    return len(records)


def _add_glue(
    to: list[bytes], records: Sequence[bytes], glue: Sequence[Glue], at: int, room: int
) -> tuple[int, int]:
    """Append what belongs to whole targets while it fits; how many records that were, and the
    room that is left: less than none once something did not fit.

    *at* is where the first of *records* will stand.
    """
    if room < 0:
        return 0, room
    count = 0
    for record, target in zip(records, glue, strict=True):
        where = at + target.name_at
        at += len(record)
        if where <= MAX_POINTER:
            owner = (0xC000 | where).to_bytes(2, "big")
            room -= target.size
        else:
            owner = target.owner
            room -= target.size + (len(owner) - 2) * len(target.records)
        if room < 0:
            break
        for address in target.records:
            to.append(owner)
            to.append(address)
        count += len(target.records)
    return count, room


def refuse(reject: Reject, ede: int | None = None) -> bytes:
    """The reply to a message that gets a code and nothing else, its ID included."""
    flags = 0x80 | reject.opcode << 3 | reject.rd
    opt = opt_record(reject.edns, reject.rcode, ede)
    return b"".join(
        (
            reject.id,
            bytes((flags, reject.rcode & 15, 0, 1 if reject.question else 0)),
            b"\0\0\0\0\0",
            b"\1" if opt else b"\0",
            reject.question,
            opt,
        )
    )


def truncated(reply: bytes, asked: Query | Reject) -> bytes:
    """*reply* as one that did not fit: TC, the question and OPT, no record."""
    opt = opt_record(asked.edns, NOERROR, None)
    counts = (b"\0\1" if asked.question else b"\0\0") + b"\0\0\0\0\0"
    counts += b"\1" if opt else b"\0"
    return reply[:2] + bytes((reply[2] | _TC, NOERROR)) + counts + asked.question + opt


def identity(query: Query, text: bytes) -> bytes:
    """The reply, its ID included, that says *text* in class CHAOS (RFC 4892)."""
    opt = opt_record(query.edns, NOERROR, None)
    fixed = b"\xc0\x0c" + bytes((0, TXT, 0, CH)) + bytes(4)
    rdata = bytes((len(text),)) + text
    return b"".join(
        (
            query.id,
            bytes((0x80 | _AA | query.rd, NOERROR)),
            b"\0\1\0\1\0\0\0",
            b"\1" if opt else b"\0",
            query.question,
            fixed + len(rdata).to_bytes(2, "big") + rdata,
            opt,
        )
    )


def with_cookie(reply: bytes, option: bytes) -> bytes | None:
    """*reply*, whose OPT has no option but an extended error, with *option* in it; else None."""
    if reply[-11:-6] == _OPT_FIXED and reply[-2:] == b"\0\0":
        return reply[:-2] + len(option).to_bytes(2, "big") + option
    if reply[-17:-12] == _OPT_FIXED and reply[-8:-4] == b"\0\6\0\x0f":
        return reply[:-8] + (6 + len(option)).to_bytes(2, "big") + reply[-6:] + option
    return None


def opt_record(edns: Edns | None, rcode: int, ede: int | None) -> bytes:
    """Our OPT: there if and only if the query had one; of its flags DO alone comes back."""
    if edns is None:
        return b""
    if ede is None and rcode < 16 and not edns.reply:
        return _PLAIN_OPT[edns.do]
    # An asker of another version would not know what to do with options (RFC 8906, 8.2.6).
    options = edns.reply if ede is None else option(_EDE, ede.to_bytes(2, "big")) + edns.reply
    if rcode == BADVERS:
        options = b""
    return b"".join(
        (
            _OPT_FIXED,
            bytes((rcode >> 4, 0)),
            b"\x80\0" if edns.do else b"\0\0",
            len(options).to_bytes(2, "big"),
            options,
        )
    )


def option(code: int, value: bytes) -> bytes:
    """An option as it stands in an OPT record (RFC 6891, section 6.1.2)."""
    return code.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value


def servfail(packet: bytes) -> bytes:
    """The reply when answering *packet*, which was long enough for a header, failed within."""
    return packet[:2] + bytes((0x80 | packet[2] & 1, 2)) + b"\0\0" + _NO_RECORDS


__all__ = [
    "NOERROR",
    "NOTIMP",
    "Message",
    "assemble",
    "identity",
    "opt_record",
    "option",
    "refuse",
    "servfail",
    "truncated",
    "with_cookie",
]
