"""Settings of the registrar.

A dead instance is answered for at most
    lease_ttl + 5 s of grace + 1 s between sweeps + 0.05 s of feed + record_ttl
(66 s and the record's 5 with the defaults): lower `--lease-ttl` to find failures sooner, at
the price of more heartbeats and of losing instances that are merely slow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from registry.model import DEFAULT_LEASE_TTL, MAX_LEASE_TTL, MIN_LEASE_TTL
from registry.runtime.config import (
    HostPort,
    Network,
    boolean,
    host_port,
    integer,
    networks,
    option,
    text,
    url,
    zones,
)

PART = "registrar"


@dataclass(frozen=True, slots=True)
class Config:
    """What can be set; the registrar's README says the same at more length."""

    listen: HostPort = option(
        host_port,
        default=HostPort("127.0.0.1", 8888),
        help="where the API, health and metrics are served; port 0 takes a free one",
        metavar="HOST:PORT",
    )
    redis: str = option(
        url,
        default="redis://127.0.0.1:6379/0",
        help="the lease store: redis://, rediss:// or unix:// URL",
        secret=True,
        metavar="URL",
    )
    zone: tuple[str, ...] = option(
        zones,
        default=("svc.internal.",),
        help="DNS zones in which services are answered; the first is canonical",
        metavar="NAME[,...]",
    )
    lease_ttl: int = option(
        integer(MIN_LEASE_TTL, MAX_LEASE_TTL),
        default=DEFAULT_LEASE_TTL,
        help="seconds that an instance stays without renewal when its registration does not say",
        metavar="SECONDS",
    )
    allow_endpoints: tuple[Network, ...] = option(
        networks,
        default=(),
        help="networks in which loopback, link-local and similar addresses may be registered",
        metavar="CIDR[,...]",
    )
    insecure: bool = option(
        boolean,
        default=False,
        help="listen beyond loopback although anyone who reaches the port may write",
    )
    trusted_proxies: tuple[Network, ...] = option(
        networks,
        default=(),
        help="networks of proxies whose last X-Forwarded-For hop is the caller's address",
        metavar="CIDR[,...]",
    )
    address_file: str = option(
        text,
        default="",
        help="file to write the address to, as JSON, once it listens",
        metavar="FILE",
    )

    @property
    def health_address(self) -> HostPort:
        """Where `--health` asks: health is served beside the API."""
        return self.listen


def problems(config: Config) -> Iterator[str]:
    """The rules across fields."""
    if not config.listen.is_loopback and not config.insecure:
        yield (
            f"setting listen: {config.listen} can be reached from outside, and anyone who reaches"
            " it may register any service; listen on 127.0.0.1 or [::1], or give --insecure if"
            " the network is to be trusted"
        )
