"""The socket on which the registrar listens, and who takes the connections that come to it."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

from registrar.config import PART
from registry.runtime.config import HostPort
from registry.runtime.lifecycle import binding_error

BACKLOG = 1024
"""Connections that wait to be accepted: all sidecars of a fleet may come back at once."""

HANDSHAKE_SECONDS = 10.0
"""For a TLS handshake, as for a head."""

Factory = Callable[[], asyncio.Protocol]


class Listener:
    """One listening socket; what TLS shows may be exchanged while it listens."""

    def __init__(self, address: HostPort) -> None:
        self._wanted = address
        self._server: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def address(self) -> HostPort:
        """Where it listens; once it does."""
        assert self._server is not None, "not started"
        host, port, *_ = self._server.sockets[0].getsockname()
        return HostPort(host, port)

    @property
    def url(self) -> str:
        return f"{'http' if self._context is None else 'https'}://{self.address}"

    async def start(self, factory: Factory, context: ssl.SSLContext | None) -> None:
        """Listen.  An error says which option names the address."""
        raise_file_limit()
        self._context = context
        if context is not None:
            context.sni_callback = self._choose
        self._server = await asyncio.get_running_loop().create_server(
            factory,
            sock=_listen(self._wanted),
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=None if context is None else HANDSHAKE_SECONDS,
        )

    def exchange(self, context: ssl.SSLContext) -> None:
        """Show what *context* has from now on; connections that are open stay as they are."""
        self._context = context

    def _choose(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
    ) -> None:
        # OpenSSL asks at every handshake, whether the client names a server or not.  With the
        # context it takes the certificate from there, and the authorities that it trusts.
        if self._context is not None:
            handshake.context = self._context

    def close(self) -> None:
        """Take no connections any more."""
        if self._server is not None:
            self._server.close()


def _listen(address: HostPort) -> socket.socket:
    """A listening socket; on [::] it takes IPv4 too.  A clear error names `--listen`."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(
            address,
            family=family,
            backlog=BACKLOG,
            dualstack_ipv6=address.host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise binding_error(error, address, "--listen") from error


def raise_file_limit() -> None:
    """Take as many open files as the system allows: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def write_address(path: Path, url: str) -> None:
    """Write it whole or not at all: whoever waits for the file reads it at once."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump({PART: url}, file)
    os.replace(file.name, path)
