"""The heads we send: upstream with who asked and through whom, to clients with our framing.

A field reaches the other side only as a line rebuilt from what was parsed.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from resolver_gateway import fields
from resolver_gateway.fields import Line
from resolver_gateway.request import RequestHead
from resolver_gateway.response import ResponseHead

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NO_TRAILER: Final = frozenset(
    b"authorization cache-control content-encoding content-range content-type cookie"
    b" expires set-cookie www-authenticate age date location retry-after vary warning".split()
)
"""What changes the meaning of a message comes in its head or not at all (RFC 9110, 6.5.1)."""


def is_trusted(peer: str, networks: Sequence[Network]) -> bool:
    """Whether *peer* is a proxy of ours, whose word about its clients counts."""
    if not networks:
        return False
    address = ipaddress.ip_address(peer.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def forwarding(peer: str, request: RequestHead, *, trusted: bool, scheme: str = "http") -> bytes:
    """The lines that say for whom: X-Forwarded-*, X-Real-IP and Forwarded.

    What a stranger says of itself is dropped; what a trusted proxy says goes on, with the proxy
    appended to X-Forwarded-For and Forwarded (RFC 7239).
    """
    address = peer.encode()
    element = _forwarded_element(peer, request.host, scheme)
    if not (trusted and request.forwarding):
        return (
            b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"
            b"X-Real-IP: %b\r\nForwarded: %b\r\n"
            % (address, scheme.encode(), request.host, address, element)
        )
    said: dict[bytes, list[bytes]] = {}
    for line in request.forwarding:
        said.setdefault(line.name, []).append(line.value)
    lists = {b"x-forwarded-for": address, b"forwarded": element}
    single = {
        b"x-forwarded-proto": scheme.encode(),
        b"x-forwarded-host": request.host,
        b"x-real-ip": address,
    }
    lines = [
        b"%b: %b\r\n" % (name, b", ".join([*said.pop(name, []), own]))
        for name, own in lists.items()
    ]
    lines += [b"%b: %b\r\n" % (name, said.pop(name, [own])[-1]) for name, own in single.items()]
    lines += [b"%b: %b\r\n" % (name, values[-1]) for name, values in said.items()]
    return b"".join(lines)


def _forwarded_element(peer: str, host: bytes, scheme: str) -> bytes:
    node = f'"[{peer}]"' if ":" in peer else peer
    quoted = b';host="%b"' % host if host else b""
    return b"for=%b;proto=%b%b" % (node.encode(), scheme.encode(), quoted)


def hops(request: RequestHead, pseudonym: bytes) -> bytes | None:
    """The value of `Via` with us appended; None when we are in it already: a loop."""
    own = b"1.%d %b" % (request.minor, pseudonym)
    if not request.via:
        return own
    received = b", ".join(request.via)
    if any(pseudonym in hop.split() for hop in received.split(b",")):
        return None
    return received + b", " + own


def request_head(
    request: RequestHead, target: bytes, host: bytes, said: bytes, request_id: bytes
) -> bytes:
    """The head for the upstream; *said* are the lines of `forwarding`, Via and the prefix."""
    return b"".join(
        (
            request.method,
            b" ",
            target,
            b" HTTP/1.1\r\nHost: ",
            host,
            b"\r\n",
            request.block,
            said,
            b"X-Request-Id: ",
            request_id,
            b"\r\n\r\n",
        )
    )


def response_head(
    response: ResponseHead, request: RequestHead, *, keep: bool, chunk: bool
) -> bytes:
    """The head for the client: our connection, our framing (*chunk*: chunked), else theirs."""
    if keep and not chunk and request.minor:
        return response.framed
    if chunk:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = response.length_line if response.status != 204 else b""
    if not keep:
        end = b"Connection: close\r\n\r\n"
    else:
        end = b"\r\n" if request.minor else b"Connection: keep-alive\r\n\r\n"
    return b"".join((response.line, response.block, framing, end))


def interim_head(response: ResponseHead) -> bytes:
    """An interim answer (1xx) as it goes on; it has no body."""
    return response.line + response.block + b"\r\n"


def switching_head(response: ResponseHead) -> bytes:
    """The 101 that ends HTTP on both connections."""
    return b"%b%bConnection: upgrade\r\nUpgrade: %b\r\n\r\n" % (
        response.line,
        response.block,
        response.upgrade,
    )


def is_asked_for(upgrade: bytes, request: RequestHead) -> bool:
    """Whether the protocol that an upstream switches to is one that the client named."""
    return upgrade.strip(b" \t").lower() in fields.words(request.upgrade)


def trailers_that_pass(trailers: Sequence[Line]) -> list[bytes]:
    """The trailer lines that may go on: none that frames, routes, or authorises."""
    return [
        line.rebuilt
        for line in trailers
        if line.kind == fields.PLAIN and line.name not in _NO_TRAILER
    ]
