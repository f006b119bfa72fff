"""Asking a DNS server, with dnspython: another library than the one that answers."""

import random
import struct

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rdataclass
import dns.rdatatype

from registry.runtime.config import HostPort

TIMEOUT = 3.0


def query(
    name: str,
    rtype: str | int = "A",
    *,
    edns: int | None = None,
    do: bool = False,
    rd: bool = False,
    qclass: str | int = "IN",
    options: list[tuple[int, bytes]] | None = None,
) -> bytes:
    """A question as octets; *edns* is the buffer size that OPT offers, *options* what it holds."""
    message = dns.message.make_query(
        name, dns.rdatatype.RdataType.make(rtype), dns.rdataclass.RdataClass.make(qclass)
    )
    message.flags = dns.flags.Flag(dns.flags.RD if rd else 0)
    if edns is not None:
        message.use_edns(
            0,
            dns.flags.DO if do else 0,
            payload=edns,
            options=[
                dns.edns.GenericOption(dns.edns.OptionType.make(code), data)
                for code, data in options or ()
            ],
        )
    return message.to_wire()


async def ask(
    address: HostPort,
    name: str,
    rtype: str | int = "A",
    *,
    edns: int | None = None,
    tcp: bool = False,
) -> dns.message.Message:
    """The answer of the server at *address*, checked to be one to this question."""
    question = dns.message.from_wire(query(name, rtype, edns=edns))
    where, port = address.host, address.port
    if tcp:
        return await dns.asyncquery.tcp(question, where, TIMEOUT, port)
    return await dns.asyncquery.udp(question, where, TIMEOUT, port)


def ask_now(
    address: HostPort,
    name: str,
    rtype: str | int = "A",
    *,
    edns: int | None = None,
    tcp: bool = False,
) -> dns.message.Message:
    """The same, blocking: for a server in another process."""
    question = dns.message.from_wire(query(name, rtype, edns=edns))
    where, port = address.host, address.port
    if tcp:
        return dns.query.tcp(question, where, TIMEOUT, port)
    return dns.query.udp(question, where, TIMEOUT, port)


def header(
    flags: int = 0, qd: int = 1, an: int = 0, ns: int = 0, ar: int = 0, number: int = 0x1234
) -> bytes:
    """A message's header with these flags and counts."""
    return struct.pack("!6H", number, flags, qd, an, ns, ar)


def wire_name(name: str) -> bytes:
    """*name* as labels, case kept."""
    labels = [label.encode() for label in name.removesuffix(".").split(".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def question(name: str | bytes, rtype: int = 1, qclass: int = 1) -> bytes:
    """A question section; *name* may be raw octets."""
    raw = name if isinstance(name, bytes) else wire_name(name)
    return raw + struct.pack("!HH", rtype, qclass)


def opt(
    size: int = 1232, version: int = 0, flags: int = 0, rdata: bytes = b"", owner: bytes = b"\0"
) -> bytes:
    """An OPT record."""
    return owner + struct.pack("!HHBBHH", 41, size, 0, version, flags, len(rdata)) + rdata


def option(code: int, data: bytes = b"") -> bytes:
    """An EDNS option."""
    return struct.pack("!HH", code, len(data)) + data


def flag_word(reply: bytes) -> int:
    """The second word of the header."""
    word: int = struct.unpack_from("!H", reply, 2)[0]
    return word


def counts(reply: bytes) -> tuple[int, int, int, int]:
    """QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT."""
    qd, an, ns, ar = struct.unpack_from("!4H", reply, 4)
    return qd, an, ns, ar


def ede(message: dns.message.Message) -> list[int]:
    """The extended errors in *message*."""
    return [int(o.code) for o in message.options if isinstance(o, dns.edns.EDEOption)]


def shuffled_case(name: str, seed: int = 1) -> str:
    """*name* as a resolver writes it that checks the case of what comes back."""
    rng = random.Random(seed)
    return "".join(rng.choice((c.upper(), c.lower())) for c in name)
