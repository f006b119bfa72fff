"""Helpers for tests of the gateway: a DNS server that answers from a table, upstreams that keep
what they were sent, and a client that speaks bytes."""

import asyncio
import contextlib
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import dnslib

from registry.runtime.config import HostPort
from resolver_gateway import srv
from resolver_gateway.cache import SrvCache
from resolver_gateway.dnsclient import DnsClient
from resolver_gateway.door import Limits
from resolver_gateway.downstream import Downstream
from resolver_gateway.fallback import Policy
from resolver_gateway.gcra import Rates
from resolver_gateway.handler import Handler
from resolver_gateway.metrics import Counts
from resolver_gateway.naming import service_in
from resolver_gateway.outlier import OutlierDetector
from resolver_gateway.pages import Pages
from resolver_gateway.pool import Pool
from resolver_gateway.resolver import Resolver
from resolver_gateway.routing import Router
from tests.support.waiting import until

ZONE = "svc.internal."

Twist = Callable[[bytes, bytes], list[bytes]]
"""From query and right answer to the datagrams that are sent instead."""


@dataclass
class DnsStub(asyncio.DatagramProtocol):
    """A DNS server: *instances* of each name as (id, address, port, priority, weight)."""

    instances: dict[str, list[tuple[str, str, int, int, int]]] = field(default_factory=dict)
    ttl: int = 5
    negative_ttl: int = 5
    glue: bool = True
    rcode: int = 0
    silent: bool = False
    truncate: bool = False
    twist: Twist | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Names (lower case) and types, in the order they were asked, over UDP and TCP."""
    ports: set[int] = field(default_factory=set)
    over_tcp: int = 0
    serial: int = 1

    async def start(self) -> HostPort:
        """Listen on one free port over UDP and TCP."""
        loop = asyncio.get_running_loop()
        while True:
            self._server = await asyncio.start_server(self._tcp, "127.0.0.1", 0)
            self.address = HostPort("127.0.0.1", self._server.sockets[0].getsockname()[1])
            try:
                self._transport, _ = await loop.create_datagram_endpoint(
                    lambda: self, local_addr=(self.address.host, self.address.port)
                )
            except OSError:
                self._server.close()  # the port is free for TCP only: draw again
            else:
                return self.address

    def stop(self) -> None:
        self._transport.close()
        self._server.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing to do: `start` keeps the transport."""

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.ports.add(addr[1])
        answer = self.answer(data)
        if self.silent:
            return
        if self.truncate:
            answer = (
                struct.pack("!H", struct.unpack_from("!H", answer)[0])
                + b"\x86\x00"
                + (b"\0\1\0\0\0\0\0\0" + data[12 : data.index(b"\0", 12) + 5])
            )
        for packet in [answer] if self.twist is None else self.twist(data, answer):
            self._transport.sendto(packet, addr)

    async def _tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(length))
        self.over_tcp += 1
        writer.write(struct.pack("!H", len(answer)) + answer)
        await writer.drain()
        writer.close()

    def answer(self, query: bytes) -> bytes:
        """The right answer to *query*."""
        asked = dnslib.DNSRecord.parse(query)
        name = str(asked.q.qname).lower()
        qtype = dnslib.QTYPE[asked.q.qtype]
        self.asked.append((name, qtype))
        reply = asked.reply(ra=0, aa=1)
        reply.header.rcode = self.rcode
        if self.rcode == 0:
            self._fill(reply, name, qtype)
        # dnslib writes the question anew; the answer must repeat its bytes.
        packed = bytearray(reply.pack())
        end = query.index(b"\0", 12) + 5
        packed[12:end] = query[12:end]
        return bytes(packed)

    def _fill(self, reply: dnslib.DNSRecord, name: str, qtype: str) -> None:
        for service, instances in self.instances.items():
            owner = srv.srv_name(service, ZONE)
            if name == owner and qtype == "SRV" and instances:
                for instance, address, port, priority, weight in instances:
                    target = f"{instance}.{service_in(service)}.{ZONE}"
                    reply.add_answer(
                        dnslib.RR(
                            owner,
                            dnslib.QTYPE.SRV,
                            ttl=self.ttl,
                            rdata=dnslib.SRV(priority, weight, port, target),
                        )
                    )
                    if self.glue:
                        reply.add_ar(self._address(target, address))
                return
            if name == owner:
                self._negative(reply, 0)
                return
            for instance, address, *_ in instances:
                if name == f"{instance}.{service}.{ZONE}":
                    if qtype == ("AAAA" if ":" in address else "A"):
                        reply.add_answer(self._address(name, address))
                    else:
                        self._negative(reply, 0)
                    return
        if (name, qtype) == (ZONE, "SOA"):
            reply.add_answer(self._soa())
        else:
            self._negative(reply, 0 if name == ZONE else 3)

    def _address(self, owner: str, address: str) -> dnslib.RR:
        kind = dnslib.AAAA if ":" in address else dnslib.A
        return dnslib.RR(
            owner, getattr(dnslib.QTYPE, kind.__name__), ttl=self.ttl, rdata=kind(address)
        )

    def _negative(self, reply: dnslib.DNSRecord, rcode: int) -> None:
        reply.header.rcode = rcode
        reply.add_auth(self._soa())

    def _soa(self) -> dnslib.RR:
        times = (self.serial, 60, 60, 60, self.negative_ttl)
        return dnslib.RR(
            ZONE,
            dnslib.QTYPE.SOA,
            ttl=self.negative_ttl,
            rdata=dnslib.SOA(f"ns1.{ZONE}", f"hostmaster.{ZONE}", times),
        )


Script = Callable[["Upstream", bytes], list[bytes] | None]
"""From an upstream and the request it has to the pieces it answers with; None: it closes."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answering(answer: bytes) -> Script:
    """A script that answers every request with these bytes."""
    return lambda upstream, request: [answer]


class Upstream:
    """A server that keeps every byte it gets, one string a connection, and answers by a script.

    A request is taken to be complete when `complete` says so; by default at the end of its head
    and, when it has one, of its Content-Length or its last chunk.
    """

    def __init__(self, name: str = "one", script: Script | None = None, port: int = 0) -> None:
        self.name = name
        self.script = script or answering(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-From: %b\r\n\r\n%b"
            % (len(name), name.encode(), name.encode())
        )
        self.connections: list[bytes] = []
        self.requests: list[bytes] = []
        self.open = 0
        self.port = port
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> "Upstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Take no more connections, and cut those there are: also one accepted at this moment."""
        self._server.close()

        def all_cut() -> bool:
            for writer in list(self._writers):
                writer.transport.abort()
            return self.open == 0

        await until(all_cut)

    @property
    def record(self) -> tuple[str, str, int, int, int]:
        """This upstream as an instance in a `DnsStub`."""
        return (self.name, "127.0.0.1", self.port, 0, 1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self._writers.add(writer)
        index = len(self.connections)
        self.connections.append(b"")
        pending = b""
        try:
            while data := await reader.read(65536):
                self.connections[index] += data
                pending += data
                while (end := whole_request(pending)) is not None:
                    request, pending = pending[:end], pending[end:]
                    self.requests.append(request)
                    pieces = self.script(self, request)
                    if pieces is None:
                        return
                    for piece in pieces:
                        writer.write(piece)
                        await writer.drain()
        except OSError:
            pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()


def whole_request(data: bytes) -> int | None:
    """Where the first request in *data* ends; None when it is not whole yet."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    fields = head_fields(data[:end])
    if fields.get("transfer-encoding") == "chunked":
        last = data.find(b"\r\n0\r\n", end + 2)
        whole = data.find(b"\r\n\r\n", last + 3) + 4
        return None if last < 0 or whole < 4 else whole
    whole = end + 4 + int(fields.get("content-length", "0"))
    return whole if len(data) >= whole else None


def head_fields(head: bytes) -> dict[str, str]:
    """The fields of a head by name in lower case; the last of each."""
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in pairs}


@dataclass
class Answer:
    """One answer as a client sees it."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    head: bytes


class Client:
    """A connection to the gateway that sends bytes and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer, interim ones included; EOFError when the connection ends before it."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        fields = head_fields(head)
        body = b""
        if head_only or status < 200 or status in (204, 304):
            pass
        elif fields.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                body += b"<trailer>" + line
        elif "content-length" in fields:
            body = await self.reader.readexactly(int(fields["content-length"]))
        else:
            body = await self.reader.read()
        return Answer(status, fields, body, head)

    async def rest(self) -> bytes:
        """Everything until the gateway closes."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class World:
    """A gateway with its DNS server, in this process, on real sockets."""

    dns: DnsStub
    handler: Handler
    address: HostPort
    counts: Counts
    clock: "ShiftedClock"
    _clients: list[Client] = field(default_factory=list)

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection(*self.address))
        self._clients.append(client)
        return client

    async def ask(self, raw: bytes, *, head_only: bool = False) -> Answer:
        """One exchange on a connection of its own."""
        client = await self.client()
        await client.send(raw)
        answer = await client.answer(head_only=head_only)
        client.close()
        return answer

    async def get(self, path: str, *lines: str) -> Answer:
        """GET *path* with further head *lines*."""
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: gateway", *lines])
        return await self.ask(f"{head}\r\n\r\n".encode())


class ShiftedClock:
    """The monotonic clock, which a test can put forward."""

    def __init__(self) -> None:
        self.shift = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.shift


@contextlib.asynccontextmanager
async def gateway(
    *upstreams: Upstream,
    service: str = "payments",
    limits: Limits | None = None,
    policy: Policy = Policy.PREFER_DNS,
    environ: Mapping[str, str] | None = None,
    stale_bound: float = 300.0,
    upstream_timeout: float = 5.0,
    dns: DnsStub | None = None,
    trusted: tuple[object, ...] = (),
    access_log: str = "off",
    router: Router | None = None,
    client_rates: Rates | None = None,
    server_timing: bool = False,
    tls: ssl.SSLContext | None = None,
    tls_name: str = "",
    upstream_tls: ssl.SSLContext | None = None,
) -> AsyncIterator[World]:
    """A gateway whose DNS server knows *upstreams* as the instances of *service*."""
    stub = dns or DnsStub()
    if upstreams:
        stub.instances[service] = [u.record for u in upstreams]
    address = await stub.start()
    clock = ShiftedClock()
    counts = Counts()
    client = DnsClient([address], ZONE, clock)
    pool = Pool(clock, upstream_timeout, ())
    outliers = OutlierDetector()
    left: list[Callable[..., None]] = []
    resolver = Resolver(
        client,
        SrvCache(stale_bound),
        clock,
        lambda name, keys: left[0](name, keys),
        environ or {},
        lambda service: tls_name,
    )
    handler = Handler(
        resolver,
        pool,
        outliers,
        counts,
        clock,
        limits=limits or Limits(),
        pseudonym="callboard-test",
        policy=policy,
        trusted=trusted,  # type: ignore[arg-type]
        access_log=access_log,
        router=router,
        client_rates=client_rates,
        scheme="http" if tls is None else "https",
        server_timing=server_timing,
        upstream_timeout=upstream_timeout,
    )
    if upstream_tls is not None:
        pool.use_tls(upstream_tls)
    left.append(handler.upstreams_left)
    Pages(handler, client)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Downstream(handler), "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()[:2]
    pool.own = ((host, port),)
    world = World(stub, handler, HostPort(host, port), counts, clock)
    timer = loop.create_task(_tick(handler))
    try:
        yield world
    finally:
        timer.cancel()
        await asyncio.gather(timer, return_exceptions=True)
        for opened in world._clients:
            opened.close()
        server.close()
        await handler.close()
        await resolver.close()
        stub.stop()
        await until(lambda: not handler.clients and not pool.connections)
        for upstream in upstreams:
            await upstream.stop()


async def _tick(handler: Handler) -> None:
    while True:
        await asyncio.sleep(0.02)
        handler.tick(handler.clock())


async def all_of(*work: Awaitable[object]) -> list[object]:
    """The results of *work*, done at the same time."""
    return list(await asyncio.gather(*work))
