"""How the store is reached: Sentinels, TLS, an ACL with the least rights, replicas to wait for."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.address import StoreAddress
from registry.errors import StoreUnavailable
from registry.follower import Follower
from registry.leases import LeaseStore, Renewal, Renewed
from registry.runtime.config import HostPort
from registry.sentinels import Sentinels
from registry.store import RedisStore
from tests.support.following import agrees, beating, following, running
from tests.support.lease_worlds import a_registration
from tests.support.sentinels import Watched
from tests.support.store import BINARY_VARIABLE, StoreServer, free_port
from tests.support.waiting import until

README = Path(__file__).parent.parent.parent / "registry" / "README.md"
ZONE = "svc.internal."


# --- Sentinels --------------------------------------------------------------------------------


async def works(store: LeaseStore, instance: str) -> bool:
    try:
        await store.register(a_registration(instance=instance), lease_id="x")
    except StoreUnavailable:
        return False
    return True


@pytest.fixture
def watched() -> Iterator[Watched]:
    with Watched() as watched:
        yield watched


async def test_store_and_follower_go_to_whoever_is_primary_now(watched: Watched) -> None:
    """The primary is killed; after the fail-over both are at the other, under a greater epoch."""
    follower = Follower(watched.address, ZONE)
    store = RedisStore(watched.address, ZONE, known_revision=lambda: follower.known_revision)
    async with running(follower), beating(store):
        assert await works(store, "before")
        await until(lambda: "before" in follower.catalog.instances("payments"))
        before = follower.catalog.revision
        await asyncio.to_thread(until_replicated, watched)

        watched.primary.kill()
        await until(lambda: works(store, "after"), seconds=30)

        assert await asyncio.to_thread(watched.named) == watched.replica.port
        await until(lambda: agrees(follower, store), seconds=10)
        assert set(follower.catalog.instances("payments")) == {"before", "after"}
        assert follower.catalog.revision > before + 1
    await store.close()


def until_replicated(watched: Watched) -> None:
    watched.primary.command("WAIT", 1, 5000)


async def test_a_primary_that_was_demoted_is_left(watched: Watched) -> None:
    """It hangs while the other is made primary, and wakes up believing in itself."""
    store = RedisStore(watched.address, ZONE)
    assert await works(store, "before")
    watched.primary.pause()
    await until(lambda: named(watched, watched.replica.port), seconds=30)
    watched.primary.resume()

    async def is_held() -> bool:
        # What it takes until it is demoted is lost: the next heartbeat repairs that.
        return await works(store, "after") and "payments/after" in keys_of_instances(
            watched.replica
        )

    await until(is_held, seconds=30)
    await store.close()


async def named(watched: Watched, port: int) -> bool:
    return await asyncio.to_thread(watched.named) == port


def keys_of_instances(server: StoreServer) -> set[str]:
    return {key.decode() for key in server.command("HKEYS", f"sd:{{{ZONE}}}:instances")}


async def test_no_sentinel_is_no_store_and_soon() -> None:
    address = StoreAddress("redis://x", (HostPort("127.0.0.1", free_port()),), "callboard")
    store = RedisStore(address, ZONE)

    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailable, match="no Sentinel of 127"):
            await store.ping()
    await store.close()


async def test_what_most_sentinels_say_counts_and_a_silent_one_costs_half_a_second() -> None:
    async def answering(port: int) -> asyncio.Server:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                if line.strip().upper() in (b"SETINFO",):
                    writer.write(b"+OK\r\n")
                if b"callboard" in line:
                    text = str(port).encode()
                    writer.write(b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(text), text))
            writer.close()

        return await asyncio.start_server(answer, "127.0.0.1", 0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    servers = [await answering(port) for port in (6001, 6002, 6002)]
    servers.append(await asyncio.start_server(silent, "127.0.0.1", 0))
    places = tuple(HostPort(*s.sockets[0].getsockname()) for s in servers)

    assert await Sentinels(places, "callboard").primary() == ("127.0.0.1", 6002)
    for server in servers:
        server.close()


# --- least rights -----------------------------------------------------------------------------


def rule(part: str) -> list[str]:
    """The words that registry/README.md gives to ACL SETUSER."""
    found = re.search(rf"```acl-{part}\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1].split()


@pytest.fixture
def guarded() -> Iterator[StoreServer]:
    """A store with the two users of the README, and no others."""
    with StoreServer() as server:
        for part in ("registrar", "dnsd"):
            server.command("ACL", "SETUSER", part, "reset", "on", f">{part}-secret", *rule(part))
        yield server


def as_user(server: StoreServer, user: str) -> str:
    return f"unix://{user}:{user}-secret@{server.socket_path}"


async def test_every_verb_of_the_store_works_with_the_documented_rights(
    guarded: StoreServer,
) -> None:
    store = RedisStore(as_user(guarded, "registrar"), ZONE)
    async with following(as_user(guarded, "registrar"), ZONE) as follower:
        await store.ping()
        await store.begin_epoch(0)
        granted = await store.register(a_registration(owner="team"), lease_id="a", generation=3)
        for i in ("x", "y", "z"):
            await store.register(a_registration("web", i), lease_id="a")
        revision = granted.instance.revision
        await store.set_found("payments/pay-1", ("10.0.0.9",), expected=revision)
        await store.set_state("payments/pay-1", "draining", "why")
        await store.set_answers("payments", 2)
        assert await store.renew([Renewal("payments/pay-1")]) == [Renewed(60.0)]
        assert await store.lease_times(["payments/pay-1"]) == [pytest.approx(60, abs=5)]
        await until(lambda: agrees(follower, store))
        # Everything that a sweep can do: evict, suspect, forget, and let tombstones end.
        deadlines = f"sd:{{{ZONE}}}:deadlines"
        for key in ("web/x", "web/y", "web/z", "payments/pay-1"):
            guarded.command("ZINCRBY", deadlines, -70_000, key)
        swept = await store.sweep()
        assert (len(swept.evicted), len(swept.suspects)) == (2, 2)
        guarded.command("ZINCRBY", deadlines, -600_000, "~gone:payments")
        guarded.command("ZINCRBY", deadlines, -600_000, "~dead:payments/pay-1")
        assert (await store.sweep()).forgotten == ("payments",)
        await store.release_guard("web", ["x", "y", "z"])
        await store.deregister_service("web", [])
        assert await store.claim("lookups", "me", 5.0)
        await until(lambda: agrees(follower, store))
    await store.close()


async def test_a_reader_may_follow_and_write_nothing(guarded: StoreServer) -> None:
    writer = RedisStore(as_user(guarded, "registrar"), ZONE)
    reader = RedisStore(as_user(guarded, "dnsd"), ZONE)
    async with following(as_user(guarded, "dnsd"), ZONE) as follower:
        await writer.register(a_registration(), lease_id="a")
        await until(lambda: follower.catalog.instance_count == 1)
        await writer.deregister("payments/pay-1")
        await until(lambda: follower.catalog.instance_count == 0)
        with pytest.raises(StoreUnavailable, match="NoPermission"):
            await reader.register(a_registration(), lease_id="a")
    await writer.close()
    await reader.close()


@pytest.mark.parametrize(
    "command", ["FLUSHALL", "KEYS *", "CONFIG GET *", "DEBUG SLEEP 0", "GET other", "DEL sd:x"]
)
def test_neither_user_may_do_anything_else(guarded: StoreServer, command: str) -> None:
    for user in ("registrar", "dnsd"):
        answer = guarded.command("ACL", "DRYRUN", user, *command.split())
        assert answer != b"OK", answer


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for localhost (cert.pem) with its key (key.pem)."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return tmp_path


@pytest.fixture
def tls_port(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A store that speaks TLS; the embedded one cannot."""
    server_binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if server_binary is None:
        pytest.skip("no server with TLS on PATH")
    monkeypatch.setenv(BINARY_VARIABLE, server_binary)
    port = free_port()
    process = subprocess.Popen(
        [
            *(server_binary, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1"),
            *("--tls-cert-file", str(certificate / "cert.pem")),
            *("--tls-key-file", str(certificate / "key.pem")),
            *("--tls-ca-cert-file", str(certificate / "cert.pem")),
            *("--tls-auth-clients", "no", "--save", "", "--dir", str(certificate)),
        ],
        stdout=subprocess.DEVNULL,
    )
    yield port
    process.kill()
    process.wait()


async def test_a_store_is_reached_over_tls_when_its_certificate_is_vouched_for(
    tls_port: int, certificate: Path
) -> None:
    ca = str(certificate / "cert.pem")
    good = RedisStore(StoreAddress(f"rediss://localhost:{tls_port}/0", ca_file=ca), ZONE)
    strange = RedisStore(f"rediss://localhost:{tls_port}/0", ZONE)
    misnamed = RedisStore(StoreAddress(f"rediss://127.0.0.1:{tls_port}/0", ca_file=ca), ZONE)

    await until(lambda: works(good, "a"), seconds=15)
    for store in (strange, misnamed):
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            await store.ping()
        await store.close()
    await good.close()


# --- replicas to wait for -----------------------------------------------------------------------


async def test_a_write_that_waits_for_replicas_is_refused_while_there_is_none() -> None:
    """503: it may have happened.  Heartbeats do not wait, and go on."""
    with (
        StoreServer(port=free_port()) as primary,
        StoreServer(port=free_port()) as replica,
    ):
        store = RedisStore(primary.url, ZONE, wait_replicas=1)
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await store.register(a_registration(), lease_id="a")
        assert await store.renew([Renewal("payments/pay-1")]) == [Renewed(60.0)]

        replica.command("REPLICAOF", "127.0.0.1", primary.port)
        # A replica that only loads what it was sent may be counted already.
        await until(lambda: link_of(replica) == "up", seconds=15)
        await until(lambda: works(store, "pay-2"), seconds=15)
        held = keys_of_instances(replica)
        assert {"payments/pay-1", "payments/pay-2"} <= held
        await store.close()


def link_of(replica: StoreServer) -> str:
    return str(replica.command("INFO", "replication")["master_link_status"])


# --- scripts ------------------------------------------------------------------------------------


async def test_a_list_of_renewals_longer_than_one_script_takes_is_answered_in_order(
    store_server: StoreServer,
) -> None:
    store = RedisStore(store_server.url, store_server.fresh_zone())
    await store.register(a_registration(instance="a", lease_ttl=30), lease_id="x")
    await store.register(a_registration(instance="b", lease_ttl=40), lease_id="y")
    wishes = [Renewal("payments/" + "ab"[n % 2]) for n in range(1234)]

    results = await store.renew(wishes)

    assert results == [Renewed((30.0, 40.0)[n % 2]) for n in range(1234)]
    await store.close()
