"""Who asks: the address of the connection, or what a trusted proxy says in front of it."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from registrar.endpoints import Network, canonical_address


def caller_of(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """The caller's address in canonical form; empty when it has none (a Unix socket).

    *forwarded_for* are the X-Forwarded-For headers in order.  Only the last hop counts,
    written by the proxy itself; all before it came from outside.
    """
    address = _peer_address(peer)
    if address is None:
        return ""
    if forwarded_for and is_within(address, trusted):
        return canonical_address(forwarded_for[-1].rpartition(",")[2].strip()) or address
    return address


_peer_address = lru_cache(4096)(canonical_address)
"""A fleet's proxies and sidecars; a peer's text comes from the kernel, so that none is long."""


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether *address* lies in one of *networks*; an empty one (a Unix socket) lies in none."""
    if not address:
        return False
    ip = ipaddress.ip_address(address)
    return any(ip.version == network.version and ip in network for network in networks)
