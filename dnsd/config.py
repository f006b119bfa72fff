"""dnsd's settings."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from dnsd.zone import MAX_ZONE, Zone, to_wire
from registry import names
from registry.runtime.config import (
    HostPort,
    Network,
    host_ports,
    integer,
    networks,
    option,
    seconds,
    text,
    url,
    words,
    zones,
)

ADMIN = HostPort("127.0.0.1", 9153)
DEFAULT_SERVER = "ns1"

PRIVATE = networks(
    "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,169.254.0.0/16,fe80::/10"
)
"""Loopback, RFC 1918, unique local, link-local."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """A server of the zone: its label below the apex, and one of its addresses."""

    label: str
    address: str


def name_servers(value: str) -> tuple[NameServer, ...]:
    """NAME=ADDRESS,…: a name may come more than once, with an address each."""
    found = []
    for word in words(value):
        label, equals, address = word.partition("=")
        label = label.strip().lower()
        if not equals or names.problem_of_host(label) or "." in label:
            raise ValueError(f"{word!r} is not NAME=ADDRESS, such as ns1=10.0.0.53, NAME one label")
        try:
            found.append(NameServer(label, str(ipaddress.ip_address(address.strip()))))
        except ValueError:
            raise ValueError(f"{address!r} is not an IPv4 or IPv6 address") from None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Config:
    """What dnsd can be told."""

    listen: tuple[HostPort, ...] = option(
        host_ports,
        default=(HostPort("127.0.0.1", 1053),),
        help="addresses for UDP and TCP; [::] takes every IPv4 and IPv6 address, port 0 a free one",
        metavar="HOST:PORT[,...]",
    )
    redis: str = option(
        url,
        default="redis://127.0.0.1:6379/0",
        help="the store to follow: redis://, rediss:// or unix://",
        secret=True,
        metavar="URL",
    )
    zone: tuple[str, ...] = option(
        zones,
        default=("svc.internal.",),
        help="zones to serve, all with the same services; targets are named in the first",
        metavar="NAME[,...]",
    )
    workers: int = option(
        integer(1, 64),
        default=1,
        help="processes that answer, one for each core that dnsd may fill",
        metavar="N",
    )
    networks: tuple[Network, ...] = option(
        networks,
        default=PRIVATE,
        help="networks whose questions are trusted; by default loopback and private ones",
        metavar="CIDR[,...]",
    )
    ns: tuple[NameServer, ...] = option(
        name_servers,
        default=(),
        help="the zone's name servers, the same on all replicas; by default ns1 where it listens",
        metavar="NAME=ADDRESS[,...]",
    )
    data_dir: str = option(
        text,
        default="",
        help="directory for the last snapshot, to start from while the store is away",
        metavar="DIR",
    )
    stale_bound: float = option(
        seconds(1.0, 86400.0),
        default=60.0,
        help="seconds without the store after which answers say that they may be stale",
        metavar="SECONDS",
    )
    address_file: str = option(
        text,
        default="",
        help="file to write the addresses to, as JSON, once it listens",
        metavar="FILE",
    )


def problems(config: Config) -> Iterator[str]:
    """The rules across fields."""
    for address in config.listen:
        if not _is_address(address.host):
            yield f"setting listen: {address.host!r} is a name; give an IPv4 or IPv6 address"
        elif address.is_wildcard and not config.ns:
            yield (
                f"setting ns: required, because {address} is every address of this machine and"
                " the zone must name one; for instance --ns ns1=10.0.0.53"
            )
    for apex in config.zone:
        if len(to_wire(apex)) > MAX_ZONE:
            yield f"setting zone: {apex} has more than {MAX_ZONE} octets, no room for names in it"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def zones_of(config: Config) -> list[Zone]:
    """The zones to serve, the canonical one first."""
    servers: dict[str, list[str]] = {}
    if config.ns:
        for server in config.ns:
            servers.setdefault(server.label, []).append(server.address)
    else:
        servers[DEFAULT_SERVER] = [a.host.partition("%")[0] for a in config.listen]
    of_zone = tuple((label, tuple(dict.fromkeys(found))) for label, found in servers.items())
    return [Zone(apex, of_zone) for apex in config.zone]
