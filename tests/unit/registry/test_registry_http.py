"""The small HTTP client and server and the admin side, over real sockets."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from registry.errors import CallboardError
from registry.runtime import http, metrics
from registry.runtime.admin import Admin
from registry.runtime.config import HostPort
from registry.runtime.http import ProtocolError, Request, Response, Server, json_response
from registry.runtime.lifecycle import AddressInUse, binding_error

ANY = HostPort("127.0.0.1", 0)

ECHO = "/echo?a=1&b=%20"


async def echo(request: Request) -> Response:
    """What it was asked, as JSON."""
    return json_response(
        200,
        {
            "method": request.method,
            "target": request.target,
            "host": request.headers.get("host"),
            "x": request.headers.get("x-test"),
            "body": request.body.decode(),
        },
    )


@asynccontextmanager
async def serving(handle: Callable[[Request], Awaitable[Response]] = echo) -> AsyncIterator[str]:
    server = Server(ANY, handle)
    await server.start()
    try:
        yield f"http://{server.address}"
    finally:
        await server.stop()


@asynccontextmanager
async def saying(octets: bytes, *, close: bool = True) -> AsyncIterator[str]:
    """A server that answers everything with *octets*."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(octets)
            await writer.drain()
            if not close:
                await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def get(url: str, *, timeout: float = 10.0, limit: int = 1000) -> Response:
    return await http.request("GET", url, timeout=timeout, limit=limit)


# --- client and server ---------------------------------------------------------------------------


async def test_a_request_arrives_as_it_was_made() -> None:
    async with serving() as url:
        response = await http.request(
            "POST", url + ECHO, body=b"hello", headers={"x-test": "1"}, timeout=10
        )

    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "method": "POST",
        "target": ECHO,
        "host": url.removeprefix("http://"),
        "x": "1",
        "body": "hello",
    }


async def test_a_url_without_a_path_asks_for_the_root_and_keeps_its_query() -> None:
    async with serving() as url:
        assert (await get(url)).json()["target"] == "/"
        assert (await get(url + "?a")).json()["target"] == "/?a"


async def test_head_has_a_length_and_no_body() -> None:
    async with serving() as url:
        response = await http.request("HEAD", url, timeout=10)

    assert response.body == b""
    assert int(response.headers["content-length"]) > 0


async def test_requests_on_one_connection_are_answered_in_turn() -> None:
    async with serving() as url:
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        for n in range(3):
            writer.write(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % n)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert b'"target": "/%d"' % n in await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"b" * 1001,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_or_too_long_is_a_protocol_error(octets: bytes) -> None:
    async with saying(octets) as url:
        with pytest.raises((ProtocolError, ConnectionError)):
            await get(url)


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-Y: 1\r\n\r\nok",
    ],
)
async def test_a_body_ends_by_length_by_chunks_or_with_the_connection(octets: bytes) -> None:
    async with saying(octets) as url:
        assert (await get(url)).body == b"ok"


async def test_a_server_that_says_nothing_costs_no_more_than_the_time_given() -> None:
    async with saying(b"", close=False) as url:
        with pytest.raises(TimeoutError):
            await get(url, timeout=0.05)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "http://",
        "127.0.0.1:80",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://[::1/",
    ],
)
async def test_what_is_no_url_is_a_protocol_error(url: str) -> None:
    with pytest.raises(ProtocolError):
        await get(url)


@pytest.mark.parametrize("path", ["/ä", "/a b", "/\x7f"])
async def test_a_target_that_http_cannot_carry_is_a_protocol_error(path: str) -> None:
    async with serving() as url:
        with pytest.raises(ProtocolError):
            await get(url + path)


async def test_a_header_that_would_split_the_request_is_a_protocol_error() -> None:
    async with serving() as url:
        with pytest.raises(ProtocolError):
            await http.request("GET", url, headers={"x": "a\r\nb: c"}, timeout=10)


async def test_nobody_there_is_an_os_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(OSError, match=r".+"):
            await get(f"http://127.0.0.1:{port}/")


def test_a_body_that_is_no_json_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        Response(200, b"{").json()


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 65537\r\n\r\n" + b"b" * 65537,
    ],
)
async def test_what_strangers_send_to_a_server_ends_their_connection_and_no_other(
    octets: bytes,
) -> None:
    async with serving() as url:
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        writer.write(octets)
        with contextlib.suppress(ConnectionError):  # a reset is an end too
            assert await reader.read() == b""
        writer.close()

        assert (await get(url)).status == 200


# --- the admin side -------------------------------------------------------------------------------


@asynccontextmanager
async def admin_of(missing: list[str]) -> AsyncIterator[str]:
    registry = metrics.registry_for("dnsd")

    async def text() -> bytes:
        return metrics.text_of(registry)

    admin = Admin(ANY, lambda: missing, text)
    await admin.start()
    try:
        yield f"http://{admin.address}"
    finally:
        await admin.stop()


async def test_the_admin_side_says_alive_ready_and_metrics() -> None:
    missing: list[str] = ["snapshot"]
    async with admin_of(missing) as url:
        assert (await get(url + "/healthz")).status == 200
        assert (await get(url + "/livez")).status == 200
        unready = await get(url + "/readyz?verbose")
        assert (unready.status, unready.json()["missing"]) == (503, ["snapshot"])
        missing.clear()
        assert (await get(url + "/readyz")).status == 200
        scraped = await get(url + "/metrics", limit=1 << 20)
        assert scraped.headers["content-type"].startswith("text/plain")
        assert b'callboard_build_info{part="dnsd",version="' in scraped.body


async def test_the_admin_side_refuses_other_paths_and_methods() -> None:
    async with admin_of([]) as url:
        assert (await get(url + "/")).status == 404
        refused = await http.request("POST", url + "/healthz", body=b"", timeout=10)
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_an_admin_side_without_an_address_is_off() -> None:
    async def no_metrics() -> bytes:
        return b""

    admin = Admin(None, list, no_metrics)
    await admin.start()
    assert admin.address is None
    await admin.stop()


async def test_a_taken_port_is_named_with_its_option() -> None:
    async def no_metrics() -> bytes:
        return b""

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        admin = Admin(HostPort("127.0.0.1", port), list, no_metrics)
        with pytest.raises(AddressInUse, match=rf"127.0.0.1:{port} \(--admin\) is in use"):
            await admin.start()


def test_a_port_that_is_not_allowed_says_what_would_allow_it() -> None:
    error = binding_error(
        OSError(errno.EACCES, "Permission denied"), HostPort("::", 53), "--listen"
    )

    assert isinstance(error, CallboardError)
    assert "[::]:53 (--listen)" in str(error)
    assert "CAP_NET_BIND_SERVICE" in str(error)
