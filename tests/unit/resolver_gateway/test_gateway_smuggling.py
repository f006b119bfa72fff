# ruff: noqa: E501 - payloads are read whole, on one line
"""One request in is exactly one request out, or a refusal: judged by a recording upstream.

Each payload is sent raw, and another request after it.  The upstream must have got either nothing,
or what h11 and llhttp both read as the same requests, one for each that was answered.
"""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver_gateway import headers
from resolver_gateway.bodies import ChunkedBody
from resolver_gateway.request import RequestHead, RequestParser
from tests.support.http import Upstream, World, gateway
from tests.support.judges import Disagreement, Read, by_h11, requests_in
from tests.support.payloads import BY_KIND, PASSED, REFUSED, C, G, P
from tests.support.waiting import until

FOLLOWING = b"GET /v2/payments/following HTTP/1.1\r\nHost: g\r\n\r\n"

HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings",
    b"proxy-authorization", b"te", b"x-hop",
}  # fmt: skip
GONE = {b"content_length", b"x_forwarded_for", b"transfer_encoding"}


def test_the_battery_is_large_enough() -> None:
    assert len(REFUSED) >= 150
    assert len(PASSED) >= 50


@pytest.mark.parametrize("kind", BY_KIND)
async def test_what_is_ambiguous_is_refused_and_the_connection_ends(kind: str) -> None:
    """Nothing of it reaches an upstream, nor anything that is appended to it."""
    up = await Upstream().start()
    async with gateway(up) as world:
        for name, payload in BY_KIND[kind].items():
            client = await world.client()
            await client.send(payload + FOLLOWING)
            answer = await client.answer()

            assert 400 <= answer.status < 600, name
            assert answer.fields["content-type"] == "application/problem+json", name
            assert answer.fields["x-callboard-error"], name
            assert answer.fields["connection"] == "close", name
            assert await client.rest() == b"", name
            assert up.requests == [], name
            client.close()


@pytest.mark.parametrize("at", range(1, 60, 7))
async def test_a_refusal_does_not_depend_on_where_the_segments_end(at: int) -> None:
    """Half a CRLF at the end of a segment is no bare CR."""
    up = await Upstream().start()
    whole = b"POST /v2/payments/a HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi"
    async with gateway(up) as world:
        client = await world.client()
        await client.send(whole[:at])
        await until(lambda: len(world.handler.door.clients) == 1)
        await client.send(whole[at:])

        assert (await client.answer()).status == 200
        assert up.requests[0].endswith(b"\r\n\r\nhi")


@pytest.mark.parametrize("name", PASSED)
async def test_what_passes_is_one_clean_request(name: str) -> None:
    """h11 and llhttp see the same target and body; hop-by-hop and forged fields are gone."""
    sent, body = PASSED[name]
    up = await Upstream().start()
    async with gateway(up) as world:
        answer = await world.ask(sent)

        assert answer.status == 200
        assert len(up.connections) == 1
        (request,) = requests_in(up.connections[0])
        assert (request.target, request.body) == (b"/a", body)
        names = [found for found, _ in request.fields]
        assert names.count(b"host") == 1
        assert not (HOP_BY_HOP - ({b"connection", b"te"} if "trailers" in name else set())) & set(
            names
        )
        assert not GONE & set(names)
        assert request.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert b"6.6.6.6" not in up.connections[0]


async def test_what_goes_on_of_a_trailer_section_is_harmless() -> None:
    up = await Upstream().start()
    async with gateway(up) as world:
        await world.ask(PASSED["trailers"][0])

        assert up.requests[0].endswith(b"\r\n0\r\nX-Sum: 1\r\n\r\n")


# --- mutations: whatever comes of them, what is answered is what went out


TOKENS = [
    b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b"\x0b", b":", b",", b"0", b"5", b"\x85", b"\xa0", b"\r\n ",
    b"\r\n\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"chunked", b"_", b"-", b";",
    b"Transfer-Encoding: x\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Host: h\r\n", b"Upgrade: h2c\r\n",
    b"0\r\n\r\n", b"HTTP/1.0", b"GET / HTTP/1.1\r\n",
]  # fmt: skip

BASES = [
    G + b"X: y\r\n\r\n",
    P + b"Content-Length: 5\r\n\r\nhello",
    P + b"Transfer-Encoding: chunked\r\n\r\n5;e=f\r\nhello\r\n0\r\nT: u\r\n\r\n",
    P + b"Connection: keep-alive, x\r\nX: y\r\nContent-Length: 2\r\n\r\nhi",
]


def mutated(rng: random.Random) -> bytes:
    """A good request with a few octets of it replaced, cut out, or joined by others."""
    data = rng.choice(BASES)
    for _ in range(rng.choice([1, 1, 1, 1, 2])):
        at = rng.randrange(len(data))
        data = data[:at] + rng.choice(TOKENS) + data[at + rng.choice([0, 0, 1, 2]) :]
    return data


async def _answers(world: World, sent: bytes) -> list[int]:
    """The statuses of all final answers to *sent*, after which the client sends no more."""
    client = await world.client()
    await client.send(sent)
    client.writer.write_eof()
    data = await client.rest()
    client.close()
    statuses = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")
        length = next((int(f[15:]) for f in fields if f.startswith(b"content-length:")), 0)
        data = data[length:]
        if not fields[0].startswith(b"http/1.1 1"):
            statuses.append(int(head[9:12]))
    return statuses


@pytest.mark.parametrize("seed", range(8))
async def test_as_many_requests_go_out_as_are_answered_whatever_comes_in(seed: int) -> None:
    """Every answer is the upstream's to one request, or a refusal; both judges count the same."""
    rng = random.Random(seed)
    up = await Upstream().start()
    passed = refused = 0
    async with gateway(up) as world:
        for _ in range(60):
            before = {i: len(c) for i, c in enumerate(up.connections)}
            sent = mutated(rng) + FOLLOWING
            statuses = await _answers(world, sent)
            got = [c[before.get(i, 0) :] for i, c in enumerate(up.connections)]

            requests = [r for c in got for r in requests_in(c, broken_off=True)]
            assert len(requests) == statuses.count(200), (sent, statuses, got)
            for request in requests:
                assert len(request.values(b"host")) == 1
                assert request.target in (b"/a", b"/following") or request.target[:1] == b"/"
            passed += statuses.count(200)
            refused += len(statuses) - statuses.count(200)
    assert passed
    assert refused


NAMES = st.sampled_from(
    [b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"X", b"Upgrade", b"Expect", b"TE", b"Via",
     b"X-Forwarded-For", b"Content_Length", b"X Y", b"", b"Forwarded", b"Keep-Alive", b"Max-Forwards", b"Trailer"]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([b"g", b"5", b"0", b"chunked", b"close", b"x", b"upgrade", b"websocket", b"100-continue", b"trailers"]),
    st.binary(max_size=6),
)  # fmt: skip


@given(
    st.sampled_from([b"GET /v2/a/b HTTP/1.1", b"POST / HTTP/1.0", b"OPTIONS * HTTP/1.1", b"GET http://g/ HTTP/1.1"]),
    st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b" : "]), VALUES), max_size=6),
)  # fmt: skip
def test_a_head_that_is_rebuilt_reads_the_same_to_others(
    start: bytes, lines: list[tuple[bytes, bytes, bytes]]
) -> None:
    """What was accepted has, for both judges, the method and framing that we understood."""
    head = b"\r\n".join([start, *(n + c + v for n, c, v in lines)]) + b"\r\n\r\n"
    found = RequestParser().parse(head)
    if not isinstance(found, RequestHead):
        return

    rebuilt = headers.request_head(found, b"/b", found.host or b"g", b"Via: 1.1 us\r\n", b"id")
    body = (
        b"" if not found.has_body else b"0\r\n\r\n" if found.chunked else b"x" * (found.length or 0)
    )
    if found.upgrade:
        assert by_h11(rebuilt)[0].method == found.method
        return
    (request,) = requests_in(rebuilt + body)
    assert request.method == found.method
    assert len(request.body) == (found.length or 0)


PIECES = st.sampled_from(
    [
        b"0",
        b"5",
        b"a",
        b"00",
        b";",
        b"x=y",
        b"\r\n",
        b"\r",
        b"\n",
        b" ",
        b"\t",
        b"hello",
        b"X: y",
        b"\x00",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
    ]
)


@given(st.lists(PIECES, max_size=8).map(b"".join))
def test_a_chunked_body_that_is_taken_is_the_same_to_h11(data: bytes) -> None:
    part = ChunkedBody().feed(data)
    if not part.done:
        return

    body = data[: len(data) - len(part.rest)]
    (read,) = by_h11(C + body)
    assert read.body == part.data


def test_the_judges_see_what_is_wrong() -> None:
    """They are no judges if they let through what the gateway is there to stop."""
    two = b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    for data in (b"GET /\x00 HTTP/1.1\r\nHost: g\r\n\r\n", two, b"GET / HTTP/1.1\r\nX : y\r\n\r\n"):
        with pytest.raises(Disagreement):
            requests_in(data)
    good = b"GET / HTTP/1.1\r\nHost: g\r\n\r\n"
    assert requests_in(good * 2) == [Read(b"GET", b"/", ((b"host", b"g"),), b"")] * 2


# --- what is said of whoever asks


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

        (request,) = requests_in(up.connections[0])
        said = {
            n: v
            for n, v in request.fields
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
    up = await Upstream().start()
    async with gateway(up, trusted=(ipaddress.ip_network("127.0.0.0/8"),)) as world:
        await world.get(
            "/v2/payments/",
            "X-Forwarded-For: 9.9.9.9",
            "X-Forwarded-Proto: https",
            "Forwarded: for=9.9.9.9",
        )

        fields = dict(requests_in(up.connections[0])[0].fields)
        assert fields[b"x-forwarded-for"] == b"9.9.9.9, 127.0.0.1"
        assert fields[b"x-forwarded-proto"] == b"https"
        assert fields[b"forwarded"] == b'for=9.9.9.9, for=127.0.0.1;proto=http;host="gateway"'


async def test_a_request_that_was_here_before_is_a_loop() -> None:
    async with gateway(await Upstream().start()) as world:
        answer = await world.get("/v2/payments/", "Via: 1.1 other, 1.1 callboard-test")

        assert (answer.status, answer.fields["x-callboard-error"]) == (508, "loop")
