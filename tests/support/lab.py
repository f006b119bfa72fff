"""The running system in a namespace, and clients in others that reach only its port 53."""

import http.client
import itertools
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rcode

from tests.support import elsewhere
from tests.support.netns import Namespace, connect, serve_at

ZONE = "svc.internal"

DNSD, REPLICA = "10.53.0.1", "fd53::1"
"""dnsd of `callboard up`, and another over the same store."""

ELSEWHERE = "10.53.0.2"
"""A server that resolves names of the world, and says NXDOMAIN to all of ours."""

LOADING = "10.53.0.3"
"""A dnsd that never reached its store: it answers SERVFAIL."""

STRICT = "10.53.0.4"
"""Another replica, to which everybody is a stranger that may have one answer of a kind a second:
it asks the others to come by TCP, or with its cookie."""

FOREIGN, FOREIGN_ADDRESS = elsewhere.NAME.removesuffix("."), elsewhere.ADDRESS

REGISTRAR_PORT, LOADING_ADMIN_PORT, STRICT_ADMIN_PORT = 8888, 9154, 9155

START_SECONDS = 30.0
"""Bound of a start on a machine with all its cores taken."""

POLL_SECONDS = 0.5
"""How long one look at a server takes that does not listen yet."""

NSSWITCH = "hosts: files dns\n"
"""Host names come from DNS, whatever else this machine has."""


@contextmanager
def a_lab() -> Iterator["Lab"]:
    """The system, running and ready, with no services yet."""
    with Namespace() as server:
        serve_at(server, DNSD, REPLICA, ELSEWHERE, LOADING, STRICT)
        ready = server.path("ready.json")
        up = server.start(
            *(sys.executable, "-m", "callboard", "up", "--ready-file", str(ready)),
            *("--dns", f"{DNSD}:53", "--registrar", str(REGISTRAR_PORT)),
            *("--data-dir", str(server.directory("data"))),
            environ={"XDG_RUNTIME_DIR": str(server.directory("run"))},
        )
        dnsd = (sys.executable, "-m", "dnsd")
        loading = server.start(
            *(*dnsd, "--listen", f"{LOADING}:53", "--redis", "redis://127.0.0.1:1/0"),
            *("--admin", f"127.0.0.1:{LOADING_ADMIN_PORT}"),
        )
        other = server.start(sys.executable, "-m", "tests.support.elsewhere", ELSEWHERE)
        eventually(lambda: ready.exists() or not up.running, up.text)
        assert up.running, up.text()
        store = json.loads(ready.read_text())["redis"]
        replica = server.start(
            *(*dnsd, "--listen", f"[{REPLICA}]:53", "--redis", store, "--admin", "127.0.0.1:0")
        )
        strict = server.start(
            *(*dnsd, "--listen", f"{STRICT}:53", "--redis", store),
            *("--admin", f"127.0.0.1:{STRICT_ADMIN_PORT}", "--networks", "198.51.100.0/24"),
            *("--rate-limit", "1", "--rate-slip", "1"),
        )

        lab = Lab(server)
        eventually(lambda: lab.rcode(LOADING, ZONE) == "SERVFAIL", loading.text)
        eventually(lambda: lab.rcode(ELSEWHERE, FOREIGN) == "NOERROR", other.text)
        eventually(lambda: lab.rcode(REPLICA, ZONE) == "NOERROR", replica.text)
        eventually(lambda: lab.rcode(STRICT, ZONE) == "NOERROR", strict.text)
        yield lab


class Lab:
    """What tests do with it; the server's namespace is `server`."""

    def __init__(self, server: Namespace) -> None:
        self.server = server
        self._numbers = itertools.count(1)

    @contextmanager
    def client(self, *nameservers: str, more: str = "") -> Iterator[Namespace]:
        """A machine whose resolv.conf names *nameservers* (and says *more*)."""
        with Namespace() as client:
            connect(self.server, client, next(self._numbers))
            lines = [*(f"nameserver {address}" for address in nameservers), more]
            client.replace("/etc/resolv.conf", "\n".join(lines) + "\n")
            client.replace("/etc/nsswitch.conf", NSSWITCH)
            yield client

    def register(self, service: str, *addresses: str, first: int = 1, **more: Any) -> None:
        """Instances `one-1` (or *first*) and so on, at http port 8080, until they `leave`."""
        for number, address in enumerate(addresses, first):
            document = {
                "service_name": service,
                "instance_id": f"one-{number}",
                "address": address,
                "ports": {"http": 8080},
                "lease_ttl": 3600,
                **more,
            }
            status = self._registrar("POST", "/register", document)
            assert status in (200, 201), status
        owner = f"one-{first + len(addresses) - 1}.{service}.{ZONE}"
        for server in (DNSD, REPLICA):
            eventually(lambda at=server: self.rcode(at, owner) == "NOERROR")  # type: ignore[misc]

    def leave(self, service: str, number: int) -> None:
        """Take the instance of that number away."""
        status = self._registrar("DELETE", f"/services/{service}/instances/one-{number}")
        assert status == 200, status

    def rcode(self, server: str, name: str, rtype: str = "A") -> str:
        """The code with which *server* answers; empty when it does not."""
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with self.server.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                question = dns.message.make_query(name, rtype)
                answer = dns.query.udp(question, server, POLL_SECONDS, sock=sock)
            except (OSError, dns.exception.Timeout):
                return ""
            return dns.rcode.to_text(answer.rcode())

    def servfails(self) -> int:
        """How many questions the loading server has been asked."""
        return self._counted(LOADING_ADMIN_PORT, r'dnsd_queries_total\{.*rcode="SERVFAIL".*\}')

    def limited(self) -> int:
        """How many questions the strict server has answered by asking to come otherwise."""
        return self._counted(
            STRICT_ADMIN_PORT, r'dnsd_limited_total\{result="(?:slipped|badcookie)"\}'
        )

    def _counted(self, port: int, pattern: str) -> int:
        """The sum of the metrics that look so."""
        status, body = http_inside(self.server, port, "GET", "/metrics")
        assert status == 200, status
        found = re.findall(rf"^{pattern} (\S+)$", body.decode(), re.MULTILINE)
        return sum(int(float(number)) for number in found)

    def _registrar(self, method: str, path: str, document: object = None) -> int:
        status, _ = http_inside(self.server, REGISTRAR_PORT, method, path, document)
        return status


def http_inside(
    where: Namespace, port: int, method: str, path: str, document: object = None
) -> tuple[int, bytes]:
    """(status, body) of one request to a port of that namespace's loopback."""
    with where.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(10.0)
        sock.connect(("127.0.0.1", port))
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.sock = sock
        body = None if document is None else json.dumps(document)
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()


def eventually(
    predicate: Callable[[], object],
    says: Callable[[], str] = lambda: "",
    seconds: float = START_SECONDS,
) -> None:
    """Return once *predicate* gives something true; AssertionError with what *says* gives."""
    end = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < end, f"not within {seconds:g} s: {says()}"
        time.sleep(0.02)


def program(name: str) -> str:
    """Where a program is, empty when it is nowhere; a user's PATH may lack the servers."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""
