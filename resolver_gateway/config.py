"""Every setting of the gateway, with its unit, its default, and what it trades for what."""

from collections.abc import Iterable
from dataclasses import dataclass

from registry.runtime import config
from registry.runtime.config import HostPort, option

MAX_WORKERS = 64

ADMIN = HostPort("127.0.0.1", 8001)
"""Where the admin side listens unless told otherwise."""


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
    zone: str = option(
        config.zone, default="svc.internal.", help="the zone that services are names in"
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
    address_file: str = option(
        config.text,
        default="",
        help="file that gets the addresses listened on, as JSON, once they are",
        metavar="FILE",
    )


def problems(settings: Config) -> Iterable[str]:
    """What is wrong across settings."""
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
