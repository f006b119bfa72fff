"""TLS on both sides: what is shown, who is believed, and what SIGHUP reads again."""

import asyncio
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from registry.runtime import http
from registry.runtime.config import Common, ConfigError, HostPort
from resolver_gateway import certificates
from resolver_gateway.config import Config, problems
from resolver_gateway.tls import ClientSide, upstream_context
from resolver_gateway.worker import Worker
from tests.support.certificates import Authority, Pair
from tests.support.gateway_process import GatewayProcess
from tests.support.http import Client, DnsStub, Upstream, World, gateway
from tests.support.waiting import until

GET = b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    return authority.sign("gateway")


def side_of(pair: Pair) -> ClientSide:
    return ClientSide(str(pair.certificate), str(pair.key))


async def connected(world: World, authority: Authority) -> Client:
    trust = ssl.create_default_context(cafile=authority.certificate)
    trust.set_alpn_protocols(["h2", "http/1.1"])
    opened = await asyncio.open_connection(*world.address, ssl=trust)
    return Client(*opened)


def shown(client: Client) -> str:
    """The common name of the certificate that the gateway showed."""
    certificate = client.writer.get_extra_info("peercert")
    return str(dict(pair[0] for pair in certificate["subject"])["commonName"])


# --- towards clients


async def test_a_client_that_speaks_tls_is_served_and_the_upstream_is_told(
    authority: Authority, ours: Pair
) -> None:
    up = await Upstream("one").start()
    async with gateway(up, tls=side_of(ours).context) as world:
        client = await connected(world, authority)
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer()).body == b"one"
        secure = client.writer.get_extra_info("ssl_object")

        assert secure.selected_alpn_protocol() == "http/1.1"
        assert secure.version() == "TLSv1.3"
        assert b"X-Forwarded-Proto: https\r\n" in up.requests[0]
        assert b";proto=https;" in up.requests[0]
        client.close()


async def test_plain_http_and_old_versions_get_nothing(authority: Authority, ours: Pair) -> None:
    async with gateway(await Upstream().start(), tls=side_of(ours).context) as world:
        plain = await world.client()
        await plain.send(GET)
        assert b"HTTP/1.1" not in await plain.rest()

        old = ssl.create_default_context(cafile=authority.certificate)
        with pytest.warns(DeprecationWarning, match="TLS"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(*world.address, ssl=old)


async def test_a_client_that_ends_its_side_is_gone(authority: Authority, ours: Pair) -> None:
    """No warning either, which would be one a client."""
    up = await Upstream(script=lambda u, r: []).start()
    async with gateway(up, tls=side_of(ours).context) as world:
        client = await connected(world, authority)
        await client.send(GET)
        await until(lambda: up.requests)
        client.writer.close()

        await until(lambda: up.open == 0)
        assert world.counts.requests == {("none", "client-gone"): 1}


async def test_a_new_certificate_is_shown_to_the_next_client_and_no_connection_is_lost(
    authority: Authority, tmp_path: Path
) -> None:
    first, second = authority.sign("first"), authority.sign("second")
    used = Pair(tmp_path / "used.pem", tmp_path / "used.key")

    def use(pair: Pair) -> None:
        used.certificate.write_bytes(pair.certificate.read_bytes())
        used.key.write_bytes(pair.key.read_bytes())

    use(first)
    side = side_of(used)
    async with gateway(await Upstream("one").start(), tls=side.context) as world:
        early = await connected(world, authority)
        assert shown(early) == "first"
        use(second)
        side.read_again()
        late = await connected(world, authority)
        assert shown(late) == "second"
        await early.send(GET)
        assert (await early.answer()).body == b"one"

        used.key.write_bytes(first.key.read_bytes())  # a key that does not fit
        with pytest.raises(ssl.SSLError):
            side.read_again()
        again = await connected(world, authority)
        assert shown(again) == "second"
        for client in (early, late, again):
            client.close()


def test_the_end_of_a_certificate_is_known(ours: Pair) -> None:
    two_days = time.time() + 2 * 86400

    assert abs(side_of(ours).expires_at - two_days) < 600


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nMAIwAA==\n-----END CERTIFICATE-----",
        b"no certificate",
    ],
)
def test_what_is_no_certificate_has_no_end(pem: bytes) -> None:
    assert certificates.not_after(pem) == 0.0


# --- towards upstreams


@asynccontextmanager
async def secure_upstream(pair: Pair) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
        except (EOFError, OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


NAME = "payments.svc.internal"


async def ask_secure(authority: Authority, pair: Pair, trust: ssl.SSLContext) -> tuple[int, bytes]:
    """Status and body that a gateway gives that asks `payments` over TLS, and trusts by *trust*."""
    async with (
        secure_upstream(pair) as port,
        gateway(dns=DnsStub(), tls_name=NAME, upstream_tls=trust) as world,
    ):
        world.dns.instances["payments"] = [("one", "127.0.0.1", port, 0, 1)]
        answer = await world.get("/v2/payments/")
        return answer.status, answer.body


async def test_an_upstream_is_believed_for_its_name_and_its_issuer(authority: Authority) -> None:
    trust = upstream_context(str(authority.certificate))

    right = authority.sign("right", host=NAME)
    assert await ask_secure(authority, right, trust) == (200, b"secret")
    wrong = authority.sign("wrong", host="ledger.svc.internal")
    status, told = await ask_secure(authority, wrong, trust)
    assert status == 502
    assert b"certificate verify failed" in told


async def test_an_upstream_of_another_issuer_is_not_believed(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    pair = authority.sign("right", host=NAME)

    status, _ = await ask_secure(authority, pair, upstream_context(str(stranger.certificate)))
    assert status == 502
    status, _ = await ask_secure(authority, pair, upstream_context(""))
    assert status == 502


async def test_the_health_page_asks_over_tls_too(authority: Authority) -> None:
    pair = authority.sign("right", host=NAME)
    trust = upstream_context(str(authority.certificate))
    async with (
        secure_upstream(pair) as port,
        gateway(dns=DnsStub(), tls_name=NAME, upstream_tls=trust) as world,
    ):
        world.dns.instances["payments"] = [("one", "127.0.0.1", port, 0, 1)]
        answer = await world.get("/gateway/health-check/payments")

        assert f'"service_url": "https://127.0.0.1:{port}"'.encode() in answer.body
        assert b'"healthy": true' in answer.body


# --- settings, and SIGHUP


def test_what_cannot_be_used_is_said_at_the_start(ours: Pair, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[payments]\nbalanc = 1\n")
    settings = Config(
        tls_cert=str(ours.certificate),
        tls_key=str(tmp_path / "none.key"),
        upstream_ca=str(broken),
        routes=str(broken),
        resolv_conf=str(tmp_path / "none"),
        try_timeout=5.0,
        request_timeout=2.0,
    )

    told = "\n".join(problems(settings))

    for what in (
        "option --tls-cert",
        "option --upstream-ca",
        "balanc: unknown key (did you mean balance?)",
        "option --resolv-conf",
        "option --try-timeout",
    ):
        assert what in told
    assert "--tls-key beside it" in "\n".join(problems(Config(tls_cert=str(ours.certificate))))


async def test_sighup_reads_routes_and_certificates_again_or_nothing_at_all(
    ours: Pair, tmp_path: Path
) -> None:

    routes = tmp_path / "routes.toml"
    routes.write_text('[payments]\nbalance = "round-robin"\n')
    settings = Config(
        listen=HostPort("127.0.0.1", 0),
        routes=str(routes),
        tls_cert=str(ours.certificate),
        tls_key=str(ours.key),
    )
    latest = settings

    def read_again() -> tuple[Config, Common]:
        if latest.client_rate:
            raise ConfigError(["option --client-rate: not today"])
        return latest, Common()

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        worker = Worker(settings, sock, {}, read_again)

        def balance() -> str:
            return str(worker.handler.router.named("payments").rule.balance)

        assert balance() == "round-robin"
        routes.write_text('[payments]\nbalance = "hash-client"\n')
        worker.reload()
        assert balance() == "hash-client"

        routes.write_text('[payments]\nbalance = "hash"\n')
        worker.reload()
        assert balance() == "hash-client"
        routes.write_text("")
        latest = replace(settings, client_rate=1.0)
        worker.reload()
        assert balance() == "hash-client"
        latest = settings
        worker.reload()
        assert balance() == "weighted-random"
        await worker.stop()


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_process_speaks_tls_on_both_sides_and_shows_a_new_certificate_after_sighup(
    authority: Authority, tmp_path: Path, workers: int
) -> None:
    used = Pair(tmp_path / "used.pem", tmp_path / "used.key")

    def use(pair: Pair) -> None:
        used.certificate.write_bytes(pair.certificate.read_bytes())
        used.key.write_bytes(pair.key.read_bytes())

    routes = tmp_path / "routes.toml"
    routes.write_text("[payments]\ntls = true\n")
    use(authority.sign("early"))
    later = authority.sign("later")
    stub = DnsStub()
    dns = await stub.start()
    trust = ssl.create_default_context(cafile=authority.certificate)
    async with (
        secure_upstream(authority.sign("right", host=NAME)) as port,
        GatewayProcess(
            tmp_path,
            dns,
            *("--tls-cert", str(used.certificate), "--tls-key", str(used.key)),
            *("--upstream-ca", str(authority.certificate), "--routes", str(routes)),
            *("--workers", str(workers)),
        ) as process,
    ):
        stub.instances["_https._tcp.payments"] = [("one", "127.0.0.1", port, 0, 1)]
        assert process.addresses["gateway"].startswith("https://")
        place = HostPort.parse(process.addresses["gateway"].removeprefix("https://"))

        async def client() -> Client:
            return Client(*await asyncio.open_connection(*place, ssl=trust))

        async def is_served() -> bool:
            opened = await client()
            await opened.send(GET)
            answer = await opened.answer()
            opened.close()
            return (answer.status, answer.body) == (200, b"secret")

        await until(is_served, 20)
        early = await client()
        assert shown(early) == "early"
        use(later)
        process.process.send_signal(signal.SIGHUP)

        async def shows_later() -> bool:
            opened = await client()
            opened.close()
            return shown(opened) == "later"

        await until(shows_later)
        await early.send(GET)
        assert (await early.answer()).body == b"secret"
        early.close()
        metrics = await http.request("GET", process.addresses["admin"] + "/metrics", timeout=5)
        assert b"gateway_certificate_expiry_seconds 1." in metrics.body
    stub.stop()
    assert b"Traceback" not in process.log
    assert b"has no effect when using ssl" not in process.log
