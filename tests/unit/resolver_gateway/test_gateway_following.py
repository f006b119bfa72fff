"""Nothing needs a restart to come unstuck: services replaced or emptied, servers lost or moved."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from registry.runtime.config import HostPort
from resolver_gateway import srv
from resolver_gateway.cache import SrvCache, Stale
from resolver_gateway.config import Config
from resolver_gateway.dnsclient import DnsClient
from resolver_gateway.events import EventFollower
from resolver_gateway.resolvconf import parse_resolv_conf
from resolver_gateway.srv import Absent, Resolution, reaches
from resolver_gateway.sse import Event, EventReader, url_of
from resolver_gateway.worker import Servers
from tests.support.http import ZONE, DnsStub, ShiftedClock, Upstream, World, gateway
from tests.support.waiting import until

NAME = srv.srv_name("payments", ZONE)


async def bodies(world: World, times: int = 5) -> set[bytes]:
    return {(await world.get("/v2/payments/")).body for _ in range(times)}


# --- services that change


async def test_all_instances_replaced_at_once_are_found_by_the_first_request() -> None:
    """Within the TTL: nobody takes a connection, so DNS is asked, and the request is served."""
    old = [await Upstream(name).start() for name in ("old-1", "old-2")]
    new = [await Upstream(name).start() for name in ("new-1", "new-2")]
    async with gateway(*old, *new, dns=DnsStub(ttl=3600)) as world:
        world.dns.instances["payments"] = [u.record for u in old]
        assert await bodies(world) <= {b"old-1", b"old-2"}
        for upstream in old:
            await upstream.stop()
        world.dns.instances["payments"] = [u.record for u in new]
        world.clock.shift += 1.1  # what was answered this very second is not asked again

        assert await bodies(world) <= {b"new-1", b"new-2"}
        assert world.dns.asked.count((NAME, "SRV")) == 2
        assert set(world.counts.requests) == {("2xx", "")}


async def test_a_service_that_stays_down_is_asked_for_once_a_second_and_no_more() -> None:
    dead = await Upstream("dead").start()
    async with gateway(dead, dns=DnsStub(ttl=3600)) as world:
        await world.get("/v2/payments/")
        await dead.stop()
        world.clock.shift += 1.1
        answers = [await world.get("/v2/payments/") for _ in range(6)]

        assert {a.status for a in answers} <= {502, 503}
        assert len(world.dns.asked) == 2


async def test_scaled_to_nothing_and_back_within_the_negative_ttl() -> None:
    up = await Upstream("back").start()
    async with gateway(up, dns=DnsStub(ttl=5, negative_ttl=2)) as world:
        await world.get("/v2/payments/")
        world.dns.instances["payments"] = []
        world.clock.shift += 5.1
        gone = await world.get("/v2/payments/")
        assert (gone.status, gone.fields["retry-after"]) == (503, "2")

        world.dns.instances["payments"] = [up.record]
        world.clock.shift += 2.1
        assert (await world.get("/v2/payments/")).body == b"back"


async def test_an_emptied_service_is_confirmed_by_another_server() -> None:
    """One broken replica must not empty a service that the others know."""
    up = await Upstream("kept").start()
    broken, well = DnsStub(), DnsStub()
    for stub in (broken, well):
        stub.instances["payments"] = [up.record]
    second = await well.start()
    async with gateway(up, dns=broken) as world:
        world.handler.resolver._client.use_servers([broken.address, second])
        await world.get("/v2/payments/")
        broken.instances["payments"] = []
        world.clock.shift += 6

        assert await bodies(world) == {b"kept"}
        assert len(well.asked) == 1
    well.stop()


async def test_a_removed_instance_loses_its_connections_and_gets_no_request_after_the_ttl() -> None:
    leaving, staying = await Upstream("leaving").start(), await Upstream("staying").start()
    async with gateway(leaving, staying) as world:
        while not (leaving.open and staying.open):
            await world.get("/v2/payments/")
        world.dns.instances["payments"] = [staying.record]
        world.clock.shift += 4.6  # renewed ahead: it is out before its TTL ends
        await world.get("/v2/payments/")
        await until(lambda: leaving.open == 0)
        before = len(leaving.requests)

        assert await bodies(world, 20) == {b"staying"}
        assert len(leaving.requests) == before


async def test_a_retry_goes_to_instances_that_are_there_now() -> None:
    """A first attempt may take longer than a TTL; what it knew then is old by now."""
    leaving, other = await Upstream("leaving").start(), await Upstream("other").start()
    slow = await Upstream("slow", lambda u, r: []).start()
    async with gateway(slow, leaving, other) as world:
        world.dns.instances["payments"] = [
            ("slow", "127.0.0.1", slow.port, 0, 1),
            ("leaving", "127.0.0.1", leaving.port, 1, 1),
        ]
        first = asyncio.ensure_future(world.get("/v2/payments/"))
        await until(lambda: slow.requests)
        world.dns.instances["payments"] = [other.record]
        world.handler.resolver.changed(["payments"])
        await until(lambda: len(world.dns.asked) == 2)
        await until(lambda: not world.handler.resolver._flights)
        for writer in list(slow._writers):
            writer.transport.abort()

        assert (await first).body == b"other"
        assert not leaving.requests


# --- servers that are lost


async def test_sixty_seconds_without_dns_fail_nobody_and_make_nobody_wait() -> None:
    up = await Upstream("known").start()
    async with gateway(up, dns=DnsStub(ttl=5)) as world:
        await world.get("/v2/payments/")
        world.dns.silent = True
        world.clock.shift += 5.1
        await world.get("/v2/payments/")  # the one that waits, half a second, for the answer
        for _ in range(60):
            world.clock.shift += 1
            known = world.handler.resolver.cache.lookup("payments", world.clock())
            assert isinstance(known, Stale)
            assert not known.wait
            assert (await world.get("/v2/payments/")).status == 200
        assert world.counts.resolutions["stale"] == 61

        new = await Upstream("new").start()
        world.dns.silent = False
        world.dns.instances["payments"] = [new.record]

        async def is_new() -> bool:
            return (await world.get("/v2/payments/")).body == b"new"

        await until(is_new)
        await new.stop()


async def test_when_dns_is_back_every_name_is_asked_for_and_not_one_a_ttl_later() -> None:
    up = await Upstream().start()
    async with gateway(up, dns=DnsStub(ttl=5)) as world:
        names = [f"service-{n}" for n in range(5)]
        for name in names:
            world.dns.instances[name] = [up.record]
            await world.get(f"/v2/{name}/")
        world.dns.rcode = 2
        world.clock.shift += 5.1
        for name in names:
            assert (await world.get(f"/v2/{name}/")).status == 200
        world.dns.rcode = 0
        world.dns.asked.clear()

        async def all_asked() -> bool:
            for name in names:
                await world.get(f"/v2/{name}/")
            return {srv.srv_name(name, ZONE) for name in names} <= {n for n, _ in world.dns.asked}

        await until(all_asked)


async def test_dns_that_moved_is_found_where_resolv_conf_says(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("search example.com\nnameserver 127.0.0.53\noptions edns0\n")
    servers = Servers(Config(resolv_conf=str(file)))
    assert servers.now() == (HostPort("127.0.0.53", 53),)

    file.write_text("nameserver 10.0.0.2\nnameserver fe80::1%eth0\n")
    assert servers.now() == (HostPort("10.0.0.2", 53), HostPort("fe80::1%eth0", 53))
    file.write_text("# nothing in it while it is written\n")
    assert servers.now() == (HostPort("10.0.0.2", 53), HostPort("fe80::1%eth0", 53))
    file.unlink()
    assert servers.now()[0] == HostPort("10.0.0.2", 53)


async def test_another_server_takes_over_at_once() -> None:
    old, new = DnsStub(), DnsStub()
    for stub in (old, new):
        stub.instances["payments"] = [("p1", "10.0.0.1", 1, 0, 1)]
    client = DnsClient([await old.start()], ZONE, ShiftedClock())
    assert isinstance(await client.query_srv("payments"), Resolution)
    old.stop()

    client.use_servers([await new.start()])
    assert isinstance(await client.query_srv("payments"), Resolution)
    assert client.first == new.address
    new.stop()


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 1.1.1.1", ["1.1.1.1"]),
        ("nameserver\t::1  # comment", ["::1"]),
        (" nameserver 1.1.1.1\r\nnameserver 1.1.1.1", ["1.1.1.1"]),
        ("#nameserver 1.1.1.1\n;nameserver 2.2.2.2\nnameserver", []),
        ("nameserver example.com\nNameserver 1.1.1.1", []),
        ("\n".join(f"nameserver 10.0.0.{n}" for n in range(20)), [f"10.0.0.{n}" for n in range(8)]),
    ],
)
def test_what_a_resolv_conf_names(text: str, servers: list[str]) -> None:
    assert [server.host for server in parse_resolv_conf(text)] == servers


# --- servers that cannot do what we can


async def test_a_server_that_knows_no_edns_is_asked_without() -> None:
    """RFC 6891, section 7: FORMERR to a query with OPT is worth one without."""

    def no_edns(query: bytes, answer: bytes) -> list[bytes]:
        if query[11]:
            return [query[:2] + b"\x80\x01" + query[4:10] + b"\0\0" + query[12:-11]]
        return [answer]

    stub = DnsStub(twist=no_edns)
    stub.instances["payments"] = [("p1", "10.0.0.1", 1, 0, 1)]
    client = DnsClient([await stub.start()], ZONE, ShiftedClock())

    assert isinstance(await client.query_srv("payments"), Resolution)
    assert client.outcomes == {"formerr": 1, "answered": 1}
    stub.stop()


async def test_an_error_that_does_not_repeat_the_question_does_not_end_the_wait() -> None:
    """16 bits of id are few: a stranger who guesses them must guess the name's case too."""

    def error_first(query: bytes, answer: bytes) -> list[bytes]:
        return [query[:2] + b"\x80\x02" + b"\0" * 8, answer]

    stub = DnsStub(twist=error_first)
    stub.instances["payments"] = [("p1", "10.0.0.1", 1, 0, 1)]
    client = DnsClient([await stub.start()], ZONE, ShiftedClock())

    assert isinstance(await client.query_srv("payments"), Resolution)
    assert client.outcomes == {"ignored": 1, "answered": 1}
    stub.stop()


# --- events: the bytes


STREAM = (
    b"\xef\xbb\xbfretry: 2000\nid: 7\n\n:\n\n"
    b'id: 8\nevent: up\ndata: {"service": "a"}\n\n'
    b"id: 9\r\nevent: down\r\ndata: one\r\ndata:two\r\n\r\n"
    b"data: last\r\rid: 1\0\n\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_any_split_of_a_stream_gives_the_same_events(size: int) -> None:
    reader, events = EventReader(), []
    for start in range(0, len(STREAM), size):
        events += reader.feed(STREAM[start : start + size])

    assert events == [
        Event("up", '{"service": "a"}'),
        Event("down", "one\ntwo"),
        Event("message", "last"),
    ]
    assert reader.last_id == "9"


def test_an_event_that_does_not_end_is_refused() -> None:
    reader = EventReader()
    for _ in range(26):
        assert reader.feed(b"data: " + b"x" * 10_000) == []

    with pytest.raises(ValueError, match="octets"):
        reader.feed(b"x" * 10_000)


@pytest.mark.parametrize(
    ("url", "path"),
    [("http://registrar:8888", "/events"), ("https://r/", "/events"), ("http://r/x/e", "/x/e")],
)
def test_a_url_without_a_path_means_the_stream(url: str, path: str) -> None:
    assert url_of(url).path == path


@pytest.mark.parametrize("url", ["registrar:8888", "ftp://x", "http://", "http://x:0"])
def test_what_is_no_url_of_a_registrar(url: str) -> None:
    with pytest.raises(ValueError, match=r"http|port"):
        url_of(url)


def test_serials_are_compared_around_their_end() -> None:
    assert reaches(5, 5)
    assert reaches(6, 5)
    assert not reaches(5, 6)
    assert reaches(2, 0xFFFFFFFF)
    assert not reaches(0xFFFFFFFF, 2)


# --- events: a registrar that sends them


class Registrar:
    """`/events` of a registrar: *send* goes to everyone who listens."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.answer = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await until(lambda: not self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, EOFError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await reader.read()
        self._writers.discard(writer)
        writer.close()

    def send(self, text: str) -> None:
        data = text.encode()
        for writer in self._writers:
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def event(kind: str, service: str, revision: int) -> str:
    data = f'{{"revision": "{revision}", "service": "{service}"}}'
    return f"id: {revision}\nevent: {kind}\ndata: {data}\n\n"


@contextlib.asynccontextmanager
async def following(world: World, registrar: Registrar) -> AsyncIterator[EventFollower]:
    resolver = world.handler.resolver
    follower = EventFollower(
        f"http://127.0.0.1:{registrar.port}",
        "secret",
        concerns=lambda services: bool(resolver.concerns(services)),
        changed=resolver.changed,
        changed_all=resolver.changed_all,
        serial=resolver._client.query_serial,
        tls=world.handler.pool.tls_context,
    )
    running = asyncio.ensure_future(follower.run())
    try:
        yield follower
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_event_makes_a_change_immediate() -> None:
    """With a TTL of an hour: what is asked for, and why, is the event."""
    old, new = await Upstream("old").start(), await Upstream("new").start()
    registrar = Registrar()
    await registrar.start()
    async with (
        gateway(old, new, dns=DnsStub(ttl=3600)) as world,
        following(world, registrar) as follower,
    ):
        world.dns.instances["payments"] = [old.record]
        world.dns.serial = 7
        assert await bodies(world) == {b"old"}
        await until(lambda: registrar.heads)
        registrar.send("retry: 2000\nid: 7\n\n")
        await until(lambda: follower.state == "following")

        registrar.send(event("up", "payments", 8))
        await until(lambda: (f"{ZONE}", "SOA") in world.dns.asked)
        assert await bodies(world) == {b"old"}  # DNS has not heard of it yet, so it is not asked
        world.dns.instances["payments"] = [new.record]
        world.dns.serial = 8

        async def is_new() -> bool:
            return await bodies(world) == {b"new"}

        await until(is_new)
        await until(lambda: old.open == 0)
        assert b"authorization: Bearer secret\r\n" in registrar.heads[0]
        assert world.dns.asked.count((NAME, "SRV")) == 2
    await registrar.stop()


async def test_a_service_that_nobody_asked_for_is_not_looked_up_for_an_event() -> None:
    registrar = Registrar()
    await registrar.start()
    async with gateway(dns=DnsStub()) as world, following(world, registrar) as follower:
        await until(lambda: registrar.heads)
        registrar.send(event("up", "other", 8) + "event: news\ndata: []\n\ndata: {\n\n")
        await until(lambda: follower.received == 3)

        assert world.dns.asked == []
    await registrar.stop()


async def test_a_lost_stream_is_taken_up_where_it_broke_off_and_a_reset_asks_for_all() -> None:
    up = await Upstream().start()
    registrar = Registrar()
    await registrar.start()
    async with (
        gateway(up, dns=DnsStub(ttl=3600)) as world,
        following(world, registrar) as follower,
    ):
        world.dns.instances["web"] = [up.record]
        for path in ("/v2/payments/", "/v2/web/"):
            await world.get(path)
        await until(lambda: registrar.heads)
        registrar.send("id: 41\n\n")
        await until(lambda: follower.last_id == "41")
        await registrar.stop()
        await until(lambda: follower.state == "lost")
        assert follower.error
        assert (await world.get("/v2/payments/")).status == 200  # going by TTLs
        await registrar.start()
        await until(lambda: len(registrar.heads) == 2)
        assert b"last-event-id: 41\r\n" in registrar.heads[1]

        world.dns.asked.clear()
        world.dns.serial = 99
        registrar.send('id: 99\nevent: reset\ndata: {"revision": "99"}\n\n')
        asked = {(NAME, "SRV"), (srv.srv_name("web", ZONE), "SRV")}
        await until(lambda: asked <= set(world.dns.asked))
        assert follower.error == ""
    await registrar.stop()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"SSH-2.0-x\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_stream_is_said_and_asked_for_again_later(answer: bytes) -> None:
    registrar = Registrar()
    registrar.answer = answer
    await registrar.start()
    async with gateway(dns=DnsStub()) as world, following(world, registrar) as follower:
        await until(lambda: registrar.heads)
        if not answer:
            await registrar.stop()
        await until(lambda: follower.state == "lost")

        assert follower.error
    if answer:
        await registrar.stop()


async def test_an_event_during_a_lookup_is_not_lost_on_it() -> None:
    """The flight under way may have been answered before the change."""
    changes: list[Callable[[], None]] = []

    def late(query: bytes, answer: bytes) -> list[bytes]:
        if changes:
            changes.pop()()
        return [answer]

    old, new = await Upstream("old").start(), await Upstream("new").start()
    async with gateway(old, new, dns=DnsStub(ttl=3600, twist=late)) as world:
        world.dns.instances["payments"] = [old.record]

        def change() -> None:
            world.dns.instances["payments"] = [new.record]
            world.handler.resolver.changed(["payments"])

        changes.append(change)
        await world.get("/v2/payments/")
        await until(lambda: len(world.dns.asked) == 2)

        async def is_new() -> bool:
            return await bodies(world) == {b"new"}

        await until(is_new)


# --- what the cache tells the others


def test_names_of_a_service_are_found_with_their_subsets() -> None:
    cache = SrvCache(60)
    cache.store("1.version.payments", Absent(True, 5.0), 0.0, 0.0)
    cache.store("payments", Absent(True, 5.0), 0.0, 0.0)
    cache.store("other", Absent(True, 5.0), 0.0, 0.0)

    assert sorted(cache.names_of(["payments"])) == ["1.version.payments", "payments"]
