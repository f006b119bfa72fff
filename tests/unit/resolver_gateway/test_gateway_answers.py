# ruff: noqa: E501 - answers are read whole, on one line
"""Upstreams are trusted as little as clients: what is no answer is a 502, and reaches nobody.

`EVIL` stands wherever an answer has more than it should: no client may ever see it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import pytest

from tests.support.http import Answer, Client, Upstream, World, gateway
from tests.support.puppet import Puppet, asking, played
from tests.support.waiting import until

OK = b"HTTP/1.1 200 OK\r\n"
TWO = b"Content-Length: 2\r\n\r\nok"
TE = b"Transfer-Encoding: chunked\r\n"
CHUNKED = OK + TE + b"\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
POST = b"POST /v2/payments/a HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi"
GET = b"GET /v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n"
WEBSOCKET = (
    b"GET /v2/payments/a HTTP/1.1\r\nHost: g\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
)
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

HEADS = {
    "no status line": b"hello\r\n\r\n",
    "HTTP/0.9": b"<html>EVIL</html>\r\n\r\n",
    "nothing before the empty line": b"\r\n\r\n",
    "an empty line first": b"\r\n" + OK + TWO,
    "a request": b"GET / HTTP/1.1\r\nHost: EVIL\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "one bare LF": OK + b"X: y\nContent-Length: 2\r\n\r\nok",
    "bare CR": OK + b"X: y\rContent-Length: 2\r\n\r\nok",
    "CR CR LF": OK + b"X: y\r\r\n" + TWO,
    "folded": OK + b"X: a\r\n b\r\n" + TWO,
    "folded by a tab": OK + b"X: a\r\n\tb\r\n" + TWO,
    "space before colon": OK + b"Content-Length : 2\r\n\r\nok",
    "space before a name": OK + b" Content-Length: 2\r\n\r\nok",
    "no colon": OK + b"X\r\n" + TWO,
    "empty name": OK + b": x\r\n" + TWO,
    "name with a space": OK + b"X Y: z\r\n" + TWO,
    "name with NUL": OK + b"X\x00: z\r\n" + TWO,
    "name not ASCII": OK + b"\xc3\xa9: z\r\n" + TWO,
    "NUL in value": OK + b"X: a\x00b\r\n" + TWO,
    "ESC in value": OK + b"X: \x1b[2J\r\n" + TWO,
    "DEL in value": OK + b"X: \x7f\r\n" + TWO,
    "status 600": b"HTTP/1.1 600 OK\r\n" + TWO,
    "status 099": b"HTTP/1.1 099 OK\r\n" + TWO,
    "status 20": b"HTTP/1.1 20 OK\r\n" + TWO,
    "status 2000": b"HTTP/1.1 2000 OK\r\n" + TWO,
    "status -200": b"HTTP/1.1 -200 OK\r\n" + TWO,
    "status with a letter": b"HTTP/1.1 2OO OK\r\n" + TWO,
    "no status": b"HTTP/1.1\r\n" + TWO,
    "two spaces": b"HTTP/1.1  200 OK\r\n" + TWO,
    "tab": b"HTTP/1.1\t200\tOK\r\n" + TWO,
    "reason with NUL": b"HTTP/1.1 200 O\x00K\r\n" + TWO,
    "reason with CR": b"HTTP/1.1 200 O\rK\r\n" + TWO,
    "HTTP/2": b"HTTP/2 200 OK\r\n" + TWO,
    "HTTP/1.10": b"HTTP/1.10 200 OK\r\n" + TWO,
    "lower case": b"http/1.1 200 OK\r\n" + TWO,
    "HTTPS": b"HTTPS/1.1 200 OK\r\n" + TWO,
    "space first": b" HTTP/1.1 200 OK\r\n" + TWO,
    "too many fields": OK + b"X: y\r\n" * 120 + b"\r\n",
    "head too long": OK + b"X: " + b"a" * 40000 + b"\r\n\r\n",
    "head without end": OK + b"X: " + b"a" * 40000,
    "status line without end": b"HTTP/1.1 200 " + b"a" * 40000,
}  # fmt: skip

FRAMING = {
    "two CL": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "two equal CL": OK + b"Content-Length: 2\r\n" + TWO,
    "CL list": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "CL negative": OK + b"Content-Length: -2\r\n\r\nok",
    "CL plus": OK + b"Content-Length: +2\r\n\r\nok",
    "CL hexadecimal": OK + b"Content-Length: 0x2\r\n\r\nok",
    "CL empty": OK + b"Content-Length:\r\n\r\nok",
    "CL huge": OK + b"Content-Length: 99999999999999999999\r\n\r\nok",
    "CL and TE": OK + b"Content-Length: 2\r\n" + TE + b"\r\n0\r\n\r\n",
    "TE and CL": OK + TE + b"Content-Length: 2\r\n\r\n0\r\n\r\n",
    "TE gzip": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "TE gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE identity": OK + b"Transfer-Encoding: identity\r\n\r\nok",
    "TE empty": OK + b"Transfer-Encoding:\r\n\r\nok",
    "TE twice": OK + TE + TE + b"\r\n0\r\n\r\n",
    "TE xchunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE vertical tab": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\n" + TE + b"\r\n0\r\n\r\n",
    "surplus": OK + TWO + EVIL,
    "surplus of one octet": OK + TWO + b"E",
    "surplus after nothing": OK + b"Content-Length: 0\r\n\r\n" + EVIL,
    "surplus after chunks": CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + EVIL,
    "surplus after trailers": CHUNKED + b"0\r\nX: y\r\n\r\n" + EVIL,
    "body of a 204": b"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nEVIL",
    "chunks of a 204": b"HTTP/1.1 204 No\r\n" + TE + b"\r\n4\r\nEVIL\r\n0\r\n\r\n",
    "body of a 304": b"HTTP/1.1 304 No\r\nContent-Length: 4\r\n\r\nEVIL",
    "another answer after a 204": b"HTTP/1.1 204 No\r\n\r\n" + EVIL,
    "chunk size bad": CHUNKED + b"xyz\r\n",
    "chunk size signed": CHUNKED + b"+2\r\nok\r\n0\r\n\r\n",
    "chunk size prefixed": CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
    "chunk size huge": CHUNKED + b"fffffffffffffffff\r\nok",
    "chunk line bare LF": CHUNKED + b"2\nok\r\n0\r\n\r\n",
    "chunk too long": CHUNKED + b"2\r\nokEVIL\r\n0\r\n\r\n",
    "chunk without its end": CHUNKED + b"2\r\nok0\r\n\r\n",
    "chunk extension without end": CHUNKED + b"2;" + b"a" * 600,
    "trailer is none": CHUNKED + b"0\r\nX : y\r\n\r\n",
    "trailer folded": CHUNKED + b"0\r\nX: y\r\n EVIL\r\n\r\n",
    "trailers too long": CHUNKED + b"0\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
}  # fmt: skip

INTERIM = {
    "101 unasked": b"HTTP/1.1 101 Sw\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nEVIL",
    "101 for nothing": b"HTTP/1.1 101 Sw\r\n\r\nEVIL",
    "nine interim": b"HTTP/1.1 102 Processing\r\n\r\n" * 9 + OK + TWO,
    "interim for ever": b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
    "interim with a bad field": b"HTTP/1.1 102 P\r\nX : y\r\n\r\n" + OK + TWO,
    "interim, then nonsense": EARLY + b"EVIL\r\n\r\n",
}

SWITCHING = {
    "101 to another protocol": b"HTTP/1.1 101 Sw\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nEVIL",
    "101 to nothing": b"HTTP/1.1 101 Sw\r\nConnection: upgrade\r\n\r\nEVIL",
    "101 without Connection": b"HTTP/1.1 101 Sw\r\nUpgrade: websocket\r\n\r\nEVIL",
    "101 to two protocols": b"HTTP/1.1 101 Sw\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\nEVIL",
}

MALFORMED = HEADS | FRAMING | INTERIM | SWITCHING


def test_the_battery_is_large_enough() -> None:
    assert len(MALFORMED) >= 60


def first(*pieces: bytes) -> Callable[[Upstream, bytes], list[bytes]]:
    """A script: the first request is answered by *pieces*, later ones well."""
    return lambda upstream, request: list(pieces) if len(upstream.requests) == 1 else [OK + TWO]


async def final(client: Client) -> tuple[Answer, bytes]:
    """The next answer that is no interim one, and all bytes of those before it."""
    before = b""
    while (answer := await client.answer()).status < 200:
        before += answer.head
    return answer, before


async def check_that_the_next_is_answered(world: World, up: Upstream) -> None:
    """Another client gets its own answer, over another connection."""
    answer = await world.get("/v2/payments/next")
    assert (answer.status, answer.body) == (200, b"ok")
    assert len(up.connections) == 2


@pytest.mark.parametrize("name", MALFORMED)
async def test_an_upstream_that_speaks_no_http_is_a_502(name: str) -> None:
    up = await Upstream(script=first(MALFORMED[name])).start()
    async with gateway(up) as world:
        client = await world.client()
        await client.send(WEBSOCKET if name in SWITCHING else POST)
        answer, before = await final(client)
        if name in SWITCHING:  # a GET is tried again, and then answered well
            assert (answer.status, answer.body) == (200, b"ok")
        else:
            assert answer.status == 502, name
            assert answer.fields["x-callboard-error"] == "upstream-protocol"
            await until(lambda: not world.handler.pool.connections)

        assert b"EVIL" not in before + answer.head + answer.body
        await check_that_the_next_is_answered(world, up)


@pytest.mark.parametrize("name", [n for n in MALFORMED if len(MALFORMED[n]) < 200])
async def test_where_its_segments_end_makes_no_answer_of_it(name: str) -> None:
    """The same octet by octet; what was understood before they went wrong may have passed."""
    up = await Upstream(script=first(*(bytes([b]) for b in MALFORMED[name]))).start()
    async with gateway(up) as world:
        client = await world.client()
        await client.send(WEBSOCKET if name in SWITCHING else POST)
        seen = b""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                answer = await client.answer()
                seen += answer.head + answer.body
                if answer.status >= 200:
                    break

        whole = b"HTTP/1.1 200" in seen and b"ok" in seen
        assert b"EVIL" not in seen
        # An answer that is whole before its surplus comes is an answer.
        may_be = "surplus" in name or "204" in name or "304" in name or name in SWITCHING
        assert may_be or not whole or "trailer" in name, seen
        await until(lambda: not up.open or len(up.connections) > 1)


# --- what comes when nobody asked, and what does not come


async def test_a_second_answer_ends_the_connection_and_reaches_nobody() -> None:
    async with played() as (world, puppet):
        one = await asking(world)
        await puppet.asked()
        puppet.say(OK + TWO)
        assert (await one.answer()).body == b"ok"
        puppet.say(EVIL)  # nobody asked
        await until(lambda: not world.handler.pool.connections)

        two = await asking(world)
        await puppet.asked(1)
        puppet.say(OK + TWO, 1)
        assert (await two.answer()).body == b"ok"


async def test_what_came_before_a_request_was_sent_is_not_its_answer() -> None:
    """It waits in the kernel, not told by the loop yet, when the next request comes."""
    async with played() as (world, puppet):
        one = await asking(world)
        await puppet.asked()
        puppet.say(OK + TWO)
        await one.answer()
        (idle,) = world.handler.pool.connections
        idle.transport.pause_reading()  # the loop does not get to it
        puppet.say(EVIL)
        two = await asking(world)
        await puppet.asked(1)
        puppet.say(OK + TWO, 1)

        assert (await two.answer()).body == b"ok"


async def test_an_unsolicited_408_or_goodbye_costs_nobody_a_request() -> None:
    async with played() as (world, puppet):
        one = await asking(world)
        await puppet.asked()
        puppet.say(OK + TWO)
        await one.answer()
        puppet.say(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
        puppet.close()
        await until(lambda: not world.handler.pool.connections)
        two = await asking(world, POST)  # not to be repeated, so it had better not go there
        await puppet.asked(1)
        puppet.say(OK + TWO, 1)

        assert (await two.answer()).status == 200


async def test_an_answer_before_the_request_has_ended_passes_and_ends_both_connections() -> None:
    async with played() as (world, puppet):
        client = await asking(
            world, b"POST /v2/payments/a HTTP/1.1\r\nHost: g\r\nContent-Length: 100\r\n\r\nsome"
        )
        await puppet.asked()
        puppet.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        answer = await client.answer()

        assert (answer.status, answer.body) == (413, b"big")
        assert answer.fields["connection"] == "close"
        assert await puppet.is_left()
        with contextlib.suppress(ConnectionError):
            await client.send(b"x" * 96 + GET)
        assert await client.rest() == b""
        assert len(puppet.streams) == 1


async def test_a_final_answer_may_come_instead_of_100() -> None:
    async with played() as (world, puppet):
        client = await asking(
            world,
            b"PUT /v2/payments/a HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        )
        await puppet.asked()
        puppet.say(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        answer = await client.answer()

        assert (answer.status, answer.fields["connection"]) == (401, "close")
        assert await puppet.is_left()


async def test_eight_interim_answers_pass_and_the_final_one() -> None:
    async with played() as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        for _ in range(8):
            puppet.say(EARLY)
        puppet.say(OK + TWO)
        answers = [await client.answer() for _ in range(9)]

        assert [a.status for a in answers] == [103] * 8 + [200]
        assert answers[0].fields["link"] == "</x>"


async def test_a_client_of_http_1_0_gets_no_interim_answer() -> None:
    async with played() as (world, puppet):
        client = await asking(world, b"GET /v2/payments/a HTTP/1.0\r\n\r\n")
        await puppet.asked()
        puppet.say(EARLY + OK + TWO)

        assert (await client.answer()).status == 200


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 20", OK, OK + b"Content-Le"], ids=repr)
@pytest.mark.parametrize("how", [Puppet.close, Puppet.reset])
async def test_a_connection_that_ends_before_an_answer_began_is_a_502(
    said: bytes, how: Callable[[Puppet], None]
) -> None:
    async with played() as (world, puppet):
        client = await asking(world, POST)
        await puppet.asked()
        if said:
            puppet.say(said)
            await until(lambda: any(c._buffer for c in world.handler.pool.connections))
        how(puppet)
        answer = await client.answer()

        assert (answer.status, answer.fields["x-callboard-error"]) == (502, "upstream-closed")


CUT = {
    "in a length": OK + b"Content-Length: 100\r\n\r\nhalf",
    "before a chunk": CHUNKED + b"4\r\nhalf\r\n",
    "within a chunk": CHUNKED + b"9\r\nhalf",
    "within a size": CHUNKED + b"4\r\nhalf\r\n1",
    "before the last line": CHUNKED + b"4\r\nhalf\r\n0\r\n",
    "within a trailer": CHUNKED + b"4\r\nhalf\r\n0\r\nX: y",
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_an_answer_that_breaks_off_is_seen_to_be_broken(name: str, version: bytes) -> None:
    """A client of HTTP/1.0 has nothing but a reset to tell it from a whole one."""
    async with played() as (world, puppet):
        client = await asking(world, b"GET /v2/payments/ HTTP/%b\r\nHost: g\r\n\r\n" % version)
        await puppet.asked()
        puppet.say(CUT[name])
        await client.reader.readuntil(b"half")
        puppet.close()

        with pytest.raises(ConnectionResetError):
            await client.reader.readuntil(b"never")
        await until(lambda: world.counts.unanswered["none", "upstream-closed"] == 1)


async def test_a_reset_is_no_end_of_an_answer_that_only_its_connection_ends() -> None:
    async with played() as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        puppet.say(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await client.reader.readuntil(b"half")
        puppet.reset()

        with pytest.raises(ConnectionResetError):
            await client.reader.readuntil(b"never")


BAD_ENDS = {
    "chunk size": (CHUNKED + b"4\r\nhalf\r\n", b"xyz\r\n"),
    "chunk too long": (CHUNKED + b"4\r\nhalf\r\n", b"1\r\nxEVIL\r\n0\r\n\r\n"),
    "trailer": (CHUNKED + b"4\r\nhalf\r\n", b"0\r\nX : y\r\n\r\n"),
}


@pytest.mark.parametrize("name", BAD_ENDS)
async def test_an_answer_that_goes_wrong_later_is_cut_off(name: str) -> None:
    async with played() as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        began, then = BAD_ENDS[name]
        puppet.say(began)
        await client.reader.readuntil(b"half")
        puppet.say(then)

        with pytest.raises(ConnectionResetError):
            await client.reader.readuntil(b"never")
        assert b"EVIL" not in client.reader._buffer  # type: ignore[attr-defined]
        assert await puppet.is_left()


@pytest.mark.parametrize("rest", [b"ok" + EVIL, b"o", b"okE"])
async def test_more_body_than_said_ends_the_connection_and_is_dropped(rest: bytes) -> None:
    """The first octets went out before the others came: the client has its answer, whole."""
    async with played() as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        puppet.say(OK + b"Content-Length: 6\r\n\r\nhalf")
        await client.reader.readuntil(b"half")
        puppet.say(rest)
        if rest == b"o":
            puppet.say(b"k")
            assert await client.reader.readexactly(2) == b"ok"
            return
        assert await client.reader.readexactly(2) == b"ok"
        assert await puppet.is_left()
        await client.send(GET)
        await puppet.asked(1)
        puppet.say(OK + TWO, 1)
        assert (await client.answer()).body == b"ok"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nX: ", EARLY])
async def test_an_upstream_that_goes_silent_is_a_504(said: bytes) -> None:
    async with played(upstream_timeout=0.2) as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        if said:
            puppet.say(said)
        answer, _ = await final(client)

        assert (answer.status, answer.fields["x-callboard-error"]) == (504, "upstream-timeout")
        assert await puppet.is_left()


async def test_a_head_that_drips_has_no_more_time_than_one_that_does_not_come() -> None:
    async with played(upstream_timeout=0.3) as (world, puppet):
        client = await asking(world)
        await puppet.asked()

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                for octet in OK * 10:
                    puppet.say(bytes([octet]))
                    await puppet.streams[0][1].drain()
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        answer, _ = await final(client)
        await dripping

        assert answer.status == 504


async def test_an_upstream_that_goes_silent_in_mid_body_is_cut_off() -> None:
    async with played(upstream_timeout=0.2) as (world, puppet):
        client = await asking(world)
        await puppet.asked()
        puppet.say(OK + b"Content-Length: 100\r\n\r\nhalf")
        await client.reader.readuntil(b"half")

        with pytest.raises(ConnectionResetError):
            await client.reader.readexactly(1)
        await until(lambda: world.counts.unanswered["none", "upstream-timeout"] == 1)


@pytest.mark.parametrize("when", ["before the head", "within the body"])
async def test_a_cancelled_request_hands_its_answer_to_nobody(when: str) -> None:
    async with played() as (world, puppet):
        leaving = await asking(world)
        await puppet.asked()
        if when == "within the body":
            puppet.say(CHUNKED + b"4\r\nEVIL\r\n")
            await leaving.reader.readuntil(b"EVIL")
        leaving.close()
        assert await puppet.is_left()
        with contextlib.suppress(ConnectionError):
            puppet.say(EVIL)
        other = await asking(world)
        await puppet.asked(1)
        puppet.say(OK + TWO, 1)

        assert (await other.answer()).body == b"ok"


def marked(number: int) -> bytes:
    return b"GET /v2/payments/%d HTTP/1.1\r\nHost: g\r\n\r\n" % number


async def test_upstreams_that_answer_each_request_twice_confuse_nobody() -> None:
    """Surplus with the answer: a 502, and the next request takes another connection."""

    def script(upstream: Upstream, request: bytes) -> Sequence[bytes]:
        number = request.split(b" ")[1].removeprefix(b"/")
        answer = OK + b"Content-Length: %d\r\n\r\n" % len(number) + number
        return [answer] if int(number) % 3 else [answer * 2]

    up = await Upstream(script=lambda u, r: list(script(u, r))).start()
    async with gateway(up) as world:
        clients = [await world.client() for _ in range(5)]
        for number in range(60):
            client = clients[number % 5]
            await client.send(marked(number))
            answer = await client.answer()
            # What comes in one segment is a 502; in two, the first was an answer.
            assert (answer.status, answer.body) == (200, b"%d" % number) or answer.status == 502
            assert number % 3 == 0 or answer.status == 200


async def test_a_pooled_connection_is_read_from_although_its_last_client_does_not_read() -> None:
    """The answer of one who stops reading is in our hands whole: nobody else waits for that."""
    body = b"x" * (60 * 1024)
    async with played() as (world, puppet):
        stuck = await world.client()
        stuck.reader._transport.pause_reading()  # type: ignore[attr-defined]
        requests = 0
        while not any(c._outflow is not None for c in world.handler.door.clients):
            await stuck.send(GET)
            await puppet.asked()
            puppet.say(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            requests += 1
            await until(lambda: world.handler.pool.idle_count == 1)
        other = await asking(world)
        await puppet.asked()
        puppet.say(OK + TWO)

        assert (await other.answer()).body == b"ok"
        assert len(puppet.streams) == 1
        stuck.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert [len((await stuck.answer()).body) for _ in range(requests)] == [len(body)] * requests
