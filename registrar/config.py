"""Settings of the registrar.

A dead instance is answered for at most
    lease_ttl + 5 s of grace + 1 s between sweeps + 0.05 s of feed + record_ttl
(66 s and the record's 5 with the defaults): lower `--lease-ttl` to find failures sooner, at
the price of more heartbeats and of losing instances that are merely slow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from registry.address import StoreAddress, address_problems
from registry.model import DEFAULT_LEASE_TTL, MAX_LEASE_TTL, MIN_LEASE_TTL
from registry.runtime.config import (
    HostPort,
    Network,
    boolean,
    host_port,
    host_ports,
    integer,
    networks,
    option,
    seconds,
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
    wait_replicas: int = option(
        integer(0, 9),
        default=0,
        help="answer a write once so many replicas of the store have it; 0 waits for none",
        metavar="N",
    )
    guard_hold: float = option(
        seconds(1, 3600),
        default=300.0,
        help="seconds that instances stay as suspect when too many leases end at once",
        metavar="SECONDS",
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
    tokens: str = option(
        text,
        default="",
        help="TOML file that says whose tokens may register and change what; read again on SIGHUP",
        metavar="FILE",
    )
    read_tokens: bool = option(
        boolean,
        default=False,
        help="ask for a token with the right to read also where nothing is changed",
    )
    tls_cert: str = option(
        text,
        default="",
        help="serve TLS with this certificate chain (PEM); read again on SIGHUP",
        metavar="FILE",
    )
    tls_key: str = option(
        text, default="", help="private key of the certificate (PEM)", metavar="FILE"
    )
    tls_client_ca: str = option(
        text,
        default="",
        help="ask clients for a certificate, signed by one of these authorities (PEM)",
        metavar="FILE",
    )
    max_connections: int = option(
        integer(1, 1_000_000),
        default=10_000,
        help="connections open at once; each costs some 15 KB",
        metavar="N",
    )
    max_connections_per_client: int = option(
        integer(1, 1_000_000),
        default=1_000,
        help="of these from one address; trusted proxies and this machine have no such limit",
        metavar="N",
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
    def store(self) -> StoreAddress:
        """Where the lease store is."""
        return StoreAddress(self.redis, self.sentinel, self.master, self.redis_ca)

    @property
    def health_address(self) -> HostPort | None:
        """Where `--health` asks: health is served beside the API.

        Nowhere where that speaks TLS, and may want to see a certificate: give `--admin` there.
        """
        return None if self.tls_cert else self.listen


def problems(config: Config) -> Iterator[str]:
    """The rules across fields."""
    if not config.listen.is_loopback and not config.tokens and not config.insecure:
        yield (
            f"setting listen: {config.listen} can be reached from outside, and without tokens"
            " anyone who reaches it may register any service; listen on 127.0.0.1 or [::1], name"
            " a file of tokens with --tokens, or give --insecure if the network is to be trusted"
        )
    yield from address_problems(config.store)
    if config.read_tokens and not config.tokens:
        yield "setting read_tokens: there are no tokens to read with; name their file with --tokens"
    if bool(config.tls_cert) != bool(config.tls_key):
        yield "setting tls_cert: certificate and key go together; give --tls-cert and --tls-key"
    if config.tls_client_ca and not config.tls_cert:
        yield "setting tls_client_ca: clients show certificates over TLS only; give --tls-cert"
