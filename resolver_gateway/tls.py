"""Certificates: ours towards clients, and whom we believe of upstreams; read again on SIGHUP."""

import ssl
from collections.abc import Sequence
from typing import Final

from resolver_gateway.certificates import not_after

LEAST_VERSION: Final = ssl.TLSVersion.TLSv1_2
"""Mozilla's "intermediate": everything that is still maintained speaks it."""

PROTOCOLS: Final = ["http/1.1"]


class ClientSide:
    """Our certificate: *context* is what listening sockets use, the same for ever.

    A new certificate goes into it, so that the next handshake has it and no connection is lost.
    """

    def __init__(self, certificate: str, key: str) -> None:
        """OSError or ValueError (ssl.SSLError is an OSError) when they cannot be used."""
        self._certificate = certificate
        self._key = key
        self.context = _server_context()
        self.expires_at = 0.0
        """Seconds since 1970; 0: not known."""
        self.read_again()

    def read_again(self) -> None:
        """Take the files as they are now; on OSError what was read before stays."""
        # Into another context first: a key that does not fit must not end half-loaded in ours.
        _server_context().load_cert_chain(self._certificate, self._key)
        self.context.load_cert_chain(self._certificate, self._key)
        with open(self._certificate, "rb") as file:
            self.expires_at = not_after(file.read())


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = LEAST_VERSION
    context.set_alpn_protocols(PROTOCOLS)
    return context


def upstream_context(authorities: str, protocols: Sequence[str] = PROTOCOLS) -> ssl.SSLContext:
    """What upstreams are checked by: the file of *authorities*, else those of the system.

    OSError when the file cannot be used.
    """
    context = ssl.create_default_context(cafile=authorities or None)
    context.minimum_version = LEAST_VERSION
    context.set_alpn_protocols(list(protocols))
    return context
