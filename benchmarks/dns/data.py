"""One zone for all servers, as registrations, as a zone file, and as questions."""

import random
from collections.abc import Iterator

from registry.model import Port, Registration

APEX = "svc.internal."
TTL = 5
PORT = 8080

NXDOMAIN_SHARE, SRV_SHARE = 0.10, 0.45
"""Of the questions; the rest asks for A."""


def address(service: int, instance: int) -> str:
    """A private address of its own for each instance."""
    number = service * 16 + instance + 1
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def registrations(services: int, instances: int, first: int = 0) -> Iterator[Registration]:
    """What dnsd's store is filled with: without a lease, so that nothing expires meanwhile."""
    for s in range(first, first + services):
        for i in range(instances):
            yield Registration(
                f"svc{s}", f"i{i}", (Port("http", PORT),), (address(s, i),), lease_ttl=0
            )


def zone_file(services: int, instances: int) -> str:
    """The same records for servers that read zone files."""
    lines = [
        f"$ORIGIN {APEX}",
        f"$TTL {TTL}",
        f"@ IN SOA ns1 hostmaster 1 3600 600 86400 {TTL}",
        "@ IN NS ns1",
        "ns1 IN A 127.0.0.1",
    ]
    for s in range(services):
        for i in range(instances):
            lines += [
                f"_http._tcp.svc{s} IN SRV 0 100 {PORT} i{i}.svc{s}",
                f"svc{s} IN A {address(s, i)}",
                f"i{i}.svc{s} IN A {address(s, i)}",
            ]
    return "\n".join(lines) + "\n"


def questions(services: int, count: int, seed: int = 1) -> Iterator[str]:
    """Lines for dnsperf: SRV with glue, A, and names that do not exist, never twice the same."""
    rng = random.Random(seed)
    for n in range(count):
        s, draw = rng.randrange(services), rng.random()
        if draw < NXDOMAIN_SHARE:
            yield f"no{rng.getrandbits(40):010x}-{n}.{APEX} A"
        elif draw < NXDOMAIN_SHARE + SRV_SHARE:
            yield f"_http._tcp.svc{s}.{APEX} SRV"
        else:
            yield f"svc{s}.{APEX} A"
