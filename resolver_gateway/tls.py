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

    It hands every handshake to the context that was read last.  A new certificate loaded into
    the same context would not do: OpenSSL keeps one of each kind of key, and goes on showing the
    old one when the new one's kind is another.
    """

    def __init__(self, certificate: str, key: str) -> None:
        """OSError (which ssl.SSLError is) when they cannot be used."""
        self._certificate = certificate
        self._key = key
        self._latest = self._read()
        self.context = self._read()
        self.context.sni_callback = self._hand_over

    @property
    def expires_at(self) -> float:
        """When the certificate ends, in seconds since 1970; 0: not known."""
        return self._expires_at

    def read_again(self) -> None:
        """Take the files as they are now; on OSError what was read before stays."""
        self._latest = self._read()

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = LEAST_VERSION
        context.set_alpn_protocols(PROTOCOLS)
        context.load_cert_chain(self._certificate, self._key)
        with open(self._certificate, "rb") as file:
            self._expires_at = not_after(file.read())
        return context

    def _hand_over(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, _own: ssl.SSLContext
    ) -> None:
        # OpenSSL calls this at every handshake, whether the client names a server or not.
        handshake.context = self._latest


def upstream_context(authorities: str, protocols: Sequence[str] = PROTOCOLS) -> ssl.SSLContext:
    """What upstreams are checked by: the file of *authorities*, else those of the system.

    OSError when the file cannot be used.
    """
    context = ssl.create_default_context(cafile=authorities or None)
    context.minimum_version = LEAST_VERSION
    context.set_alpn_protocols(list(protocols))
    return context
