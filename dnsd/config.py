"""dnsd's settings."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dnsd.cookies import MAX_SECRETS
from dnsd.keyring import NO_KEYS, Keyring, key_name, read_keys, shown
from dnsd.reverse import count_of, zones_for
from dnsd.zone import MAX_ZONE, NOTIFIED_REFRESH, NOTIFIED_RETRY, REFRESH, RETRY, Zone, to_wire
from registry import names
from registry.address import StoreAddress, address_problems
from registry.runtime.config import (
    ConfigError,
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

MAX_REVERSE = 1024
"""Reverse zones: a /9 makes 128 of /16."""

INVENTED = frozenset("test example lan home corp mail private intranet localdomain domain".split())
"""Top names that nobody owns, or that somebody may own one day (RFC 6761; RFC 6762, appendix G)."""

MAX_IDENTITY = 64
"""Octets of what a server calls itself."""

RANDOM_SECRET = "CALLBOARD_DNSD_COOKIE_SECRET"
"""Where a supervisor that was given no secret leaves its workers the one that it drew."""

PRIVATE = networks(
    "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,169.254.0.0/16,fe80::/10"
)
"""Loopback, RFC 1918, unique local, link-local."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """A server of the zone: its label below the apex, and one of its addresses."""

    label: str
    address: str


@dataclass(frozen=True, slots=True)
class Secondary:
    """A server that hears of changes: where, and the name of the key to sign with, on the wire."""

    address: HostPort
    key: bytes | None


def secondaries(value: str) -> tuple[Secondary, ...]:
    """HOST:PORT or HOST:PORT=KEY,…, HOST being an IP address."""
    found = []
    for word in words(value):
        where, equals, key = word.partition("=")
        address = HostPort.parse(where)
        if not _is_address(address.host) or address.port == 0:
            raise ValueError(f"{where!r} is not ADDRESS:PORT, such as 10.0.0.2:53, of a secondary")
        found.append(Secondary(address, key_name(key) if equals else None))
    return tuple(found)


def addresses(value: str) -> tuple[str, ...]:
    """IP addresses, separated by commas."""
    return tuple(str(ipaddress.ip_address(word)) for word in words(value))


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


def secret_keys(value: str) -> tuple[bytes, ...]:
    """HEX,…: one to three secrets of 16 octets each.  What is wrong with one is not shown."""
    found = []
    for word in words(value.replace("\n", ",")):
        try:
            found.append(bytes.fromhex(word))
        except ValueError:
            raise ValueError("a secret is 32 hexadecimal digits") from None
    if not 1 <= len(found) <= MAX_SECRETS or any(len(key) != 16 for key in found):
        raise ValueError(f"it takes one to {MAX_SECRETS} secrets of 32 hexadecimal digits each")
    return tuple(found)


def identity(value: str) -> str:
    """What fits a TXT record's string, and an option that leaves room for an answer."""
    if len(value.encode()) > MAX_IDENTITY or not value.isprintable():
        raise ValueError(f"more than {MAX_IDENTITY} octets, or not printable")
    return value


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
    sentinel: tuple[HostPort, ...] = option(
        host_ports,
        default=(),
        help="Sentinels that know where the store is; its URL then gives user, database and TLS",
        metavar="HOST:PORT[,...]",
    )
    master: str = option(
        text, default="", help="the name by which the Sentinels know the primary", metavar="NAME"
    )
    redis_ca: str = option(
        text,
        default="",
        help="authorities (PEM) by which the store's certificate is checked, for rediss://",
        metavar="FILE",
    )
    zone: tuple[str, ...] = option(
        zones,
        default=("svc.internal.",),
        help="zones to serve, all with the same services; targets are named in the first",
        metavar="NAME[,...]",
    )
    reverse: tuple[Network, ...] = option(
        networks,
        default=(),
        help="networks whose addresses lead back to the names of instances; by default none",
        metavar="CIDR[,...]",
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
    tsig_keys: str = option(
        text,
        default="",
        help="file of the keys that allow transfers, in TOML; read again on SIGHUP",
        metavar="FILE",
    )
    notify: tuple[Secondary, ...] = option(
        secondaries,
        default=(),
        help="secondaries to tell of changes, each with the key to sign with",
        metavar="HOST:PORT[=KEY][,...]",
    )
    notify_source: tuple[str, ...] = option(
        addresses,
        default=(),
        help="address to tell them from, one for each IP version; by default where it listens",
        metavar="ADDRESS[,...]",
    )
    transfers: int = option(
        integer(1, 64),
        default=4,
        help="zone transfers at a time, of each worker; more wait",
        metavar="N",
    )
    cookie_secret: tuple[bytes, ...] = option(
        secret_keys,
        default=(),
        help="secrets of DNS cookies, 32 hex digits each, the same on all replicas: the first"
        " makes cookies, the others are accepted; by default a random one; read again on SIGHUP",
        secret=True,
        metavar="HEX[,...]",
    )
    rate_limit: int = option(
        integer(0, 1_000_000),
        default=200,
        help="answers of one kind a second to a /24 or /56 outside --networks; 0 for no limit",
        metavar="N",
    )
    rate_slip: int = option(
        integer(0, 100),
        default=2,
        help="of the answers beyond it, every N-th asks to come by TCP; 0 for none",
        metavar="N",
    )
    nsid: str = option(
        identity,
        default="",
        help="what this server calls itself to those who ask (NSID, id.server)",
        metavar="TEXT",
    )
    address_file: str = option(
        text,
        default="",
        help="file to write the addresses to, as JSON, once it listens",
        metavar="FILE",
    )

    @property
    def store(self) -> StoreAddress:
        """Where the store to follow is."""
        return StoreAddress(self.redis, self.sentinel, self.master, self.redis_ca)


def problems(config: Config) -> Iterator[str]:
    """The rules across fields."""
    yield from address_problems(config.store)
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
    if any(network.prefixlen == 0 for network in config.reverse):
        yield "setting reverse: all addresses are no network of yours; give those of your services"
    elif count_of(config.reverse) > MAX_REVERSE:
        yield (
            f"setting reverse: {count_of(config.reverse)} zones, at most {MAX_REVERSE}; networks"
            " that end at a whole octet (IPv4) or hexadecimal digit (IPv6) make one each"
        )
    yield from _transfer_problems(config)


def warnings(config: Config) -> Iterator[str]:
    """What may be meant so, and is worth a word."""
    for apex in config.zone:
        top = apex.split(".")[-2]
        if top in INVENTED or apex == top + ".":
            yield (
                f"setting zone: {apex} is under a top name that is nobody's to use; better a"
                " sub-domain you own, or one under internal."
            )


def _transfer_problems(config: Config) -> Iterator[str]:
    keys = NO_KEYS
    try:
        keys = keys_of(config)
    except ConfigError as error:
        yield from error.problems
    else:
        for name in sorted({s.key for s in config.notify if s.key is not None} - set(keys)):
            yield f"setting notify: the file of --tsig-keys has no key {shown(name)}"
    if config.notify and not config.tsig_keys:
        yield "setting notify: without --tsig-keys no secondary may transfer what it hears of"
    if len({":" in address for address in config.notify_source}) < len(config.notify_source):
        yield "setting notify_source: two addresses of one IP version; give one of each at most"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def keys_of(config: Config) -> Keyring:
    """The keys in the file, as it is now; ConfigError with all that is wrong with it."""
    if not config.tsig_keys:
        return NO_KEYS
    where = f"setting tsig_keys: {config.tsig_keys}"
    try:
        text = Path(config.tsig_keys).read_text(encoding="utf-8")
        keys = read_keys(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{where}: {error}"]) from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {problem}" for problem in error.problems) from None
    served = {*config.zone, *zones_for(config.reverse)}
    strange = {zone for key in keys.values() for zone in key.zones} - served
    if strange:
        raise ConfigError([f"{where}: {', '.join(sorted(strange))}: not a zone that is served"])
    return keys


def notify_sources(config: Config) -> dict[int, str]:
    """IP version → address to send NOTIFY from; none where the routes decide.

    A secondary knows its primary by one address (RFC 1996, section 3.10): the one it asks.
    """
    listening = [
        a.host
        for a in config.listen
        if not a.is_wildcard and not a.is_loopback and "%" not in a.host
    ]
    found: dict[int, str] = {}
    for address in (*config.notify_source, *listening):
        found.setdefault(6 if ":" in address else 4, address)
    return found


def zones_of(config: Config) -> list[Zone]:
    """The zones to serve, the canonical one first, reverse ones last."""
    servers: dict[str, list[str]] = {}
    if config.ns:
        for server in config.ns:
            servers.setdefault(server.label, []).append(server.address)
    else:
        servers[DEFAULT_SERVER] = [a.host.partition("%")[0] for a in config.listen]
    of_zone = tuple((label, tuple(dict.fromkeys(found))) for label, found in servers.items())
    # Who is told of changes asks sooner whether one was missed.
    times = (NOTIFIED_REFRESH, NOTIFIED_RETRY) if config.notify else (REFRESH, RETRY)
    return [
        *(Zone(apex, of_zone, *times) for apex in config.zone),
        *(Zone(apex, of_zone, *times, config.zone[0]) for apex in zones_for(config.reverse)),
    ]
