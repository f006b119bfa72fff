"""`dig`: one question to a DNS server, and its answer as dig would print it.

For machines without dig, and for names of ours without their zone.
"""

import difflib
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dnslib

from callboard.failure import DONE, FAILED, NOT_FOUND, UNREACHABLE, WRONG_USAGE, Failure
from callboard.output import Result
from registry.runtime.config import HostPort

TIMEOUT: Final = 2.0
"""Seconds for one attempt."""

ATTEMPTS: Final = 2
"""Over UDP a datagram may be lost; over TCP it is not, and one attempt must do."""

UDP_SIZE: Final = 1232
"""Largest answer asked for over UDP: what passes IPv6 without fragments (DNS flag day 2020)."""

SWITCHES: Final = ("tcp", "notcp", "short", "edns", "noedns", "rec", "norec")
"""What may follow a `+`; each has the meaning it has in dig."""

_UNREADABLE: Final = (dnslib.DNSError, dnslib.DNSLabelError, dnslib.BufferError)
"""What dnslib raises on packets that are none, none of them a ValueError."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask whom, and how."""

    name: str
    qtype: str
    server: HostPort
    tcp: bool = False
    edns: bool = True
    recursion: bool = True
    short: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came, over which transport, and how long it took in seconds."""

    packet: bytes
    transport: str
    seconds: float


def question_of(words: Sequence[str], server: HostPort, zone: str) -> Question:
    """The question in *words*, which come in any order: NAME, TYPE, @HOST[:PORT], +switch.

    A name without a dot is one of *zone*.
    """
    names: list[str] = []
    types: list[str] = []
    switches: dict[str, bool] = {}
    for word in words:
        if word.startswith("@"):
            server = _server_of(word[1:])
        elif word.startswith("+"):
            switches |= _switch_of(word[1:])
        elif names and not types and _is_type(word):
            types.append(word.upper())
        elif not names:
            names.append(word)
        elif not types and len(names) == 1 and _is_type(names[0]):
            types, names = [names[0].upper()], [word]
        else:
            raise Failure(_odd_word(word), status=WRONG_USAGE)
    if not names:
        raise Failure("NAME is missing: callboard dig NAME [TYPE]", status=WRONG_USAGE)
    name, notes = _complete(names[0], zone)
    return Question(name, types[0] if types else "A", server, notes=notes, **switches)


def _odd_word(word: str) -> str:
    close = difflib.get_close_matches(word.upper(), dnslib.QTYPE.reverse, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"{word!r} is no record type and there is a name already{meant}"


def _is_type(word: str) -> bool:
    upper = word.upper()
    return upper in dnslib.QTYPE.reverse or (upper.startswith("TYPE") and upper[4:].isdigit())


def _server_of(text: str) -> HostPort:
    """`10.0.0.1` or `10.0.0.1:1053`; without a port it is 53, as for dig."""
    try:
        if ":" not in text or (text.startswith("[") and text.endswith("]")):
            return HostPort(text.strip("[]"), 53)
        if text.count(":") > 1 and not text.startswith("["):
            return HostPort(text, 53)
        return HostPort.parse(text)
    except ValueError as error:
        raise Failure(f"server @{text}: {error}", status=WRONG_USAGE) from error


def _switch_of(word: str) -> dict[str, bool]:
    if word not in SWITCHES:
        close = difflib.get_close_matches(word, SWITCHES, n=1)
        meant = f"did you mean +{close[0]}?" if close else "+" + ", +".join(SWITCHES)
        raise Failure(f"there is no switch +{word}; {meant}", status=WRONG_USAGE)
    bare = word.removeprefix("no")
    return {{"rec": "recursion"}.get(bare, bare): bare == word}


def _complete(name: str, zone: str) -> tuple[str, tuple[str, ...]]:
    """*name* with its final dot, and what to say when the zone was added."""
    if "." in name:
        return name if name.endswith(".") else name + ".", ()
    whole = f"{name}.{zone.strip('.')}."
    return whole, (f"{name!r} has no dot: asking for {whole}",)


def dig(question: Question) -> tuple[Result, int]:
    """Ask, and understand the answer; the exit status says what kind of answer it was."""
    return understand(question, _ask(question, _query(question)))


def understand(question: Question, reply: Reply) -> tuple[Result, int]:
    """What *reply* says; a Failure when it says nothing that can be read."""
    try:
        record = dnslib.DNSRecord.parse(reply.packet)
        sections = (record.rr, record.auth, record.ar)
        answer, authority, additional = ([_entry(rr) for rr in rrs] for rrs in sections)
    except (*_UNREADABLE, ValueError, IndexError) as error:
        raise Failure(f"{question.server} sent an answer that cannot be read: {error}") from error
    document: dict[str, Any] = {
        "name": question.name,
        "type": question.qtype,
        "status": dnslib.RCODE.get(record.header.rcode),
        "flags": _flags(record.header),
        "answer": [e for e in answer if e is not None],
        "authority": [e for e in authority if e is not None],
        "additional": [e for e in additional if e is not None],
        "server": str(question.server),
        "transport": reply.transport,
        "milliseconds": round(reply.seconds * 1000, 3),
        "size": len(reply.packet),
    }
    data = [_printable(entry["data"]) for entry in document["answer"]]
    text = "\n".join(data) if question.short else _as_dig(document, record)
    return Result(document, data, text, text, _notes(question, document)), _status(document)


def _status(document: dict[str, Any]) -> int:
    if document["status"] == "NXDOMAIN":
        return NOT_FOUND
    if document["status"] != "NOERROR":
        return FAILED
    return DONE if document["answer"] else NOT_FOUND


def _notes(question: Question, document: dict[str, Any]) -> tuple[str, ...]:
    if document["status"] == "REFUSED":
        return (*question.notes, f"the server does not answer for {question.name}")
    return question.notes


# --- asking -----------------------------------------------------------------------------------


def _query(question: Question) -> bytes:
    number = _number_of(question.qtype)
    try:
        record = dnslib.DNSRecord(
            dnslib.DNSHeader(id=secrets.randbelow(65536), rd=int(question.recursion)),
            q=dnslib.DNSQuestion(question.name, number),
        )
        if question.edns:
            record.add_ar(dnslib.EDNS0(udp_len=UDP_SIZE))
        return bytes(record.pack())
    except (dnslib.DNSLabelError, UnicodeError) as error:
        raise Failure(f"{question.name!r} is no DNS name: {error}", status=WRONG_USAGE) from error


def _number_of(qtype: str) -> int:
    known = dnslib.QTYPE.reverse.get(qtype)
    return int(known) if known is not None else int(qtype.removeprefix("TYPE")) & 0xFFFF


def _ask(question: Question, query: bytes) -> Reply:
    """Over UDP, and over TCP when asked to or when the answer did not fit."""
    if not question.tcp:
        reply = _attempt(question, query, _over_udp)
        if not reply.packet[2] & 0x02:
            return reply
    return _attempt(question, query, _over_tcp)


def _attempt(
    question: Question, query: bytes, exchange: Callable[[HostPort, bytes], bytes]
) -> Reply:
    transport = "TCP" if exchange is _over_tcp else "UDP"
    attempts = ATTEMPTS if exchange is _over_udp else 1
    reason = ""
    for _ in range(attempts):
        began = time.monotonic()
        try:
            packet = exchange(question.server, query)
        except TimeoutError:
            reason = f"no answer within {TIMEOUT:g} s"
        except OSError as error:
            reason = error.strerror or str(error)
            break
        else:
            return Reply(packet, transport, time.monotonic() - began)
    raise Failure(
        f"DNS server {question.server} ({transport}): {reason}",
        status=UNREACHABLE,
        hints=("say where dnsd is with --dns or CALLBOARD_DNS",),
    )


def _over_udp(server: HostPort, query: bytes) -> bytes:
    """The first datagram from *server* that answers *query*; TimeoutError when none does."""
    family, address = _resolve(server, socket.SOCK_DGRAM)
    deadline = time.monotonic() + TIMEOUT
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        # Connected, so that the kernel drops what others send, and reports a closed port.
        sock.connect(address)
        sock.send(query)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            packet = sock.recv(65535)
            if _answers(packet, query):
                return packet
    raise TimeoutError


def _over_tcp(server: HostPort, query: bytes) -> bytes:
    family, address = _resolve(server, socket.SOCK_STREAM)
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(address)
        sock.sendall(len(query).to_bytes(2, "big") + query)
        with sock.makefile("rb") as stream:
            size = int.from_bytes(stream.read(2), "big")
            packet = stream.read(size)
    if len(packet) < size or not _answers(packet, query):
        raise OSError("the connection was closed without a whole answer")
    return packet


def _resolve(server: HostPort, kind: socket.SocketKind) -> tuple[int, Any]:
    found = socket.getaddrinfo(server.host, server.port, type=kind)
    return found[0][0], found[0][4]


def _answers(packet: bytes, query: bytes) -> bool:
    """Whether *packet* is a response with the ID of *query*."""
    return len(packet) >= 12 and packet[:2] == query[:2] and bool(packet[2] & 0x80)


# --- understanding ----------------------------------------------------------------------------


def _entry(rr: Any) -> dict[str, Any] | None:
    """A record as a document; None for OPT, which is none."""
    if rr.rtype == dnslib.QTYPE.OPT:
        return None
    return {
        "name": str(rr.rname),
        "ttl": rr.ttl,
        "class": dnslib.CLASS.get(rr.rclass),
        "type": dnslib.QTYPE.get(rr.rtype),
        "data": str(rr.rdata),
    }


def _flags(header: Any) -> list[str]:
    return [name for name in ("qr", "aa", "tc", "rd", "ra", "ad", "cd") if getattr(header, name)]


def _as_dig(document: dict[str, Any], record: Any) -> str:
    counts = (len(record.questions), len(record.rr), len(record.auth), len(record.ar))
    titles = ("QUERY", "ANSWER", "AUTHORITY", "ADDITIONAL")
    numbers = ", ".join(f"{t}: {n}" for t, n in zip(titles, counts, strict=True))
    lines = [
        f";; ->>HEADER<<- opcode: {dnslib.OPCODE.get(record.header.opcode)},"
        f" status: {document['status']}, id: {record.header.id}",
        f";; flags: {' '.join(document['flags'])}; {numbers}",
    ]
    for rr in record.ar:
        if rr.rtype == dnslib.QTYPE.OPT:
            lines += ["", ";; OPT PSEUDOSECTION:", f"; EDNS: version: 0, udp: {rr.rclass}"]
    lines += ["", ";; QUESTION SECTION:", f";{document['name']}\tIN\t{document['type']}"]
    for title in titles[1:]:
        entries = document[title.lower()]
        if entries:
            lines += ["", f";; {title} SECTION:", *_aligned(entries)]
    lines += [
        "",
        f";; Query time: {document['milliseconds']:.1f} ms",
        f";; SERVER: {document['server']} ({document['transport']})",
        f";; MSG SIZE rcvd: {document['size']}",
    ]
    return "\n".join(_printable(line) for line in lines)


def _aligned(entries: Sequence[dict[str, Any]]) -> list[str]:
    width = max(len(e["name"]) for e in entries)
    return [
        f"{e['name']:{width}}  {e['ttl']}  {e['class']}  {e['type']:4}  {e['data']}"
        for e in entries
    ]


def _printable(text: str) -> str:
    """*text* without what would move the cursor: strangers fill TXT records."""
    return "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
