"""Reverse names: from networks to zones, from addresses to owners, and back.

An address is written here as a *digits* string: `4` or `6`, then its hexadecimal digits; the
beginning of one stands for a whole network, as a name with fewer labels does.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV4, IPV6 = "in-addr.arpa.", "ip6.arpa."

_STEP = {4: 8, 6: 4}
"""Bits of a label: an octet, a nibble (RFC 1035, section 3.5; RFC 3596, section 2.5)."""

_HEX = frozenset("0123456789abcdef")
FULL = {"4": 9, "6": 33}
"""Characters of an address written whole."""


def zones_for(networks: Iterable[Network]) -> Iterator[str]:
    """The apexes of *networks*, split where labels end; each once."""
    found = list(networks)
    for version in (4, 6):
        same = [n for n in found if n.version == version]
        for network in ipaddress.collapse_addresses(same):  # type: ignore[type-var]
            step = _STEP[version]
            length = -(-network.prefixlen // step) * step
            for part in network.subnets(new_prefix=length):
                yield _apex(part, length // step)


def count_of(networks: Iterable[Network]) -> int:
    """How many zones that are."""
    return sum(1 << (-n.prefixlen % _STEP[n.version]) for n in networks)


def _apex(network: Network, labels: int) -> str:
    whole = owner_of(f"{network.version}{network.network_address.packed.hex()}")
    return ".".join(whole.split(".")[-labels - 3 :])


def digits_of(address: str) -> str | None:
    """*address* as digits; None when it is none."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return f"{ip.version}{ip.packed.hex()}"


def owner_of(digits: str) -> str:
    """The reverse name of an address, or of a network that ends at a label."""
    if digits[0] == "6":
        return ".".join((*reversed(digits[1:]), IPV6))
    octets = bytes.fromhex(digits[1:])
    return ".".join((*map(str, reversed(octets)), IPV4))


def digits_in(apex: str) -> str:
    """The digits that all addresses of the zone *apex* begin with; ValueError for another name."""
    for root, version in ((IPV4, "4"), (IPV6, "6")):
        if apex.endswith("." + root):
            digits = read(version, apex.removesuffix("." + root).split(".")[::-1])
            if digits is not None:
                return digits
    raise ValueError(f"{apex} is no reverse zone")


def read(digits: str, labels: Sequence[str]) -> str | None:
    """*digits* and what *labels*, from the right and in lower case, add; None where they do not:
    an octet is written without zeros before it, and after 4 of them nothing comes."""
    if len(digits) + len(labels) * (2 if digits[0] == "4" else 1) > FULL[digits[0]]:
        return None
    for label in labels:
        if digits[0] == "6":
            if label not in _HEX:
                return None
            digits += label
        elif label.isascii() and label.isdigit() and str(int(label)) == label and int(label) < 256:
            digits += f"{int(label):02x}"
        else:
            return None
    return digits
