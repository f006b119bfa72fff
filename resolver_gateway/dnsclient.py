"""Asks DNS servers: UDP from a fresh port each time, TCP after TC, one server after the other.

A packet that is not the answer (forged, late, cut, empty) is dropped and the wait goes on; only
time or an answer ends it, and no server is ever given up.
"""

import asyncio
import ipaddress
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from registry import names
from registry.runtime.config import HostPort
from resolver_gateway import naming, srv
from resolver_gateway.balancer import Upstream
from resolver_gateway.srv import Absent, Answer, Failed, Incomplete, NotOurs, Question, Truncated

ROUNDS: Final = (0.3, 0.6, 1.2)
"""Seconds that each server has, round by round: the first suits a server nearby, the last one
that a lost packet has kept."""

QUICK_ROUND: Final = (0.3,)
"""The one round for a name that nobody answered a moment ago: it is soon asked for again, and a
server that is back must not wait behind a long one."""

REFUSED_PAUSE: Final = 0.1
"""Seconds before the next round when every server refuses: one that restarts is back by then."""

TCP_TIMEOUT: Final = 1.0
ADDRESS_SECONDS: Final = 10.0
"""How long the address of a server that is given by name is used."""

MAX_UDP: Final = 4096
"""Octets read of a datagram: more than we announce, so that a longer one is seen to be longer."""

MAX_LOOKED_UP: Final = 32
"""Targets without glue that are looked up for one answer, all at the same time."""

T = TypeVar("T")


class DnsClient:
    """Questions to *servers*, which may be names; `repr` says who answered last."""

    def __init__(self, servers: Sequence[HostPort], zone: str, clock: Callable[[], float]) -> None:
        self._servers = tuple(servers)
        self._zone = zone
        self._clock = clock
        self._first = 0
        self._addresses: dict[HostPort, tuple[tuple[str, int], float]] = {}
        self.outcomes: Counter[str] = Counter()
        """Queries by what became of them."""
        self.answered_once = False

    def __repr__(self) -> str:
        servers = ", ".join(map(str, self._servers))
        return f"<DnsClient {servers}, first {self._servers[self._first]}>"

    @property
    def servers(self) -> tuple[HostPort, ...]:
        return self._servers

    @property
    def first(self) -> HostPort:
        """The one that answered last, which is asked first."""
        return self._servers[self._first]

    def use_servers(self, servers: Sequence[HostPort]) -> None:
        """Ask these from now on."""
        if tuple(servers) != self._servers:
            self._servers = tuple(servers)
            self._first = 0

    async def query_srv(
        self, name: str, *, quick: bool = False, another: bool = False, tls_name: str = ""
    ) -> Answer:
        """Where *name* is (a service, or some instances of one); Failed when no server told.

        Never Incomplete.  *quick* asks each server once; *another* begins with the next one, for a
        second opinion; *tls_name* is what the upstreams' certificates must say.
        """
        service = naming.service_in(name)

        def read(packet: bytes, asked: Question, query_id: int) -> srv.Reply:
            return srv.parse_srv_response(packet, asked, query_id, service, self._zone, tls_name)

        rounds = QUICK_ROUND if quick else ROUNDS
        owner = srv.srv_name(name, self._zone)
        answer: Answer = await self._ask(owner, srv.SRV, read, rounds, skip=int(another))
        if isinstance(answer, Incomplete):
            found = await self._look_up(answer.targets[:MAX_LOOKED_UP])
            return srv.complete(answer, service, found, tls_name)
        return answer

    async def query_serial(self) -> int | Failed:
        """The serial of the zone as the first server has it."""
        return await self._ask(self._zone, srv.SOA, srv.parse_serial_response, QUICK_ROUND)

    async def knock(self) -> bool:
        """Whether some server answers at all (any rcode): asked until one does."""

        def read(packet: bytes, asked: Question, query_id: int) -> bool | NotOurs:
            return srv.parse_any_response(packet, asked, query_id) or NotOurs("")

        return await self._ask(self._zone, srv.SOA, read) is True

    async def query_text(self, upstream: Upstream) -> dict[str, str]:
        """What the TXT record of an instance says; empty when it says nothing, or nobody does."""

        def read(
            packet: bytes, asked: Question, query_id: int
        ) -> dict[str, str] | Failed | Truncated | NotOurs:
            return srv.parse_text_response(packet, asked, query_id)

        name = names.instance_owner(upstream.instance, upstream.service, self._zone)
        answer = await self._ask(name, srv.TXT, read)
        return {} if isinstance(answer, Failed) else answer

    async def _look_up(self, targets: Sequence[str]) -> dict[str, tuple[tuple[str, ...], float]]:
        """The addresses of targets that came without glue; those without any are left out."""
        found = await asyncio.gather(*(self._addresses_of(target) for target in targets))
        return {t: answer for t, answer in zip(targets, found, strict=True) if answer is not None}

    async def _addresses_of(self, target: str) -> tuple[tuple[str, ...], float] | None:
        def read(
            packet: bytes, asked: Question, query_id: int
        ) -> tuple[tuple[str, ...], float] | Failed | Truncated | NotOurs:
            return srv.parse_address_response(packet, asked, query_id, self._zone)

        for qtype in (srv.A, srv.AAAA):
            answer = await self._ask(target, qtype, read)
            if isinstance(answer, tuple) and answer[0]:
                return answer
        return None

    async def _ask(
        self,
        name: str,
        qtype: int,
        read: Callable[[bytes, Question, int], T | Failed | Truncated | NotOurs],
        rounds: Sequence[float] = ROUNDS,
        skip: int = 0,
    ) -> T | Failed:
        """What the first server says that says something; Failed when none does in its time.

        The first is the one that answered last, or the one *skip* places after it.
        """
        failed: Failed | None = None
        for number, timeout in enumerate(rounds, start=1):
            refused = 0
            servers, first = self._servers, self._first + skip
            for turn in range(len(servers)):
                server = servers[(first + turn) % len(servers)]
                answer = await self._ask_one(server, timeout, name, qtype, read)
                if isinstance(answer, OSError):
                    refused += 1
                elif isinstance(answer, Failed):
                    failed = answer
                elif answer is not None:
                    self._prefer(server)
                    return answer
            if failed is not None:
                return failed
            if refused == len(servers) and number < len(rounds):
                await asyncio.sleep(REFUSED_PAUSE)
        return Failed("no server answers")

    def _prefer(self, server: HostPort) -> None:
        """Begin with *server* next time, if it is still one of ours."""
        if server in self._servers:
            self._first = self._servers.index(server)

    async def _ask_one(
        self,
        server: HostPort,
        timeout: float,
        name: str,
        qtype: int,
        read: Callable[[bytes, Question, int], T | Failed | Truncated | NotOurs],
    ) -> T | Failed | OSError | None:
        """One query to one server; None when it did not answer in time, OSError when it cannot."""
        answer = await self._exchange(server, timeout, name, qtype, read, edns=True)
        if answer == Failed("FORMERR"):
            # RFC 6891, section 7: that is what a server says that knows no EDNS.
            answer = await self._exchange(server, timeout, name, qtype, read, edns=False)
        return answer

    async def _exchange(
        self,
        server: HostPort,
        timeout: float,
        name: str,
        qtype: int,
        read: Callable[[bytes, Question, int], T | Failed | Truncated | NotOurs],
        *,
        edns: bool,
    ) -> T | Failed | OSError | None:
        asked = srv.question(name, qtype, secrets.randbits(256))
        query_id = secrets.randbits(16)
        packet = srv.query(asked, query_id, edns=edns)

        def understand(reply: bytes) -> T | Failed | Truncated | NotOurs:
            return read(reply, asked, query_id)

        reply: T | Failed | Truncated | NotOurs
        try:
            async with asyncio.timeout(timeout):
                address = await self._address(server)
                reply = await self._over_udp(address, packet, understand)
            if isinstance(reply, Truncated):
                self.outcomes["truncated"] += 1
                async with asyncio.timeout(TCP_TIMEOUT):
                    reply = await _over_tcp(address, packet, understand)
        except TimeoutError:
            self.outcomes["timeout"] += 1
            self._addresses.pop(server, None)
            return None
        except (OSError, EOFError) as error:
            self.outcomes["error"] += 1
            self._addresses.pop(server, None)
            return error if isinstance(error, OSError) else None
        if isinstance(reply, Truncated | NotOurs):
            self.outcomes["ignored"] += 1
            return None
        self.answered_once = True
        self.outcomes[_outcome(reply)] += 1
        return reply

    async def _over_udp(
        self,
        address: tuple[str, int],
        packet: bytes,
        understand: Callable[[bytes], T | Failed | Truncated | NotOurs],
    ) -> T | Failed | Truncated:
        """Send, and wait for the answer past everything that is none."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        # A socket of its own: the kernel draws a random port, and being connected it takes
        # packets from that server alone.
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(address)
            await loop.sock_sendall(sock, packet)
            while True:
                reply = understand(await loop.sock_recv(sock, MAX_UDP))
                if not isinstance(reply, NotOurs):
                    return reply
                self.outcomes["ignored"] += 1

    async def _address(self, server: HostPort) -> tuple[str, int]:
        """The address of *server*, which may be a name (of a container, say)."""
        known = self._addresses.get(server)
        if known is not None and self._clock() < known[1]:
            return known[0]
        address = (server.host, server.port)
        if not _is_literal(server.host):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)
            address = (str(found[0][4][0]), server.port)
        self._addresses[server] = address, self._clock() + ADDRESS_SECONDS
        return address


async def _over_tcp(
    address: tuple[str, int],
    packet: bytes,
    understand: Callable[[bytes], T | Failed | Truncated | NotOurs],
) -> T | Failed | Truncated | NotOurs:
    """The same query over TCP (RFC 7766): two octets of length, then the message."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(struct.pack("!H", len(packet)) + packet)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return understand(await reader.readexactly(length))
    finally:
        writer.transport.abort()


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _outcome(reply: object) -> str:
    match reply:
        case Failed(reason):
            known = reason in srv.RCODES.values()
            return reason.lower() if known else "failed"
        case Absent(exists):
            return "nodata" if exists else "nxdomain"
    return "answered"
