"""How long from sending `POST /register` to the first UDP answer that contains the instance.

python -m benchmarks.path [--registrations 1000] [--services 1000] [--instances 3]

Starts `callboard up --no-demo` on free ports, registers services × instances, then times one
registration after the other, and one deregistration after the other.  The client waits for
the registrar's answer and then asks dnsd without a pause, so each time is an upper bound: the
instance may have been in DNS before the client began to ask.
"""

import argparse
import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from benchmarks import stack
from benchmarks.asking import Asker, label, question

LEASE_TTL = 3600
"""Seconds; nothing may expire under the measurement, and nobody renews."""

SEEN_WITHIN = 10.0
"""Seconds after which a change that is not in DNS counts as lost and ends the run."""

GOAL_MS = 20.0
"""p99 of both, on two cores that server and client share."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from sending a request to its answer, and to the first DNS answer that shows it."""

    answered: float
    seen: float
    asked: int


class Connection:
    """One kept-alive connection to the registrar; each request leaves in one segment."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._host = f"{address[0]}:{address[1]}"
        self._socket = socket.create_connection(address, timeout=10.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def request(self, method: str, path: str, document: object = None) -> int:
        """The status of the answer, which is read to its end."""
        body = b"" if document is None else json.dumps(document).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n"
        if body:
            head += "Content-Type: application/json\r\n"
        self._socket.sendall(head.encode() + b"\r\n" + body)
        with http.client.HTTPResponse(self._socket, method=method) as response:
            response.begin()
            response.read()
            return response.status


def main() -> int:
    """Run it; exit status 1 when p99 misses the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--registrations", type=int, default=1000, metavar="N")
    parser.add_argument("--services", type=int, default=1000, metavar="N")
    parser.add_argument("--instances", type=int, default=3, metavar="N", help="of each service")
    options = parser.parse_args()
    try:
        with (
            stack.started("--no-demo") as running,
            Connection(running.registrar) as connection,
            Asker(running.dns) as asker,
        ):
            fill(connection, options.services, options.instances)
            names = [
                (f"svc-{n % options.services}", f"new-{n}") for n in range(options.registrations)
            ]
            up = [register(connection, asker, running.zone, *name) for name in names]
            down = [deregister(connection, asker, running.zone, *name) for name in names]
    except (stack.NotReady, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    present = options.services * options.instances
    print(f"{options.registrations} of each, one after the other, {present} instances present (ms)")
    print(f"{'':12}{'201 or 200':>20}{'first DNS answer':>30}{'asked':>10}")
    print(f"{'':12}{'p50':>10}{'p99':>10}{'p50':>10}{'p99':>10}{'max':>10}{'mean':>10}")
    print("\n".join([row("register", up), row("deregister", down)]))
    worst = max(1000 * stack.percentile([t.seen for t in timings], 0.99) for timings in (up, down))
    print(f"goal: p99 at most {GOAL_MS:g} ms: {'met' if worst <= GOAL_MS else 'MISSED'}")
    return 0 if worst <= GOAL_MS else 1


def fill(connection: Connection, services: int, instances: int) -> None:
    """Register what is to be there before; their addresses are never connected to."""
    began = time.perf_counter()
    for n in range(services):
        for i in range(instances):
            status = connection.request("POST", "/register", body(f"svc-{n}", f"i-{i}"))
            if status != 201:
                raise stack.NotReady(f"registering svc-{n}/i-{i} was answered {status}")
    took = time.perf_counter() - began
    print(f"{services * instances} instances registered in {took:.1f} s")


def body(service: str, instance: str) -> dict[str, object]:
    """A registration; one address for all, since only names are looked at."""
    return {
        "service_name": service,
        "instance_id": instance,
        "address": "10.1.2.3",
        "ports": {"http": 8080},
        "lease_ttl": LEASE_TTL,
    }


def register(
    connection: Connection, asker: Asker, zone: str, service: str, instance: str
) -> Timing:
    """Register an instance and ask for its service until the instance is among the answers."""
    packet, target = question(f"_http._tcp.{service}.{zone}", "SRV"), label(instance)
    document = body(service, instance)
    return timed(
        lambda: connection.request("POST", "/register", document) == 201,
        answers(asker, packet),
        lambda answer: target in answer,
    )


def deregister(
    connection: Connection, asker: Asker, zone: str, service: str, instance: str
) -> Timing:
    """The reverse: until the instance is no longer among the answers."""
    packet, target = question(f"_http._tcp.{service}.{zone}", "SRV"), label(instance)
    path = f"/services/{service}/instances/{instance}"
    return timed(
        lambda: connection.request("DELETE", path) == 200,
        answers(asker, packet),
        lambda answer: target not in answer,
    )


def answers(asker: Asker, packet: bytes) -> Iterator[bytes]:
    """Answers to *packet*, one asked after the other."""
    while True:
        yield asker.ask(packet)


def timed(
    change: Callable[[], bool], seen: Iterator[bytes], shows: Callable[[bytes], bool]
) -> Timing:
    """Make *change*, then look until an answer *shows* it."""
    began = time.perf_counter()
    if not change():
        raise stack.NotReady("the registrar refused a change")
    answered = time.perf_counter()
    for asked, answer in enumerate(seen, 1):
        if shows(answer):
            return Timing(answered - began, time.perf_counter() - began, asked)
        if time.perf_counter() - answered > SEEN_WITHIN:
            break
    raise stack.NotReady(f"a change was not in DNS {SEEN_WITHIN:g} s after its answer")


def row(what: str, timings: list[Timing]) -> str:
    """One line of the table, times in milliseconds."""
    answered = [1000 * t.answered for t in timings]
    seen = [1000 * t.seen for t in timings]
    columns = [(answered, 0.5), (answered, 0.99), (seen, 0.5), (seen, 0.99), (seen, 1.0)]
    text = "".join(f"{stack.percentile(values, share):10.2f}" for values, share in columns)
    return f"{what:12}{text}{sum(t.asked for t in timings) / len(timings):10.1f}"


if __name__ == "__main__":
    sys.exit(main())
