"""Programs that watch services by asking DNS again and again: HAProxy and Prometheus.

CL1 for both at once: each is given a service whose instances come and go, one of 60 instances, a
foreign name, and a server that is not ready.
"""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.clients.conftest import SIXTY
from tests.support.lab import (
    DNSD,
    ELSEWHERE,
    FOREIGN,
    FOREIGN_ADDRESS,
    LOADING,
    ZONE,
    Lab,
    eventually,
    http_inside,
    program,
)

pytestmark = pytest.mark.xdist_group("watchers")

THREE = ("10.2.0.1", "10.2.0.2", "10.2.0.3")

PROMETHEUS_PORT = 9090

SHOWN_SECONDS = 30.0
"""Bound of a change being seen: Prometheus takes up what it found every 5 s."""

HAPROXY = f"""
global
  stats socket {{socket}}
defaults
  mode http
  timeout connect 1s
  timeout client 1s
  timeout server 1s

resolvers ours
  nameserver loading {LOADING}:53
  nameserver dnsd {DNSD}:53
  # It takes 512 octets if it is told nothing, and never asks again over TCP.
  accepted_payload_size 1232
  timeout resolve 200ms
  timeout retry 200ms
  # How long a server stays that the answer does not name any more.
  hold obsolete 0s
resolvers by-tcp
  nameserver dnsd tcp@{DNSD}:53
  accepted_payload_size 65535
  timeout resolve 200ms
resolvers world
  nameserver dnsd {DNSD}:53
  nameserver elsewhere {ELSEWHERE}:53
  timeout resolve 200ms

backend watched
  server-template srv 5 _http._tcp.{{service}}.{ZONE} resolvers ours init-addr none
backend sixty-in-part
  server-template srv 60 _http._tcp.sixty.{ZONE} resolvers ours init-addr none
backend sixty
  server-template srv 60 _http._tcp.sixty.{ZONE} resolvers by-tcp init-addr none
backend world
  server srv {FOREIGN}:80 resolvers world init-addr none
"""

PROMETHEUS = f"""
scrape_configs:
  - job_name: watched
    dns_sd_configs:
      - {{{{names: [_http._tcp.{{service}}.{ZONE}], refresh_interval: 250ms}}}}
  - job_name: sixty
    dns_sd_configs:
      - {{{{names: [_http._tcp.sixty.{ZONE}], refresh_interval: 1s}}}}
  - job_name: world
    dns_sd_configs:
      - {{{{names: [{FOREIGN}], type: A, port: 80, refresh_interval: 1s}}}}
"""

Watching = Callable[[str], set[str]]
"""What a watcher has found, by the name of the job."""


@contextmanager
def haproxy(lab: Lab, service: str) -> Iterator[Watching]:
    """HAProxy, which does not go by resolv.conf; what it found is ADDRESS:PORT."""
    with lab.client() as machine:
        where = machine.path("haproxy.sock")
        file = machine.file("haproxy.cfg", HAPROXY.format(socket=where, service=service))
        running = machine.start(program("haproxy"), "-db", "-f", str(file))
        eventually(lambda: where.exists() or not running.running, running.text)
        assert running.running, running.text()

        def servers(job: str) -> set[str]:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(where))
                sock.sendall(f"show servers state {job}\n".encode())
                _, head, *rows = sock.makefile().read().splitlines()
            columns = head.removeprefix("# ").split()
            found = [dict(zip(columns, row.split(), strict=False)) for row in rows if row]
            ready = [f for f in found if f["srv_op_state"] == "2"]
            return {f"{f['srv_addr']}:{f['srv_port']}" for f in ready}

        yield servers


@contextmanager
def prometheus(lab: Lab, service: str) -> Iterator[Watching]:
    """Prometheus; what it found is TARGET:PORT, of the foreign name ADDRESS:PORT."""
    with lab.client(LOADING, DNSD, ELSEWHERE) as machine:
        file = machine.file("prometheus.yml", PROMETHEUS.format(service=service))
        running = machine.start(
            *(program("prometheus"), f"--config.file={file}", "--log.level=warn"),
            f"--storage.tsdb.path={machine.directory('prometheus')}",
            f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}",
        )

        def targets(job: str) -> set[str]:
            assert running.running, running.text()
            try:
                path = "/api/v1/targets?state=active"
                status, body = http_inside(machine, PROMETHEUS_PORT, "GET", path)
            except OSError:
                return set()  # not listening yet
            active = json.loads(body)["data"]["activeTargets"] if status == 200 else []
            found = [target["discoveredLabels"] for target in active]
            return {labels["__address__"] for labels in found if labels["job"] == job}

        yield targets


def test_haproxy_follows_a_service(lab: Lab) -> None:
    """Names, ports and, from the additional section, addresses, in one answer."""
    if not program("haproxy"):
        pytest.skip("not installed: haproxy")
    lab.register("for-haproxy", *THREE, record_ttl=1)
    with haproxy(lab, "for-haproxy") as servers:
        sees(servers, "watched", {f"{address}:8080" for address in THREE})
        sees(servers, "sixty", {f"{address}:8080" for address in SIXTY})
        sees(servers, "world", {f"{FOREIGN_ADDRESS}:80"})
        assert lab.servfails() > 0
        # T5: an answer cut short still names whole servers.
        eventually(lambda: servers("sixty-in-part"))
        assert servers("sixty-in-part") < {f"{address}:8080" for address in SIXTY}

        lab.leave("for-haproxy", 2)
        sees(servers, "watched", {f"{THREE[0]}:8080", f"{THREE[2]}:8080"})
        lab.register("for-haproxy", *THREE, record_ttl=1)
        sees(servers, "watched", {f"{address}:8080" for address in THREE})


def test_prometheus_follows_a_service(lab: Lab) -> None:
    """`dns_sd_configs`, and the answer over TCP that is too large for UDP."""
    if not program("prometheus"):
        pytest.skip("not installed: prometheus")
    lab.register("for-prometheus", *THREE, record_ttl=1)
    names = [f"one-{number}.for-prometheus.{ZONE}:8080" for number in (1, 2, 3)]
    asked = lab.servfails()
    with prometheus(lab, "for-prometheus") as targets:
        sees(targets, "watched", set(names))
        sees(targets, "sixty", {f"one-{number}.sixty.{ZONE}:8080" for number in range(1, 61)})
        sees(targets, "world", {f"{FOREIGN_ADDRESS}:80"})
        assert lab.servfails() > asked

        lab.leave("for-prometheus", 2)
        sees(targets, "watched", {names[0], names[2]})


def sees(watching: Watching, job: str, expected: set[str]) -> None:
    """Wait until it has found just that."""
    eventually(
        lambda: watching(job) == expected,
        lambda: f"{job}: {watching(job)}, not {expected}",
        SHOWN_SECONDS,
    )
