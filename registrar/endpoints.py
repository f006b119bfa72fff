"""Which addresses nobody may register: those that would turn a caller against its own host.

A gateway that follows a registration to 127.0.0.1, or to the address where a
cloud hands out credentials, serves whoever registered it.  Every way of
writing an IPv4 address inside an IPv6 one is looked through.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA_SERVICES = {
    ipaddress.ip_address(text): owner
    for text, owner in (
        ("169.254.169.254", "of most clouds"),
        ("169.254.170.2", "of Amazon ECS"),
        ("fd00:ec2::254", "of Amazon EC2"),
        ("fd20:ce::254", "of Google Cloud"),
        ("100.100.100.200", "of Alibaba Cloud"),
        ("168.63.129.16", "of Azure"),
        ("192.0.0.192", "of Oracle Cloud"),
    )
}
"""Where clouds serve credentials to whoever asks from inside."""

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""RFC 6052 and RFC 8215: the last 32 bits are an IPv4 address."""

_COMPATIBLE = ipaddress.IPv6Network("::/96")
"""RFC 4291, section 2.5.5.1: deprecated, and still understood by some stacks."""

_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
"""RFC 1122, section 3.2.1.3; Linux takes 0.0.0.0 for this host."""

_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def problem_of_address(text: str, allowed: Sequence[Network]) -> str | None:
    """Why the IP address *text* may not be registered; None when it may."""
    for address in _meanings(ipaddress.ip_address(text)):
        kind = _forbidden_kind(address)
        if kind is not None and not any(
            address.version == network.version and address in network for network in allowed
        ):
            through = "" if str(address) == text else f" (it stands for {address})"
            return f"{text}{through} is {kind}; allow it with --allow-endpoints if it is meant"
    return None


def problem_of_host(name: str, zones: Sequence[str], allowed: Sequence[Network]) -> str | None:
    """Why the host *name* (lower case) may not be registered; None when it may.

    What it resolves to is checked when it is known.
    """
    if _ends_in_a_number(name):
        return f"{name!r} is no IPv4 address in the usual form (four decimal numbers)"
    if is_inside(name, zones):
        return (
            f"{name!r} lies in our own zone and is never looked up:"
            " that would ask for the answer it is to give; register its address instead"
        )
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
        return problem_of_address("127.0.0.1", allowed) and (
            f"{name!r} is a loopback name; allow 127.0.0.0/8 with --allow-endpoints if it is meant"
        )
    return None


def is_inside(name: str, zones: Sequence[str]) -> bool:
    """Whether *name* is one of *zones* (with final dots) or lies below one."""
    full = name.removesuffix(".") + "."
    return any(full == zone or full.endswith("." + zone) for zone in zones)


def canonical_address(text: str) -> str | None:
    """*text* as `ipaddress` writes it, an IPv4-mapped one as IPv4; None when it is no address."""
    if "%" in text:  # a zone index means something on one host only
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _ends_in_a_number(name: str) -> bool:
    # getaddrinfo takes 2130706433, 0x7f.1 and 0177.0.0.1 for 127.0.0.1 (inet_aton).
    last = name.removesuffix(".").rpartition(".")[2]
    return re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last) is not None


def _meanings(address: Address) -> Iterator[Address]:
    """*address* and every IPv4 address that it may stand for."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in _NAT64) or (
        address in _COMPATIBLE and int(address) > 0xFFFF
    ):
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)


def _forbidden_kind(address: Address) -> str | None:
    if address in METADATA_SERVICES:
        return f"the metadata service {METADATA_SERVICES[address]}"
    if address.is_loopback:
        return "a loopback address"
    if address.is_unspecified or (address.version == 4 and address in _THIS_NETWORK):
        return "an unspecified address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast or address == _BROADCAST:
        return "a multicast or broadcast address"
    return None
