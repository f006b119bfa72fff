"""The sidecar's settings; each names its unit, its default and what it trades."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from registry.model import MAX_LEASE_TTL, MAX_RECORD_TTL, MIN_LEASE_TTL, Port
from registry.names import problem_of_host
from registry.runtime.config import boolean, choice, integer, option, seconds, text, words
from sidecar.registration import AUTO, PROBES, Service, services_from


def urls(value: str) -> tuple[str, ...]:
    """Registrars: one or more http or https URLs, separated by commas."""
    found = tuple(word.rstrip("/") for word in words(value))
    for url in found:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.query or not _is_host(parts.hostname):
            raise ValueError(f"{url!r} is not a URL such as http://registrar:8888")
        if parts.port == 0:  # asking for it raises ValueError where it is none at all
            raise ValueError(f"{url!r}: port 0 is not in 1..65535")
    if not found:
        raise ValueError("it names no registrar")
    return found


def _is_host(host: str | None) -> bool:
    # A colon: an IPv6 address, which urlsplit has checked.
    return bool(host) and (":" in str(host) or problem_of_host(str(host)) is None)


def ports(value: str) -> tuple[Port, ...]:
    """`http=8080,metrics=9100,game=4000/udp`."""
    found = []
    for word in words(value):
        name, equals, number = word.partition("=")
        digits, _, protocol = number.partition("/")
        if not equals or not (digits.isascii() and digits.isdigit()) or len(digits) > 5:
            raise ValueError(f"{word!r} is not NAME=PORT or NAME=PORT/udp")
        found.append(Port(name, int(digits), protocol or "tcp"))
    return tuple(found)


def pairs(value: str) -> Mapping[str, str]:
    """`team=payments,tier=1`."""
    found = {}
    for word in words(value):
        key, equals, content = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{word!r} is not KEY=VALUE")
        found[key] = content
    return found


@dataclass(frozen=True, slots=True)
class Settings:
    """What one sidecar does.  Of several services, those of `[[service]]` tables, the settings
    of a single one are the defaults."""

    name: str = option(
        text, default="", env=("SERVICE_NAME",), metavar="NAME", help="name of the service"
    )
    host: str = option(
        text,
        default="",
        env=("SERVICE_HOST",),
        metavar="HOST",
        help="where clients reach it: an IP address, a name that the registrar can look up,"
        f" or {AUTO}: the address from which this machine reaches the registrar",
    )
    port: int = option(
        integer(1, 65535),
        default=0,
        env=("SERVICE_PORT",),
        metavar="PORT",
        help="its port named http; 8080 when neither this nor --ports is given",
    )
    ports: tuple[Port, ...] = option(
        ports,
        default=(),
        env=("SERVICE_PORTS",),
        metavar="NAME=PORT[/udp][,…]",
        help="further ports, each with its name",
    )
    probe: str = option(
        choice(*PROBES),
        default="http",
        env=("SERVICE_PROBE",),
        help="how its health is found: http (GET, 2xx), tcp (it accepts), none (always healthy)",
    )
    health_endpoint: str = option(
        text,
        default="/health",
        env=("SERVICE_HEALTH_ENDPOINT",),
        metavar="PATH",
        help="path that is asked for its health",
    )
    health_interval: float = option(
        seconds(0.1, 3600),
        default=5.0,
        metavar="SECONDS",
        help="seconds between probes; an unhealthy service leaves DNS after fall of them",
    )
    health_timeout: float = option(
        seconds(0.1, 60),
        default=2.0,
        metavar="SECONDS",
        help="seconds for one probe, connection included",
    )
    rise: int = option(
        integer(1, 100),
        default=1,
        metavar="N",
        help="successes in a row until it is healthy",
    )
    fall: int = option(
        integer(1, 100),
        default=2,
        metavar="N",
        help="failures in a row until it is unhealthy; 1 takes the merely slow out too",
    )
    initial_wait_timeout: float = option(
        seconds(0, 86400),
        default=60.0,
        env=("INITIAL_WAIT_TIMEOUT",),
        metavar="SECONDS",
        help="seconds without health after which it says so; it goes on waiting",
    )
    register_unhealthy: bool = option(
        boolean,
        default=False,
        env=("REGISTER_UNHEALTHY",),
        help="register after that time all the same",
    )
    registry_url: tuple[str, ...] = option(
        urls,
        default=("http://127.0.0.1:8888",),
        env=("REGISTRY_URL",),
        metavar="URL[,…]",
        help="registrars, tried in turn",
    )
    token: str = option(
        text,
        default="",
        env=("REGISTRY_TOKEN",),
        secret=True,
        metavar="TOKEN",
        help="token that may register the service",
    )
    heartbeat_interval: float = option(
        seconds(0.5, 3600),
        default=0.0,
        env=("HEARTBEAT_INTERVAL",),
        metavar="SECONDS",
        help="seconds between renewals, at most 0.45 of the lease; unset: what the registrar says",
    )
    lease_ttl: int = option(
        integer(MIN_LEASE_TTL, MAX_LEASE_TTL),
        default=0,
        metavar="SECONDS",
        help="lease to ask for; unset: the registrar's. Shorter finds a dead machine sooner, at"
        " the price of more renewals",
    )
    record_ttl: int = option(
        integer(1, MAX_RECORD_TTL),
        default=0,
        metavar="SECONDS",
        help="TTL of its records, at most a quarter of the lease; unset: 5, or that quarter",
    )
    instance_id: str = option(
        text,
        default="",
        env=("SERVICE_INSTANCE_ID",),
        metavar="ID",
        help="id of the instance; unset: derived from host and port, the same at every start",
    )
    service_zone: str = option(
        text,
        default="",
        env=("SERVICE_ZONE",),
        metavar="ZONE",
        help="locality of the instance, such as eu-1 (not the DNS zone)",
    )
    service_version: str = option(
        text,
        default="",
        env=("SERVICE_VERSION",),
        metavar="VERSION",
        help="version of the service, for selection by version",
    )
    tags: tuple[str, ...] = option(
        words, default=(), env=("SERVICE_TAGS",), metavar="TAG[,…]", help="tags of the instance"
    )
    metadata: Mapping[str, str] | None = option(
        pairs,
        default=None,
        env=("SERVICE_METADATA",),
        metavar="KEY=VALUE[,…]",
        help="further facts to list with it; win over version and status of its health answer",
    )
    weight: int = option(
        integer(0, 65535), default=100, metavar="N", help="share among its priority (RFC 2782)"
    )
    priority: int = option(
        integer(0, 65535), default=0, metavar="N", help="lower ones are used first (RFC 2782)"
    )
    drain: bool = option(
        boolean,
        default=True,
        help="leave DNS and wait the record TTL (at most 7 s) before deregistering; --no-drain"
        " deregisters at once",
    )


def services_of(
    settings: Settings, tables: Sequence[Mapping[str, Any]], file: str
) -> tuple[tuple[Service, ...], list[str]]:
    """The services to keep, and every problem: those of *tables*, or else the one of *settings*."""
    defaults = _defaults(settings)
    if not tables:
        return services_from([defaults], ["service"])
    where = [f"file {file}: [[service]] {n} {t.get('name', '')}" for n, t in enumerate(tables, 1)]
    services, problems = services_from([{**defaults, **t} for t in tables], where)
    if settings.name or settings.instance_id:
        problems.append(
            f"name, instance_id: the services stand in {file}; leave these two to its tables"
        )
    return services, problems


def _defaults(settings: Settings) -> dict[str, Any]:
    table = {
        "name": settings.name,
        "host": settings.host,
        "port": settings.port,
        "ports": settings.ports,
        "probe": settings.probe,
        "health_endpoint": settings.health_endpoint,
        "zone": settings.service_zone,
        "version": settings.service_version,
        "tags": settings.tags,
        "weight": settings.weight,
        "priority": settings.priority,
        "instance_id": settings.instance_id,
        "metadata": settings.metadata or {},
        "lease_ttl": settings.lease_ttl,
        "record_ttl": settings.record_ttl,
    }
    return {key: value for key, value in table.items() if value not in ("", (), {})}


def config_file(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """The file that `--config` or its variables name; "" when there is none."""
    found = environ.get("CALLBOARD_SIDECAR_CONFIG", environ.get("CALLBOARD_CONFIG", ""))
    words_left = iter(argv)
    for word in words_left:
        name, equals, value = word.partition("=")
        if name == "--config":
            found = value if equals else next(words_left, "")
    return found


def tables_of(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The `[[service]]` tables of a TOML file."""
    found = document.get("service", ())
    if isinstance(found, list):
        yield from (table for table in found if isinstance(table, dict))
