"""One question over UDP, again and again, as fast as the answers come."""

import socket
from types import TracebackType

from dnslib import EDNS0, DNSRecord

TIMEOUT = 1.0
"""Seconds until a datagram counts as lost; it is then sent again."""

ATTEMPTS = 5

UDP_PAYLOAD = 1232
"""Octets of an answer that we accept: the usual EDNS size, so that four SRV and glue fit."""


class Asker:
    """A UDP socket connected to one name server."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(server)
        self._socket.settimeout(TIMEOUT)

    def __enter__(self) -> "Asker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, packet: bytes) -> bytes:
        """The answer to *packet*, whose id it carries; TimeoutError when none comes."""
        for _ in range(ATTEMPTS):
            self._socket.send(packet)
            try:
                while True:
                    answer = self._socket.recv(65535)
                    if answer[:2] == packet[:2]:
                        return answer
            except TimeoutError:
                continue
        raise TimeoutError(f"no answer after {ATTEMPTS} datagrams")


def question(name: str, qtype: str) -> bytes:
    """A query with EDNS for *name*; two of them differ in their id."""
    record = DNSRecord.question(name, qtype)
    record.add_ar(EDNS0(udp_len=UDP_PAYLOAD))
    return bytes(record.pack())


def label(text: str) -> bytes:
    """*text* as one label on the wire: it stands so in each SRV target, never compressed."""
    return bytes([len(text)]) + text.encode()
