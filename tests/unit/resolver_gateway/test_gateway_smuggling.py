# ruff: noqa: E501 - payloads are read whole, on one line
"""One request in is exactly one request out, or a refusal: judged by a recording upstream.

Each payload is sent raw.  The upstream must have seen either nothing, or requests that h11 and
llhttp read as the same single request with the same body.
"""

import h11
import httptools
import pytest

from tests.support.http import Client, Upstream, gateway
from tests.support.waiting import until

P = b"POST /v2/payments/a HTTP/1.1\r\nHost: g\r\n"
G = b"GET /v2/payments/a HTTP/1.1\r\nHost: g\r\n"
SMUGGLED = b"GET /v2/payments/smuggled HTTP/1.1\r\nHost: g\r\n\r\n"

REFUSED = {
    "CL and TE": P + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE and CL": P + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two CL": P + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two equal CL": P + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "CL list": P + b"Content-Length: 5, 5\r\n\r\nhello",
    "CL plus": P + b"Content-Length: +5\r\n\r\nhello",
    "CL minus": P + b"Content-Length: -5\r\n\r\nhello",
    "CL hex": P + b"Content-Length: 0x5\r\n\r\nhello",
    "CL underscore": P + b"Content-Length: 1_0\r\n\r\nhellohello",
    "CL empty": P + b"Content-Length: \r\n\r\n",
    "CL space inside": P + b"Content-Length: 5 5\r\n\r\nhello",
    "CL huge": P + b"Content-Length: 99999999999999999999\r\n\r\n",
    "CL unicode digit": P + "Content-Length: ٥\r\n\r\nhello".encode(),
    "TE identity": P + b"Transfer-Encoding: identity\r\n\r\n",
    "TE twice": P + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE chunked twice": P + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "TE gzip, chunked": P + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE xchunked": P + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE vertical tab": P + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE space colon": P + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "TE folded": P + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "TE quoted": P + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE in 1.0": P.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE NUL": P + b"Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n",
    "TE after bare LF": P + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare CR in value": P + b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF line ends": b"GET /v2/payments/a HTTP/1.1\nHost: g\n\n",
    "folded field": G + b"X: a\r\n b\r\n\r\n",
    "folded first field": b"GET /v2/payments/a HTTP/1.1\r\n Host: g\r\n\r\n",
    "space before colon": G + b"X : a\r\n\r\n",
    "tab before colon": G + b"X\t: a\r\n\r\n",
    "no colon": G + b"X\r\n\r\n",
    "empty name": G + b": a\r\n\r\n",
    "name with slash": G + b"X/Y: a\r\n\r\n",
    "name with NUL": G + b"X\x00Y: a\r\n\r\n",
    "name not ASCII": G + b"X\xe9: a\r\n\r\n",
    "value with NUL": G + b"X: a\x00b\r\n\r\n",
    "value with DEL": G + b"X: a\x7fb\r\n\r\n",
    "value with ESC": G + b"X: a\x1bb\r\n\r\n",
    "two Hosts": b"GET /v2/payments/a HTTP/1.1\r\nHost: g\r\nHost: h\r\n\r\n",
    "two equal Hosts": b"GET /v2/payments/a HTTP/1.1\r\nHost: g\r\nHost: g\r\n\r\n",
    "no Host": b"GET /v2/payments/a HTTP/1.1\r\n\r\n",
    "empty Host": b"GET /v2/payments/a HTTP/1.1\r\nHost:\r\n\r\n",
    "Host with path": b"GET /v2/payments/a HTTP/1.1\r\nHost: g/x\r\n\r\n",
    "Host with user": b"GET /v2/payments/a HTTP/1.1\r\nHost: u@g\r\n\r\n",
    "Host list": b"GET /v2/payments/a HTTP/1.1\r\nHost: g, h\r\n\r\n",
    "Host bad port": b"GET /v2/payments/a HTTP/1.1\r\nHost: g:8x\r\n\r\n",
    "absolute against Host": b"GET http://h/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "absolute without Host": b"GET http://g/v2/payments/a HTTP/1.1\r\n\r\n",
    "other scheme": b"GET ftp://g/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "authority form": b"GET g:80 HTTP/1.1\r\nHost: g\r\n\r\n",
    "asterisk with GET": b"GET * HTTP/1.1\r\nHost: g\r\n\r\n",
    "no slash": b"GET v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "fragment": b"GET /v2/payments/a#b HTTP/1.1\r\nHost: g\r\n\r\n",
    "HTTP/0.9": b"GET /v2/payments/a\r\n\r\n",
    "version lower case": b"GET /v2/payments/a http/1.1\r\nHost: g\r\n\r\n",
    "version 1.10": b"GET /v2/payments/a HTTP/1.10\r\nHost: g\r\n\r\n",
    "version 2.0": b"GET /v2/payments/a HTTP/2.0\r\nHost: g\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two spaces": b"GET  /v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "tab separator": b"GET\t/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "space at end": b"GET /v2/payments/a HTTP/1.1 \r\nHost: g\r\n\r\n",
    "space at start": b" GET /v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "space in target": b"GET /v2/payments/a b HTTP/1.1\r\nHost: g\r\n\r\n",
    "target not ASCII": b"GET /v2/payments/\xe9 HTTP/1.1\r\nHost: g\r\n\r\n",
    "method with colon": b"GE:T /v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "Connection names Host": G + b"Connection: host\r\n\r\n",
    "Connection names CL": P + b"Connection: content-length\r\nContent-Length: 2\r\n\r\nhi",
    "Connection names TE": P + b"Connection: transfer-encoding\r\n\r\n",
    "Connection names XFF": G + b"Connection: close, X-Forwarded-For\r\n\r\n",
    "Connection names Forwarded": G + b"Connection: forwarded\r\n\r\n",
    "Connection names Authorization": G + b"Connection: authorization\r\n\r\n",
    "CONNECT": b"CONNECT g:443 HTTP/1.1\r\nHost: g:443\r\n\r\n",
    "chunk size empty": P + b"Transfer-Encoding: chunked\r\n\r\n\r\n",
    "chunk size prefix": P + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size sign": P + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk size space": P + b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
    "chunk size leading space": P + b"Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
    "chunk size too long": P
    + b"Transfer-Encoding: chunked\r\n\r\n1000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk too long": P + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
    "chunk bare LF": P + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "chunk LF after data": P + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    "chunk ext bare CR": P + b"Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n",
    "chunk ext bare LF": P + b"Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
    "chunk ext too long": P
    + b"Transfer-Encoding: chunked\r\n\r\n5;"
    + b"a" * 600
    + b"\r\nhello\r\n0\r\n\r\n",
    "trailer is none": P + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n",
    "too many fields": G + b"".join(b"X-%d: y\r\n" % i for i in range(120)) + b"\r\n",
    "target too long": b"GET /v2/payments/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: g\r\n\r\n",
    "head too long": G + b"X: " + b"a" * 40000 + b"\r\n\r\n",
    "Max-Forwards odd": b"OPTIONS * HTTP/1.1\r\nHost: g\r\nMax-Forwards: 1x\r\n\r\n",
}


async def _until_closed(client: Client) -> bytes:
    return await client.rest()


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_ambiguous_is_refused_and_the_connection_ends(name: str) -> None:
    """Nothing of it reaches an upstream, nor anything that is appended to it."""
    up = await Upstream().start()
    async with gateway(up) as world:
        client = await world.client()
        await client.send(REFUSED[name] + SMUGGLED)
        answer = await client.answer()
        rest = await client.rest()

        assert 400 <= answer.status < 600, name
        assert answer.fields["content-type"] == "application/problem+json"
        assert answer.fields["x-callboard-error"]
        assert answer.fields["connection"] == "close"
        assert rest == b""
        assert up.requests == []


@pytest.mark.parametrize("at", range(1, 60, 7))
async def test_a_refusal_does_not_depend_on_where_the_segments_end(at: int) -> None:
    """Half a CRLF at the end of a segment is no bare CR."""
    up = await Upstream().start()
    whole = b"POST /v2/payments/a HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi"
    async with gateway(up) as world:
        client = await world.client()
        await client.send(whole[:at])
        await until(lambda: len(world.handler.clients) == 1)
        await client.send(whole[at:])

        assert (await client.answer()).status == 200
        assert up.requests[0].endswith(b"\r\n\r\nhi")


PASSED = {
    "plain": (G + b"\r\n", b""),
    "Expect odd": (P + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "Expect without a body": (G + b"Expect: 100-continue\r\n\r\n", b""),
    "Max-Forwards of a GET": (G + b"Max-Forwards: 1x\r\n\r\n", b""),
    "zeros before a chunk's size": (
        P + b"Transfer-Encoding: chunked\r\n\r\n00000000000000000005\r\nhello\r\n000\r\n\r\n",
        b"hello",
    ),
    "zeros before a length": (P + b"Content-Length: 00000000000000000002\r\n\r\nhi", b"hi"),
    "empty line first": (b"\r\n" + G + b"\r\n", b""),
    "absolute form": (b"GET http://g/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n", b""),
    "absolute form, other case": (b"GET HTTP://G/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n", b""),
    "minor version to come": (b"GET /v2/payments/a HTTP/1.3\r\nHost: g\r\n\r\n", b""),
    "tab in value": (G + b"X: a\tb\r\n\r\n", b""),
    "latin-1 in value": (G + b"X: caf\xe9\r\n\r\n", b""),
    "empty value": (G + b"X:\r\n\r\n", b""),
    "space around value": (G + b"X: \t a \t\r\n\r\n", b""),
    "CL": (P + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "CL with zeros": (P + b"Content-Length: 005\r\n\r\nhello", b"hello"),
    "CL 0": (P + b"Content-Length: 0\r\n\r\n", b""),
    "chunked": (P + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "Chunked": (P + b"Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "chunk extension": (
        P + b'Transfer-Encoding: chunked\r\n\r\n5;a="b"\r\nhello\r\n0 ;x\r\n\r\n',
        b"hello",
    ),
    "trailers": (
        P + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n"
        b"Content-Length: 3\r\nHost: evil\r\nAuthorization: x\r\n\r\n",
        b"hello",
    ),
    "Connection names a plain field": (G + b"Connection: x-hop\r\nX-Hop: 1\r\n\r\n", b""),
    "underscore twins": (
        P + b"Content_Length: 3\r\nX_Forwarded_For: 1.2.3.4\r\nTransfer_Encoding: chunked\r\n"
        b"Content-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "Upgrade h2c": (
        G + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        b"",
    ),
    "Keep-Alive": (G + b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n", b""),
    "Proxy fields": (G + b"Proxy-Connection: keep-alive\r\nProxy-Authorization: x\r\n\r\n", b""),
    "GET with body": (G + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "IPv6 Host": (b"GET /v2/payments/a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", b""),
}


def by_h11(data: bytes) -> tuple[h11.Request, bytes]:
    """The one request in *data* as h11 reads it; an error when there is not exactly one."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request = connection.next_event()
    assert isinstance(request, h11.Request), request
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    assert connection.trailing_data[0] == b""
    return request, body


class ByLlhttp:
    """What llhttp reads."""

    def __init__(self, data: bytes) -> None:
        self.messages = 0
        self.body = b""
        self.url = b""
        httptools.HttpRequestParser(self).feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


@pytest.mark.parametrize("name", PASSED)
async def test_what_passes_is_one_clean_request(name: str) -> None:
    """h11 and llhttp see the same target and body; hop-by-hop and forged fields are gone."""
    sent, body = PASSED[name]
    up = await Upstream().start()
    async with gateway(up) as world:
        answer = await world.ask(sent)

        assert answer.status == 200
        assert len(up.connections) == 1
        request, seen = by_h11(up.connections[0])
        second = ByLlhttp(up.connections[0])
        assert (request.target, seen) == (b"/a", body)
        assert (second.messages, second.url, second.body) == (1, b"/a", body)
        fields = dict(request.headers)
        hop = {b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings"}
        gone = hop | {b"proxy-authorization", b"x-hop", b"content_length", b"x_forwarded_for"}
        assert not gone & fields.keys()
        assert fields[b"x-forwarded-for"] == b"127.0.0.1"


async def test_forged_forwarding_fields_are_replaced() -> None:
    up = await Upstream().start()
    async with gateway(up) as world:
        await world.get(
            "/v2/payments/",
            "X-Forwarded-For: 6.6.6.6",
            "X-Forwarded-Host: evil",
            "X-Forwarded-Port: 1",
            "Forwarded: for=6.6.6.6;host=evil",
            "X-Real-IP: 6.6.6.6",
            "Via: 1.0 elsewhere",
            "X-Request-Id: mine-1",
        )

        request, _ = by_h11(up.connections[0])
        said = {
            n: v
            for n, v in request.headers
            if b"forward" in n or n in (b"via", b"x-real-ip", b"x-request-id")
        }
        assert said == {
            b"x-forwarded-for": b"127.0.0.1",
            b"x-forwarded-proto": b"http",
            b"x-forwarded-host": b"gateway",
            b"x-forwarded-prefix": b"/v2/payments",
            b"x-real-ip": b"127.0.0.1",
            b"forwarded": b'for=127.0.0.1;proto=http;host="gateway"',
            b"via": b"1.0 elsewhere, 1.1 callboard-test",
            b"x-request-id": b"mine-1",
        }


async def test_a_trusted_proxy_is_believed_and_added_to() -> None:
    import ipaddress

    up = await Upstream().start()
    async with gateway(up, trusted=(ipaddress.ip_network("127.0.0.0/8"),)) as world:
        await world.get(
            "/v2/payments/",
            "X-Forwarded-For: 9.9.9.9",
            "X-Forwarded-Proto: https",
            "Forwarded: for=9.9.9.9",
        )

        fields = dict(by_h11(up.connections[0])[0].headers)
        assert fields[b"x-forwarded-for"] == b"9.9.9.9, 127.0.0.1"
        assert fields[b"x-forwarded-proto"] == b"https"
        assert fields[b"forwarded"] == b'for=9.9.9.9, for=127.0.0.1;proto=http;host="gateway"'


async def test_a_request_that_was_here_before_is_a_loop() -> None:
    async with gateway(await Upstream().start()) as world:
        answer = await world.get("/v2/payments/", "Via: 1.1 other, 1.1 callboard-test")

        assert (answer.status, answer.fields["x-callboard-error"]) == (508, "loop")


HOSTILE_ANSWERS = {
    "no status line": b"hello\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "space before colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "two CL": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "CL and TE": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "TE twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL in value": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "CR in value": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2": b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "surplus": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
    "surplus after chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    "body of a 204": b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok",
    "body of a 304": b"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\nok",
    "101 unasked": b"HTTP/1.1 101 Sw\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "nine interim": b"HTTP/1.1 102 Processing\r\n\r\n" * 9
    + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 120 + b"\r\n",
    "head too long": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40000 + b"\r\n\r\n",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE_ANSWERS)
async def test_an_upstream_that_speaks_no_http_is_a_502(name: str) -> None:
    async with gateway(
        await Upstream(script=lambda u, r: [HOSTILE_ANSWERS[name]]).start()
    ) as world:
        client = await world.client()
        await client.send(b"POST /v2/payments/a HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n")
        answer = await client.answer()
        while answer.status == 102:
            answer = await client.answer()

        assert answer.status == 502, name
        assert answer.fields["x-callboard-error"] == "upstream-protocol"
        await until(lambda: not world.handler.pool.connections)


async def test_unsolicited_bytes_end_the_connection_and_reach_nobody() -> None:
    """A second answer, sent when nobody asked: the next request takes another connection."""

    def script(upstream: Upstream, request: bytes) -> list[bytes]:
        return [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"]

    up = await Upstream(script=script).start()
    async with gateway(up) as world:
        assert (await world.get("/v2/payments/")).body == b"mine"
        writer = next(iter(up._writers))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother")
        await until(lambda: not world.handler.pool.connections)

        assert (await world.get("/v2/payments/")).body == b"mine"
        assert len(up.connections) == 2


async def test_an_answer_that_breaks_off_is_seen_to_be_broken() -> None:
    up = await Upstream(
        script=lambda u, r: [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"]
    ).start()
    async with gateway(up) as world:
        client = await world.client()
        await client.send(G + b"\r\n")
        await client.reader.readuntil(b"half")
        for writer in list(up._writers):
            writer.close()

        assert await client.rest() == b""
        await until(lambda: world.counts.unanswered["none", "upstream-closed"] == 1)
