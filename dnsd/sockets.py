"""Binds what dnsd listens on: before anything else, all of it or none.

Each worker has a UDP and a listening TCP socket for every address, under SO_REUSEPORT.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence

from registry.runtime.config import HostPort
from registry.runtime.lifecycle import binding_error

IP_PKTINFO = 8
"""Linux's number; the module `socket` lacks it."""

_MTU_DISCOVER = ((socket.IPPROTO_IP, 10), (socket.IPPROTO_IPV6, 23))
_PMTUDISC_OMIT = 5
"""Ignore what ICMP says of the path: forged, it could only break our answers, which fit every
path anyway (RFC 9715, section 3.1)."""

RECEIVE_BUFFER = 4 << 20
"""Octets that may wait while a worker is busy or replaced: some 10,000 queries."""

BACKLOG = 256
"""TCP connections that may wait to be accepted."""

ATTEMPTS = 20
"""Free ports tried, until one is free for UDP, TCP and each family alike."""


def bind_all(listen: Sequence[HostPort], workers: int) -> list[list[socket.socket]]:
    """The sockets of each worker; CallboardError names the address that could not be bound.

    Port 0 takes a free port, the same for all that belong to one item of *listen*.
    """
    of_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    try:
        for address in listen:
            for mine, sockets in zip(of_worker, _bind(address, workers), strict=True):
                mine.extend(sockets)
    except BaseException:
        close_all(of_worker)
        raise
    return of_worker


def close_all(of_worker: Sequence[Sequence[socket.socket]]) -> None:
    """Close them; those who inherited them keep theirs."""
    for sockets in of_worker:
        for sock in sockets:
            sock.close()


def _bind(address: HostPort, workers: int) -> list[list[socket.socket]]:
    for attempt in range(ATTEMPTS):
        last = address.port != 0 or attempt == ATTEMPTS - 1
        try:
            return _bind_once(address, workers)
        except OSError as error:
            if last or error.errno != errno.EADDRINUSE:
                raise binding_error(error, address, "--listen") from error
    raise AssertionError("the last attempt returns or raises")


def _bind_once(address: HostPort, workers: int) -> list[list[socket.socket]]:
    hosts = hosts_of(address.host)
    port = _probe(hosts, address.port)
    of_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    try:
        for host in hosts:
            for mine in of_worker:
                mine.append(_udp(host, port))
                mine.append(_tcp(host, port))
    except BaseException:
        close_all(of_worker)
        raise
    return of_worker


def hosts_of(host: str) -> list[str]:
    """The addresses to bind for *host*: `::` stands for both families, of those there are."""
    if host != "::":
        return [host]
    return ["0.0.0.0", "::"] if _has_ipv6() else ["0.0.0.0"]


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))
        return True
    return False


def _probe(hosts: Sequence[str], port: int) -> int:
    """The port to bind, once a plain bind has shown that nobody else has it.

    With SO_REUSEPORT alone a second dnsd would silently take half of the first one's queries.
    """
    for host in hosts:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with _socket(host, kind) as sock:
                sock.bind((host, port))
                port = sock.getsockname()[1]
    return port


def _socket(host: str, kind: socket.SocketKind) -> socket.socket:
    ipv6 = ":" in host
    sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, kind)
    if ipv6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _udp(host: str, port: int) -> socket.socket:
    sock = _socket(host, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        with contextlib.suppress(OSError):  # not on every system
            sock.setsockopt(*_MTU_DISCOVER[":" in host], _PMTUDISC_OMIT)
        if host == "0.0.0.0":
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        elif host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp(host: str, port: int) -> socket.socket:
    sock = _socket(host, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def is_wildcard(sock: socket.socket) -> bool:
    """Whether *sock* takes what was sent to any address of its family."""
    return sock.getsockname()[0] in ("0.0.0.0", "::")


def addresses_of(sockets: Sequence[socket.socket]) -> Iterator[HostPort]:
    """Where *sockets* of one worker listen, each address once."""
    for sock in sockets:
        if sock.type == socket.SOCK_DGRAM:
            yield HostPort(*sock.getsockname()[:2])
