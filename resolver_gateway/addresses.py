"""Which addresses an upstream may have: not the machine's secrets, and not the gateway itself.

Checked on the address as found, which is the one then connected to; a name cannot change its
meaning in between.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_METADATA: Final = frozenset(
    ipaddress.ip_address(a)
    for a in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
"""Metadata services of AWS and most others, AWS over IPv6, Alibaba, Azure, Oracle."""

_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


def plain(address: Address) -> Address:
    """The IPv4 address inside a mapped, translated or 6to4 one; else *address* itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def problem_of(
    text: str, port: int, own: Sequence[tuple[str, int]], allowed: Sequence[Network]
) -> str | None:
    """Why nothing may be sent to *text* and *port*; None when it may.

    *own* are the addresses the gateway listens on; *allowed* networks are always right, except
    the gateway itself.
    """
    try:
        address = plain(ipaddress.ip_address(text))
    except ValueError:
        return "it is no IP address"
    if not 1 <= port <= 65535:
        return f"port {port} is not in 1..65535"
    if _is_own(address, port, own):
        return "it is the gateway itself"
    if any(address in network for network in allowed):
        return None
    if address in _METADATA:
        return "it is a metadata service"
    if address.is_link_local:
        return "it is link-local"
    if address.is_unspecified or address in ipaddress.ip_network("0.0.0.0/8"):
        return "it is unspecified"
    if address.is_multicast or address == ipaddress.ip_address("255.255.255.255"):
        return "it is multicast or broadcast"
    return None


def _is_own(address: Address, port: int, own: Sequence[tuple[str, int]]) -> bool:
    """A wildcard listens on loopback too; its other addresses are known by `Via` when met."""
    for host, own_port in own:
        if port != own_port:
            continue
        listening = plain(ipaddress.ip_address(host))
        if address == listening or (
            listening.is_unspecified and (address.is_loopback or address.is_unspecified)
        ):
            return True
    return False
