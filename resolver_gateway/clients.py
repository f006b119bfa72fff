"""Who a client is, when proxies of ours stand between: for limits, and for hashing."""

import ipaddress
from collections.abc import Iterable, Sequence

from resolver_gateway.addresses import Network


def address_of(peer: str, forwarded_for: Iterable[bytes], trusted: Sequence[Network]) -> str:
    """The address that the last proxy of ours saw: the last of *forwarded_for* that is none.

    *peer* is one of ours; each value may name several addresses.  *peer* itself when the proxies
    say nothing that can be read.
    """
    seen = [part.strip() for value in forwarded_for for part in value.split(b",")]
    address = peer
    for part in reversed(seen):
        found = _read(part.decode("latin-1"))
        if found is None:
            return address
        address = str(found)
        if not any(found in network for network in trusted):
            return address
    return address


def _read(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as X-Forwarded-For has it, with or without brackets and port."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def limited_as(address: str) -> str:
    """Under what *address* is counted: IPv6 by /64, for that is what one subscriber has."""
    if ":" not in address:
        return address
    try:
        network = ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False)
    except ValueError:
        return address
    return str(network.network_address)
