"""The sidecar's settings; each names its unit, its default and what it trades."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from registry.model import MAX_LEASE_TTL, MAX_RECORD_TTL, MIN_LEASE_TTL, Port
from registry.names import problem_of_host
from registry.runtime.config import boolean, choice, integer, option, seconds, text, words
from sidecar.conventions import duration, pairs
from sidecar.registration import AUTO, DOCKER_HOST, PROBES


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


def interval(low: float, high: float) -> Callable[[str], float]:
    """A parser of times such as 15s, 500ms or 2.5 (seconds), between *low* and *high* seconds."""

    def parse(value: str) -> float:
        found = duration(value)
        if not low <= found <= high:
            raise ValueError(f"{value} is not in {low:g}..{high:g} seconds")
        return found

    return parse


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
        default="",
        env=("SERVICE_PROBE",),
        metavar="KIND",
        help="how its health is found: http (GET, 2xx), tcp (it accepts), command (exit status 0),"
        " docker (its container's HEALTHCHECK), none (always healthy); unset: command or docker"
        " where one of their settings is given, else http; with run tcp, unless a health endpoint"
        " is given",
    )
    health_endpoint: str = option(
        text,
        default="",
        env=("SERVICE_HEALTH_ENDPOINT", "SERVICE_CHECK_HTTP"),
        metavar="PATH",
        help="path that is asked for its health; unset: /health",
    )
    probe_command: str = option(
        text,
        default="",
        env=("SERVICE_PROBE_COMMAND", "SERVICE_CHECK_CMD", "SERVICE_CHECK_SCRIPT"),
        metavar="COMMAND",
        help="command that ends with status 0 when it is healthy; run without a shell",
    )
    docker_container: str = option(
        text,
        default="",
        metavar="CONTAINER",
        help="container whose HEALTHCHECK tells its health; unset: the host, where it is a name",
    )
    docker_host: str = option(
        text,
        default=DOCKER_HOST,
        env=("DOCKER_HOST",),
        metavar="URL",
        help="where Docker listens: unix:///PATH or tcp://HOST:PORT",
    )
    health_interval: float = option(
        interval(0.1, 3600),
        default=5.0,
        env=("SERVICE_CHECK_INTERVAL",),
        metavar="SECONDS",
        help="seconds between probes; an unhealthy service leaves DNS after fall of them",
    )
    health_timeout: float = option(
        interval(0.1, 60),
        default=2.0,
        env=("SERVICE_CHECK_TIMEOUT",),
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
    registry_ca: str = option(
        text,
        default="",
        metavar="FILE",
        help="certificates (PEM) that https registrars are trusted by; unset: the system's",
    )
    registry_cert: str = option(
        text,
        default="",
        metavar="FILE",
        help="certificate (PEM) that is shown to https registrars which ask for one",
    )
    registry_key: str = option(
        text,
        default="",
        metavar="FILE",
        help="its private key (PEM); unset: in the same file",
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
        env=("SERVICE_INSTANCE_ID", "SERVICE_ID"),
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
    stop_timeout: float = option(
        seconds(0.5, 86400),
        default=9.5,
        metavar="SECONDS",
        help="with run: seconds from the signal to stop until the command is killed, draining"
        " included; Docker waits 10 s in all",
    )


def problems_of(settings: Settings) -> Iterator[str]:
    """The rules across fields."""
    if settings.registry_key and not settings.registry_cert:
        yield "setting registry_key: it belongs to a certificate; give registry_cert too"
    tls = settings.registry_ca or settings.registry_cert
    if tls and not any(url.startswith("https:") for url in settings.registry_url):
        yield "setting registry_ca, registry_cert: no registrar in registry_url is https"
