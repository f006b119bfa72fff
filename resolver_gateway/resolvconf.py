"""The servers that a resolv.conf names (resolv.conf(5)): its `nameserver` lines, port 53."""

import ipaddress
from typing import Final

from registry.runtime.config import HostPort

MAX_SERVERS: Final = 8
"""glibc takes three; more than this and a round of asking them all takes too long."""

PORT: Final = 53


def parse_resolv_conf(text: str) -> tuple[HostPort, ...]:
    """The servers in their order; a line that is none is left out, as libc does.

    An IPv6 address may have its interface behind `%`.
    """
    found: dict[HostPort, None] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found[HostPort(words[1], PORT)] = None
    return tuple(found)[:MAX_SERVERS]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
