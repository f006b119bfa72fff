"""Every setting of the gateway, with its unit, its default, and what it trades for what."""

from collections.abc import Iterable
from dataclasses import dataclass

from registry import names
from registry.runtime import config
from registry.runtime.config import HostPort, option
from resolver_gateway import tls
from resolver_gateway.balancer import BY_CHANCE, Balance, parse_balance
from resolver_gateway.resolvconf import parse_resolv_conf
from resolver_gateway.rules import (
    Rule,
    Rules,
    RulesRefused,
    locality,
    per_second,
    read_rules,
    whole,
)
from resolver_gateway.sse import url_of

MAX_WORKERS = 64

ADMIN = HostPort("127.0.0.1", 8001)
"""Where the admin side listens unless told otherwise."""


def event_url(value: str) -> str:
    """The URL of a registrar, or of its stream."""
    url_of(value)
    return value


def host_suffix(value: str) -> str:
    """A name below which services are hosts."""
    name = value.strip(".").lower()
    if problem := names.problem_of_host(name):
        raise ValueError(problem)
    return name


def header_name(value: str) -> str:
    """The name of a field that a request may have."""
    if not value.isascii() or not value.replace("-", "").isalnum():
        raise ValueError(f"{value[:80]!r} is not the name of a header, such as X-Version")
    return value


@dataclass(frozen=True, slots=True)
class Config:
    """The gateway's settings; times are seconds."""

    listen: HostPort = option(
        config.host_port,
        default=HostPort("127.0.0.1", 8000),
        help="where clients connect; port 0 takes a free one",
        metavar="HOST:PORT",
    )
    dns: tuple[HostPort, ...] = option(
        config.host_ports,
        default=(HostPort("127.0.0.1", 1053),),
        help="DNS servers to ask, in turn: dnsd itself, or any resolver that reaches it",
        metavar="HOST:PORT[,...]",
    )
    resolv_conf: str = option(
        config.text,
        default="",
        help="file whose nameserver lines (port 53) stand for --dns; read again as it changes",
        metavar="FILE",
    )
    zone: str = option(
        config.zone, default="svc.internal.", help="the zone that services are names in"
    )
    events: str = option(
        event_url,
        default="",
        help="the registrar, whose stream of changes makes them immediate; without it, or while"
        " it is lost, changes are seen when TTLs end",
        metavar="URL",
    )
    events_token: str = option(
        config.text, default="", secret=True, help="the token that the registrar asks for"
    )
    routes: str = option(
        config.text,
        default="",
        help="TOML file with what holds for single services; read again on SIGHUP",
        metavar="FILE",
    )
    balance: Balance = option(
        parse_balance,
        default=BY_CHANCE,
        help="how an instance is chosen: weighted-random, round-robin, least-requests,"
        " hash-client, hash-header:NAME",
    )
    host_suffix: str = option(
        host_suffix,
        default="",
        help="below this name, {service}.NAME as Host names the service, with the whole path",
        metavar="NAME",
    )
    version_header: str = option(
        header_name,
        default="",
        help="request header that chooses a version, or tag:TAG, or zone:ZONE",
        metavar="NAME",
    )
    prefer_zone: str = option(
        locality,
        default="",
        help="the gateway's own zone: instances there come first, others stand by",
        metavar="ZONE",
    )
    workers: int = option(
        config.integer(1, MAX_WORKERS),
        default=1,
        help="processes that share the port; each has its own cache, pool and limits",
    )
    head_timeout: float = option(
        config.seconds(0.1, 600),
        default=10.0,
        help="seconds a request's head may take from its first octet (the first: from connecting)",
    )
    body_timeout: float = option(
        config.seconds(0.1, 3600),
        default=30.0,
        help="seconds between two pieces of a request's body",
    )
    idle_timeout: float = option(
        config.seconds(0.1, 3600),
        default=60.0,
        help="seconds a client's connection is kept between two requests",
    )
    min_body_rate: int = option(
        config.integer(0, 1_000_000),
        default=240,
        help="octets a second that a request's body comes at, on average after a start of"
        " --body-timeout; 0: none is asked for",
    )
    tunnel_timeout: float = option(
        config.seconds(1, 86400),
        default=3600.0,
        help="seconds an upgraded connection (WebSocket) may be silent in both directions",
    )
    upstream_timeout: float = option(
        config.seconds(0.1, 3600),
        default=30.0,
        help="seconds an upstream may be silent while a request waits for it",
    )
    try_timeout: float = option(
        config.seconds(0, 3600),
        default=0.0,
        help="seconds one instance may take to begin its answer; then an idempotent request goes"
        " to another one; 0: as --upstream-timeout, and no other one after it",
    )
    request_timeout: float = option(
        config.seconds(0, 3600),
        default=0.0,
        help="seconds until an answer must have begun, all instances together; 0: no limit",
    )
    client_rate: float = option(
        per_second,
        default=0.0,
        help="requests a second of one client (IPv6: of one /64), to each worker; more get 429;"
        " 0: no limit",
    )
    client_burst: int = option(
        whole, default=0, help="requests of one client at once; 0: twice --client-rate"
    )
    service_rate: float = option(
        per_second,
        default=0.0,
        help="requests a second to one service, shared out to the workers; more get 503;"
        " 0: no limit",
    )
    service_burst: int = option(
        whole, default=0, help="requests to one service at once; 0: twice --service-rate"
    )
    max_requests: int = option(
        whole,
        default=0,
        help="requests of one service under way, shared out to the workers; more wait in --queue;"
        " 0: no limit",
    )
    queue: int = option(
        whole, default=100, help="requests of one service that wait in each worker; more get 503"
    )
    queue_timeout: float = option(
        config.seconds(0.01, 600), default=1.0, help="seconds that a request waits there"
    )
    max_connections: int = option(
        config.integer(1, 1_000_000),
        default=10_000,
        help="client connections in all, shared out to the workers; further ones get 503",
    )
    max_connections_per_client: int = option(
        config.integer(1, 1_000_000),
        default=2_048,
        help="connections of one client address (to one worker); further ones get 429",
    )
    allow_upstreams: tuple[config.Network, ...] = option(
        config.networks,
        default=(),
        help="networks that upstreams may be in although they are link-local, a metadata"
        " service, unspecified or multicast",
        metavar="CIDR[,...]",
    )
    fallback: str = option(
        config.choice("prefer-dns", "only-if-error", "never"),
        default="prefer-dns",
        help="when {SERVICE}_URL, {SERVICE}_SERVICE_URL and {SERVICE}_ENDPOINT count: when"
        " discovery has no instance, only when it failed, or never",
    )
    trusted_proxies: tuple[config.Network, ...] = option(
        config.networks,
        default=(),
        help="networks of proxies whose X-Forwarded-* and Forwarded are believed and added to",
        metavar="CIDR[,...]",
    )
    stale_bound: float = option(
        config.seconds(0, 86400),
        default=300.0,
        help="seconds past its TTL that an answer is used while no DNS server answers",
    )
    access_log: str = option(
        config.choice("off", "text", "json"),
        default="off",
        help="one line a request on stderr: off, text or json",
    )
    server_timing: bool = option(
        config.boolean,
        default=False,
        help="answers tell how long what took (Server-Timing)",
    )
    tls_cert: str = option(
        config.text,
        default="",
        help="certificate (PEM, with its chain) that clients get: then --listen speaks TLS only;"
        " read again on SIGHUP",
        metavar="FILE",
    )
    tls_key: str = option(
        config.text, default="", help="the key of --tls-cert (PEM)", metavar="FILE"
    )
    upstream_ca: str = option(
        config.text,
        default="",
        help="certificates (PEM) that vouch for upstreams; without it those of the system;"
        " read again on SIGHUP",
        metavar="FILE",
    )
    address_file: str = option(
        config.text,
        default="",
        help="file that gets the addresses listened on, as JSON, once they are",
        metavar="FILE",
    )


def rules_of(settings: Config) -> Rules:
    """The rules of all services in a worker, read from `--routes` now; RulesRefused or OSError."""
    default = Rule(
        balance=settings.balance,
        try_timeout=settings.try_timeout,
        request_timeout=settings.request_timeout,
        rate=settings.service_rate,
        burst=settings.service_burst,
        max_requests=settings.max_requests,
        queue=settings.queue,
        queue_timeout=settings.queue_timeout,
    )
    rules = Rules(default)
    if settings.routes:
        with open(settings.routes, encoding="utf-8") as file:
            rules = read_rules(file.read(), default, settings.routes)
    return rules.shared_out(settings.workers)


def servers_of(settings: Config) -> tuple[HostPort, ...]:
    """The DNS servers to ask, read from `--resolv-conf` now; ValueError or OSError."""
    if not settings.resolv_conf:
        return settings.dns
    with open(settings.resolv_conf, encoding="utf-8") as file:
        found = parse_resolv_conf(file.read())
    if not found:
        raise ValueError(f"file {settings.resolv_conf}: it names no nameserver")
    return found


def problems(settings: Config) -> Iterable[str]:
    """What is wrong across settings, and in the files that they name."""
    if settings.listen in settings.dns:
        yield (
            f"option --dns: {settings.listen} is where the gateway itself listens (--listen);"
            " give the address of a DNS server"
        )
    if settings.max_connections < settings.workers:
        yield (
            f"option --max-connections: {settings.max_connections} is less than --workers"
            f" {settings.workers}; each worker needs at least one"
        )
    if bool(settings.tls_cert) != bool(settings.tls_key):
        given, missing = ("cert", "key") if settings.tls_cert else ("key", "cert")
        yield f"option --tls-{given}: it needs --tls-{missing} beside it"
    if settings.request_timeout and settings.try_timeout > settings.request_timeout:
        yield (
            f"option --try-timeout: {settings.try_timeout:g} is more than --request-timeout"
            f" {settings.request_timeout:g}, so no other instance would ever be tried"
        )
    yield from _problems_of_files(settings)


def _problems_of_files(settings: Config) -> Iterable[str]:
    """What is wrong in the files that settings name."""
    try:
        rules_of(settings)
    except RulesRefused as error:
        yield from error.problems
    except (OSError, UnicodeDecodeError) as error:
        yield f"option --routes: {error}"
    try:
        servers_of(settings)
    except (OSError, ValueError) as error:
        yield f"option --resolv-conf: {error}"
    try:
        if settings.tls_cert and settings.tls_key:
            tls.ClientSide(settings.tls_cert, settings.tls_key)
    except OSError as error:
        yield f"option --tls-cert: {settings.tls_cert} with {settings.tls_key}: {error}"
    try:
        if settings.upstream_ca:
            tls.upstream_context(settings.upstream_ca)
    except OSError as error:
        yield f"option --upstream-ca: {settings.upstream_ca}: {error}"
