"""Following DNS: what is asked, what is believed, and what happens when nobody answers."""

import asyncio
import struct

import pytest

from registry.runtime.config import HostPort
from resolver_gateway import srv
from resolver_gateway.dnsclient import DnsClient
from resolver_gateway.door import Limits
from resolver_gateway.fallback import Policy
from resolver_gateway.srv import Absent, Failed, Resolution
from tests.support.http import OK, ZONE, DnsStub, ShiftedClock, Upstream, answering, gateway
from tests.support.waiting import until

NAME = srv.srv_name("payments", ZONE)


async def asking(stub: DnsStub, *more: HostPort) -> DnsClient:
    address = await stub.start()
    return DnsClient([*more, address], ZONE, ShiftedClock())


def one(stub: DnsStub) -> DnsStub:
    stub.instances["payments"] = [("p1", "10.0.0.1", 8080, 0, 100)]
    return stub


async def test_every_query_has_its_own_port_and_mixed_case() -> None:
    stub = one(DnsStub())
    seen: list[bytes] = []

    def keep(query: bytes, answer: bytes) -> list[bytes]:
        seen.append(query[12:40])
        return [answer]

    stub.twist = keep
    client = await asking(stub)
    for _ in range(8):
        assert isinstance(await client.query_srv("payments"), Resolution)
    stub.stop()

    assert len(stub.ports) == 8
    assert len(set(seen)) > 1
    assert client.outcomes == {"answered": 8}


def forged(query: bytes, answer: bytes) -> list[bytes]:
    """Everything that a stranger may send first: wrong id, case, question, truth, length."""
    other_id = struct.pack("!H", struct.unpack_from("!H", query)[0] ^ 1) + answer[2:]
    return [
        b"",
        b"\0",
        query,
        other_id,
        answer[:12] + answer[12:].swapcase(),
        answer[:20],
        answer[:4] + b"\0\2" + answer[6:],
        answer,
    ]


async def test_forged_and_broken_packets_do_not_end_the_wait() -> None:
    stub = one(DnsStub(twist=forged))
    client = await asking(stub)

    found = await client.query_srv("payments")
    stub.stop()

    assert isinstance(found, Resolution)
    assert client.outcomes["ignored"] >= 5
    assert client.outcomes["timeout"] == 0


async def test_a_truncated_answer_is_asked_for_over_tcp() -> None:
    stub = one(DnsStub(truncate=True))
    client = await asking(stub)

    assert isinstance(await client.query_srv("payments"), Resolution)
    stub.stop()
    assert stub.over_tcp == 1
    assert client.outcomes == {"truncated": 1, "answered": 1}


async def test_targets_without_glue_are_looked_up() -> None:
    stub = DnsStub(glue=False)
    stub.instances["payments"] = [("p1", "10.0.0.1", 1, 0, 1), ("p2", "fd00::2", 2, 0, 1)]
    client = await asking(stub)

    found = await client.query_srv("payments")
    stub.stop()

    assert isinstance(found, Resolution)
    assert [u.where for u in found.upstreams] == ["10.0.0.1:1", "[fd00::2]:2"]
    assert (f"p1.payments.{ZONE}", "A") in stub.asked


async def test_another_server_is_asked_when_one_is_silent_refuses_or_fails() -> None:
    silent, failing, good = DnsStub(silent=True), DnsStub(rcode=2), one(DnsStub())
    servers = [await silent.start(), HostPort("127.0.0.1", 1), await failing.start()]
    client = await asking(good, *servers)

    assert isinstance(await client.query_srv("payments"), Resolution)
    assert isinstance(await client.query_srv("payments"), Resolution)
    for stub in (silent, failing, good):
        stub.stop()
    assert len(silent.asked) == 1  # the one that answered is asked first from then on


async def test_a_server_that_fails_is_no_absence() -> None:
    stub = DnsStub(rcode=2)
    client = await asking(stub)

    assert await client.query_srv("payments") == Failed("SERVFAIL")
    stub.stop()


async def test_absences_are_told_apart() -> None:
    stub = DnsStub()
    stub.instances["payments"] = []
    client = await asking(stub)

    assert await client.query_srv("payments") == Absent(True, 5.0)
    assert await client.query_srv("nobody") == Absent(False, 5.0)
    stub.stop()


async def test_what_an_instance_says_of_itself_in_txt() -> None:
    """A TXT record that is not there says nothing."""
    stub = one(DnsStub())
    client = await asking(stub)
    found = await client.query_srv("payments")
    assert isinstance(found, Resolution)

    assert await client.query_text(found.upstreams[0]) == {}
    stub.stop()


# --- through the gateway


async def test_unknown_is_404_known_and_empty_503_discovery_away_503() -> None:
    async with gateway(dns=DnsStub()) as world:
        world.dns.instances["empty"] = []
        unknown = await world.get("/v2/none_such/")
        empty = await world.get("/v2/empty/")
        world.dns.rcode = 5
        away = await world.get("/v2/other/")

        assert (unknown.status, unknown.fields["x-callboard-error"]) == (404, "unknown-service")
        assert (empty.status, empty.fields["x-callboard-error"]) == (503, "no-instances")
        assert 1 <= int(empty.fields["retry-after"]) <= 5
        assert (away.status, away.fields["x-callboard-error"]) == (503, "discovery-unavailable")
        assert away.fields["content-type"] == "application/problem+json"


async def test_many_requests_at_once_ask_once() -> None:
    async with gateway(await Upstream().start()) as world:
        answers = await asyncio.gather(*(world.get("/v2/payments/") for _ in range(20)))

        assert {a.status for a in answers} == {200}
        assert world.dns.asked == [(NAME, "SRV")]


async def test_an_answer_is_renewed_ahead_of_its_end_and_only_then() -> None:
    async with gateway(await Upstream().start()) as world:
        await world.get("/v2/payments/")
        world.clock.shift += 3.9
        await world.get("/v2/payments/")
        assert len(world.dns.asked) == 1

        world.clock.shift += 0.8
        assert (await world.get("/v2/payments/")).status == 200
        await until(lambda: len(world.dns.asked) == 2)


async def test_past_its_ttl_an_answer_is_not_used_while_dns_answers() -> None:
    old, new = await Upstream("old").start(), await Upstream("new").start()
    async with gateway(old, new) as world:
        world.dns.instances["payments"] = [old.record]
        assert (await world.get("/v2/payments/")).body == b"old"
        world.dns.instances["payments"] = [new.record]
        world.clock.shift += 5.1

        assert {(await world.get("/v2/payments/")).body for _ in range(5)} == {b"new"}
        await until(lambda: old.open == 0)  # its pooled connection is closed at once


async def test_while_nobody_answers_the_old_answer_goes_on_within_its_bound() -> None:
    async with gateway(await Upstream().start(), stale_bound=60) as world:
        await world.get("/v2/payments/")
        world.dns.rcode = 2
        world.clock.shift += 30

        for _ in range(3):
            assert (await world.get("/v2/payments/")).status == 200
        assert world.counts.resolutions["stale"] == 3
        world.clock.shift += 40
        assert (await world.get("/v2/payments/")).status == 503


async def test_a_service_scaled_to_nothing_and_back_comes_back() -> None:
    up = await Upstream().start()
    async with gateway(up) as world:
        await world.get("/v2/payments/")
        world.dns.instances["payments"] = []
        world.clock.shift += 6
        assert (await world.get("/v2/payments/")).status == 503
        assert len(world.dns.asked) == 3  # the emptied service was asked for once more

        world.dns.instances["payments"] = [up.record]
        world.clock.shift += 6
        assert (await world.get("/v2/payments/")).status == 200


async def test_priority_comes_first_and_the_next_one_stands_by() -> None:
    first, standby = await Upstream("first").start(), await Upstream("standby").start()
    async with gateway(first, standby) as world:
        world.dns.instances["payments"] = [
            ("first", "127.0.0.1", first.port, 0, 1),
            ("standby", "127.0.0.1", standby.port, 10, 1),
        ]
        assert {(await world.get("/v2/payments/")).body for _ in range(10)} == {b"first"}
        await first.stop()
        assert {(await world.get("/v2/payments/")).body for _ in range(10)} == {b"standby"}


# --- other instances, breaker, fallback


async def test_forty_requests_with_one_of_two_instances_refusing_are_all_answered() -> None:
    up = await Upstream("alive").start()
    async with gateway(up) as world:
        dead = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = dead.sockets[0].getsockname()[1]
        dead.close()
        world.dns.instances["payments"] = [up.record, ("dead", "127.0.0.1", port, 0, 1)]

        assert [(await world.get("/v2/payments/")).status for _ in range(40)] == [200] * 40
        assert world.counts.ejections == 1
        assert world.counts.failures["upstream-refused"] == 5


async def test_a_post_that_never_left_goes_elsewhere_and_one_that_left_does_not() -> None:
    up = await Upstream("alive").start()
    closing = await Upstream("closing", script=lambda u, r: None).start()
    post = b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi"
    async with gateway(up, closing) as world:
        world.dns.instances["payments"] = [up.record, ("dead", "127.0.0.1", 1, 0, 1)]
        assert {(await world.ask(post)).status for _ in range(8)} == {200}

        world.dns.instances["payments"] = [closing.record]
        world.clock.shift += 6
        answer = await world.ask(post)
        assert (answer.status, answer.fields["x-callboard-error"]) == (502, "upstream-closed")
        assert len(closing.requests) == 1


async def test_an_idempotent_request_is_repeated_with_its_body() -> None:
    closing = await Upstream("closing").start()
    seen = closing.requests
    closing.script = lambda u, r: None if len(seen) % 2 else [OK]
    async with gateway(closing) as world:
        answer = await world.ask(
            b"PUT /v2/payments/ HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\n"
        )

        assert answer.status == 200
        assert len(seen) == 2
        assert seen[0] == seen[1]


async def test_a_kept_connection_that_was_closed_meanwhile_costs_nobody_a_request() -> None:
    up = await Upstream().start()
    async with gateway(up) as world:
        for _ in range(3):
            assert (await world.get("/v2/payments/")).status == 200
            for writer in list(up._writers):
                writer.transport.abort()
        assert world.counts.ejections == 0


async def test_three_failures_open_the_breaker_which_says_so_and_heals() -> None:
    up = await Upstream("broken", script=lambda u, r: None).start()
    async with gateway(up) as world:
        answers = [await world.get("/v2/payments/") for _ in range(4)]

        assert [a.status for a in answers] == [502, 502, 502, 503]
        assert answers[3].fields["x-callboard-error"] == "breaker-open"
        assert int(answers[3].fields["retry-after"]) in (29, 30)
        assert b'"instance": "broken"' in answers[3].body
        up.script = answering(OK)
        world.clock.shift += 31
        assert [(await world.get("/v2/payments/")).status for _ in range(3)] == [200] * 3
        assert world.counts.breaker_opens == 1


async def test_too_slow_is_504() -> None:
    up = await Upstream(script=lambda u, r: []).start()
    async with gateway(up, upstream_timeout=0.2) as world:
        answer = await world.get("/v2/payments/")

        assert (answer.status, answer.fields["x-callboard-error"]) == (504, "upstream-timeout")


async def test_a_metadata_service_is_never_sent_to() -> None:
    async with gateway(dns=DnsStub()) as world:
        world.dns.instances["payments"] = [("evil", "169.254.169.254", 80, 0, 1)]
        answer = await world.get("/v2/payments/latest/meta-data/")

        assert (answer.status, answer.fields["x-callboard-error"]) == (502, "upstream-forbidden")


@pytest.mark.parametrize(
    ("policy", "rcode", "status"),
    [
        (Policy.PREFER_DNS, 0, 200),
        (Policy.PREFER_DNS, 5, 200),
        (Policy.ONLY_IF_ERROR, 0, 404),
        (Policy.ONLY_IF_ERROR, 5, 200),
        (Policy.NEVER, 0, 404),
        (Policy.NEVER, 5, 503),
    ],
)
async def test_the_environment_stands_in_by_policy(policy: Policy, rcode: int, status: int) -> None:
    up = await Upstream("elsewhere").start()
    environ = {"NMAP_SERVICE_URL": f"http://localhost:{up.port}/base"}
    async with gateway(up, service="other", policy=policy, environ=environ) as world:
        world.dns.rcode = rcode
        answer = await world.get("/v2/nmap_service/x?y")

        assert answer.status == status
        if status == 200:
            assert up.requests[0].startswith(b"GET /base/x?y HTTP/1.1\r\n")


async def test_dns_wins_over_the_environment() -> None:
    here, there = await Upstream("here").start(), await Upstream("there").start()
    environ = {"PAYMENTS_URL": f"http://127.0.0.1:{there.port}"}
    async with gateway(here, there, environ=environ) as world:
        world.dns.instances["payments"] = [here.record]
        assert (await world.get("/v2/payments/")).body == b"here"


# --- time-outs of clients


async def test_a_head_that_does_not_come_is_408_however_slowly_it_drips() -> None:
    async with gateway(await Upstream().start(), limits=Limits(head_timeout=0.3)) as world:
        client = await world.client()
        for octet in b"GET /v2/payments/ HTTP/1.1\r\nX: ":
            await client.send(bytes([octet]))
        await until(lambda: any(c._buffer for c in world.handler.clients))
        world.clock.shift += 0.4

        assert (await client.answer()).status == 408


async def test_a_body_that_stops_coming_is_408_and_an_idle_client_is_let_go() -> None:
    up = await Upstream().start()
    async with gateway(up, limits=Limits(body_timeout=5, idle_timeout=5)) as world:
        client = await world.client()
        await client.send(
            b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\nhalf"
        )
        await until(lambda: up.open)
        world.clock.shift += 6
        assert (await client.answer()).status == 408

        idle = await world.client()
        await idle.send(b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n")
        assert (await idle.answer()).status == 200
        world.clock.shift += 6
        assert await idle.rest() == b""
