"""The demo's services as a program: a process each, forked from this one, that says who it is.

Forked, so that fourteen of them share the memory of one.  `up` starts it and reads the line in
which it says where they listen.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Final, NoReturn

from callboard.demo import FALLBACK_HOST, SERVICES, DemoService, announce
from registry.runtime.process import call_self, die_with

MAX_HEAD: Final = 16384
"""Octets of a request that are kept while its end is awaited; longer ones are closed."""

MAX_CONNECTIONS: Final = 256
"""Of one service; more are closed at once."""

_AWAITED: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def main() -> int:
    """Bind everything, fork, say where, and wait for SIGTERM."""
    listeners = [_listen(service) for service in SERVICES]
    ours = os.getpid()
    # Before the first fork, so that no end of a child is missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    gc.freeze()  # a collection in a child would touch, and so copy, every page it shares
    pids = [_fork(s, sock, listeners, ours) for s, sock in zip(SERVICES, listeners, strict=True)]
    places = [(*sock.getsockname()[:2], pid) for sock, pid in zip(listeners, pids, strict=True)]
    for sock in listeners:
        sock.close()
    sys.stdout.write(announce(places) + "\n")
    sys.stdout.flush()
    _wait(dict(zip(pids, SERVICES, strict=True)))
    return 0


def _listen(service: DemoService) -> socket.socket:
    """At the service's address, else on a free port there, else on a free port of 127.0.0.1."""
    wishes = ((service.host, service.port), (service.host, 0), (FALLBACK_HOST, 0))
    for place in wishes[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_server(place, backlog=128)
    return socket.create_server(wishes[-1], backlog=128)


def _fork(
    service: DemoService, mine: socket.socket, listeners: list[socket.socket], parent: int
) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    die_with(parent)
    call_self(service.name)
    for sock in listeners:
        if sock is not mine:
            sock.close()
    _serve(service, mine)


def _wait(alive: dict[int, DemoService]) -> None:
    """Until SIGTERM or SIGINT, which end the services too.  One that is killed stays dead."""
    while signal.sigwait(_AWAITED) is signal.SIGCHLD:
        for pid in _ended(alive):
            sys.stderr.write(f"{alive.pop(pid).name} (pid {pid}) ended; it stays dead\n")
            sys.stderr.flush()
    for pid in alive:
        os.kill(pid, signal.SIGTERM)
    for pid in alive:
        os.waitpid(pid, 0)


def _ended(alive: Iterable[int]) -> list[int]:
    return [pid for pid in alive if os.waitpid(pid, os.WNOHANG)[0] == pid]


# --- one service ------------------------------------------------------------------------------


def _serve(service: DemoService, listener: socket.socket) -> NoReturn:
    """Answer for ever; SIGTERM ends the process, as it does any other."""
    waiting: dict[socket.socket, bytes] = {}
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                _accept(listener, selector, waiting)
            else:
                assert isinstance(key.fileobj, socket.socket)
                _read(service, key.fileobj, selector, waiting)


def _accept(
    listener: socket.socket, selector: selectors.BaseSelector, waiting: dict[socket.socket, bytes]
) -> None:
    with contextlib.suppress(OSError):
        client, _ = listener.accept()
        if len(waiting) >= MAX_CONNECTIONS:
            client.close()
            return
        client.setblocking(False)
        waiting[client] = b""
        selector.register(client, selectors.EVENT_READ)


def _read(
    service: DemoService,
    client: socket.socket,
    selector: selectors.BaseSelector,
    waiting: dict[socket.socket, bytes],
) -> None:
    """Take what came; answer each whole request, and close what goes wrong."""
    try:
        data = client.recv(65536)
        rest = waiting[client] + data
        goes_on = bool(data)
        while goes_on and (size := _request_size(rest)):
            goes_on = _answer(service, client, rest[:size])
            rest = rest[size:]
    except (OSError, ValueError):
        goes_on, rest = False, b""
    if goes_on and len(rest) <= MAX_HEAD:
        waiting[client] = rest
        return
    selector.unregister(client)
    del waiting[client]
    client.close()


def _request_size(data: bytes) -> int:
    """Octets of the first request in *data*, body included; 0 while it is not whole."""
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end:
        return 0
    size = len(head) + 4 + int(_field(head, b"content-length") or 0)
    return size if len(data) >= size else 0


def _field(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


def _answer(service: DemoService, client: socket.socket, request: bytes) -> bool:
    """Answer one request; whether the connection stays open."""
    method, target, protocol = request.split(b"\r\n", 1)[0].split(b" ")
    document = _document(service, client, method.decode("latin-1"), target.decode("latin-1"))
    body = (json.dumps(document) + "\n").encode()
    stays = protocol == b"HTTP/1.1" and (_field(request, b"connection") or b"").lower() != b"close"
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: {'keep-alive' if stays else 'close'}\r\n\r\n"
    )
    # The answer is far smaller than a socket's buffer; a client that never reads is closed.
    answer = head.encode() + (b"" if method == b"HEAD" else body)
    return client.send(answer) == len(answer) and stays


def _document(
    service: DemoService, client: socket.socket, method: str, target: str
) -> dict[str, object]:
    """Health where it is asked for; elsewhere who answers, and what was asked."""
    if target.partition("?")[0] == service.health:
        return {"status": "healthy", "version": service.version}
    host, port = client.getsockname()[:2]
    return {
        "service": service.name,
        "address": f"{host}:{port}",
        "pid": os.getpid(),
        "version": service.version,
        "method": method,
        "path": target,
    }


if __name__ == "__main__":
    sys.exit(main())
