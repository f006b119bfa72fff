"""Who is left out, for how long, what is tried instead, and what everyone is told of it."""

import asyncio
import json
import re

import pytest

from resolver_gateway import outlier
from resolver_gateway.balancer import Upstream, upstream
from resolver_gateway.outlier import OutlierDetector
from resolver_gateway.retry import Breaker, Failure, may_retry
from resolver_gateway.routing import Router
from resolver_gateway.rules import Rule, Rules
from tests.support.http import OK, Answer, World, answering, gateway
from tests.support.http import Upstream as Server
from tests.support.waiting import until


def ups(size: int) -> tuple[Upstream, ...]:
    return tuple(upstream("s", f"i{n}", f"10.0.0.{n + 1}", 80) for n in range(size))


def eject(
    outliers: OutlierDetector, member: Upstream, now: float, of: tuple[Upstream, ...]
) -> None:
    for _ in range(outlier.FAILURES_IN_A_ROW):
        outliers.record(member, False, now, of, "upstream-refused")


# --- the window


def test_the_window_slides() -> None:
    """Ten failures at its end and ten at the beginning of the next are twenty within 10 s."""
    two, outliers = ups(2), OutlierDetector()
    for n in range(19):
        outliers.record(two[0], n % 2 == 0, 5.0 + n / 2, two)

    assert outliers.record(two[0], False, 14.5, two)


def test_what_is_older_than_the_window_does_not_count() -> None:
    two, outliers = ups(2), OutlierDetector()
    for n in range(18):
        outliers.record(two[0], n % 2 == 0, 0.0, two)

    assert not any(outliers.record(two[0], n % 2 == 0, 11.5 + n / 10, two) for n in range(10))


def test_nineteen_requests_say_nothing_and_a_third_that_fails_is_no_half() -> None:
    two, outliers = ups(2), OutlierDetector()

    assert not any(outliers.record(two[0], n % 2 == 0, 1.0, two) for n in range(19))
    assert not any(outliers.record(two[1], n % 3 != 0, 1.0, two) for n in range(90))


# --- how long


def test_one_that_fails_again_stays_out_longer_each_time_up_to_five_minutes() -> None:
    three, outliers, now, seconds = ups(3), OutlierDetector(), 1000.0, []
    for _ in range(12):
        eject(outliers, three[0], now, three)
        until = outliers.settled_until("s")
        seconds.append(round(until - now))
        now = until
        outliers.chosen(three[0], now)  # back by its probe, and at once it fails again
        outliers.record(three[0], True, now, three)

    assert seconds == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


def test_one_that_was_well_for_five_minutes_begins_anew() -> None:
    three, outliers = ups(3), OutlierDetector()
    eject(outliers, three[0], 1000.0, three)
    outliers.chosen(three[0], 1030.0)
    outliers.record(three[0], True, 1030.0, three)
    eject(outliers, three[0], 1030.0 + outlier.LONGEST_EJECTION, three)

    assert outliers.settled_until("s") == 1330.0 + outlier.FIRST_EJECTION


def test_old_requests_that_end_during_an_ejection_change_nothing() -> None:
    three, outliers = ups(3), OutlierDetector()
    eject(outliers, three[0], 0.0, three)

    assert not outliers.record(three[0], False, 1.0, three)
    outliers.record(three[0], True, 2.0, three)
    assert outliers.state_of(three[0], 29.0) == "ejected"


# --- the probe


def test_the_probe_is_left_to_a_request_that_can_be_repeated_but_not_for_ever() -> None:
    three, outliers = ups(3), OutlierDetector()
    eject(outliers, three[0], 0.0, three)

    assert outliers.state_of(three[0], 30.0) == "probing"
    assert three[0] in outliers.admit(three, 30.0)
    assert three[0] not in outliers.admit(three, 39.9, careful=True)
    assert three[0] in outliers.admit(three, 40.0, careful=True)


def test_a_probe_that_nobody_reports_is_followed_by_another() -> None:
    three, outliers = ups(3), OutlierDetector()
    eject(outliers, three[0], 0.0, three)
    assert outliers.chosen(three[0], 30.0)

    assert three[0] not in outliers.admit(three, 30.0 + outlier.PROBE_TIMEOUT - 0.1)
    assert three[0] in outliers.admit(three, 30.0 + outlier.PROBE_TIMEOUT)


def test_a_service_in_trouble_costs_the_others_nothing() -> None:
    three, outliers = ups(3), OutlierDetector()
    eject(outliers, three[0], 0.0, three)

    assert outliers.troubled == {"s"}
    outliers.forget([three[0].key])
    assert outliers.troubled == frozenset()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 10])
def test_never_more_than_half_even_when_all_fail(size: int) -> None:
    members, outliers = ups(size), OutlierDetector()
    for member in members:
        eject(outliers, member, 0.0, members)

    assert outliers.ejected_count == size // 2
    assert len(outliers.admit(members, 1.0)) == size - size // 2
    assert outliers.all_failing(members)


def test_the_breaker_has_three_states() -> None:
    breaker = Breaker()
    for _ in range(3):
        breaker.failure(0.0, nothing_left=True)

    assert (breaker.state(29.9), breaker.state(30.0)) == ("open", "half-open")
    breaker.success()
    assert breaker.state(30.0) == "closed"


# --- through the gateway


async def get(world: World, times: int = 1) -> list[Answer]:
    return [await world.get("/v2/payments/") for _ in range(times)]


async def test_an_instance_heals_by_one_request_that_costs_nobody_anything() -> None:
    sick, well = await Server("sick", lambda u, r: None).start(), await Server("well").start()
    async with gateway(sick, well) as world:
        while not world.counts.ejections:
            assert (await get(world))[0].status == 200
        before = len(sick.requests)
        assert {a.body for a in await get(world, 20)} == {b"well"}
        assert len(sick.requests) == before

        world.clock.shift += 30.1
        while not world.counts.probes:
            assert (await get(world))[0].body == b"well"  # the probe failed, and went elsewhere
        assert len(sick.requests) == before + 1
        assert {a.body for a in await get(world, 20)} == {b"well"}

        sick.script = answering(OK)
        world.clock.shift += 60.1
        while world.handler.outliers.ejected_count:
            assert (await get(world))[0].status == 200
        assert world.counts.probes == 2
        assert {a.body for a in await get(world, 30)} == {b"well", b"ok"}


async def test_a_post_is_no_probe_while_another_request_may_come() -> None:
    sick, well = await Server("sick", lambda u, r: None).start(), await Server("well").start()
    post = b"POST /v2/payments/ HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi"
    async with gateway(sick, well) as world:
        while not world.counts.ejections:
            await get(world)
        world.clock.shift += 30.1

        assert {(await world.ask(post)).body for _ in range(20)} == {b"well"}
        assert world.counts.probes == 0


async def test_a_failure_says_which_instances_are_known_and_what_each_did() -> None:
    closing = await Server("closing", lambda u, r: None).start()
    async with gateway(closing) as world:
        world.dns.instances["payments"].append(("refusing", "127.0.0.1", 1, 0, 1))
        (answer,) = await get(world)
        told = json.loads(answer.body)

        assert answer.status == 502
        assert told["request_id"] == answer.fields["x-request-id"]
        assert {(i["instance"], i["state"], i["reason"]) for i in told["instances"]} == {
            ("closing", "failing", "upstream-closed"),
            ("refusing", "failing", "upstream-refused"),
        }
        assert told["dns"]["age"] < 5
        assert 0 < told["dns"]["ttl_remaining"] <= 5


async def test_the_503_of_an_open_breaker_says_why() -> None:
    async with gateway(await Server("sick", answering(b"HTTP/1.1 503 \r\n\r\n")).start()) as world:
        closing = await Server("closing", lambda u, r: None).start()
        world.dns.instances["payments"] = [closing.record]
        answers = await get(world, 4)
        told = json.loads(answers[3].body)

        assert answers[3].fields["x-callboard-error"] == "breaker-open"
        assert [i["reason"] for i in told["instances"]] == ["upstream-closed"]
        assert told["request_id"]
        assert "dns" in told
    await closing.stop()


async def test_the_status_page_shows_ejection_breaker_budget_gate_and_discovery() -> None:
    sick, well = await Server("sick", lambda u, r: None).start(), await Server("well").start()
    router = Router(Rules(Rule(max_requests=5, queue=7)))
    async with gateway(sick, well, router=router) as world:
        while not world.counts.ejections:
            await get(world)
        page = json.loads((await world.get("/gateway/status")).body)

        states = {u["instance"]: u for u in page["upstreams"]["payments"]}
        assert states["sick"]["state"] == "ejected"
        assert 29 < states["sick"]["ejected_for"] <= 30
        assert states["sick"]["reason"] == "upstream-closed"
        assert states["well"]["state"] == "serving"
        service = page["services"]["payments"]
        assert (service["state"], service["breaker"], service["instances"]) == (
            "fresh",
            "closed",
            2,
        )
        assert service["retries"] == world.counts.retries
        assert page["limits"]["payments"] == {
            "under_way": 0, "max_requests": 5, "waiting": 0, "queue": 7,
        }  # fmt: skip
        assert page["discovery"]["state"] == "answering"
        assert page["discovery"]["servers"] == [str(world.dns.address)]
        assert page["discovery"]["queries"] == {"answered": 1}


# --- time-outs


@pytest.mark.parametrize(
    ("method", "try_timeout", "allowed"),
    [(b"GET", 1.0, True), (b"GET", 0.0, False), (b"POST", 1.0, False)],
)
def test_after_a_time_out_another_one_is_tried_only_where_a_try_has_one(
    method: bytes, try_timeout: float, allowed: bool
) -> None:
    assert allowed is may_retry(
        Failure.TIMEOUT, method, answering=False, replayable=True, try_timeout=try_timeout
    )


async def test_an_instance_that_is_too_slow_is_left_for_another_one() -> None:
    slow, quick = await Server("slow", lambda u, r: []).start(), await Server("quick").start()
    router = Router(Rules(Rule(try_timeout=2.0)))
    async with gateway(slow, quick, router=router, upstream_timeout=60.0) as world:
        world.dns.instances["payments"] = [
            ("slow", "127.0.0.1", slow.port, 0, 1),
            ("quick", "127.0.0.1", quick.port, 1, 1),
        ]
        asked = asyncio.ensure_future(world.get("/v2/payments/"))
        await until(lambda: slow.requests)
        world.clock.shift += 2.1

        assert (await asked).body == b"quick"
        assert world.counts.failures["upstream-timeout"] == 1


async def test_all_tries_together_have_an_end() -> None:
    slow = await Server("slow", lambda u, r: []).start()
    router = Router(Rules(Rule(try_timeout=2.0, request_timeout=3.0)))
    async with gateway(slow, router=router, upstream_timeout=60.0) as world:
        asked = asyncio.ensure_future(world.get("/v2/payments/"))
        for tries in (1, 2):
            await until(lambda tries=tries: len(slow.requests) == tries)  # type: ignore[misc]
            world.clock.shift += 2.1
        answer = await asked

        assert (answer.status, answer.fields["x-callboard-error"]) == (504, "upstream-timeout")
        assert len(slow.requests) == 2


async def test_a_try_time_out_does_not_cut_an_answer_that_has_begun() -> None:
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"
    slow = await Server("slow", answering(begun)).start()
    router = Router(Rules(Rule(try_timeout=2.0)))
    async with gateway(slow, router=router, upstream_timeout=60.0) as world:
        client = await world.client()
        await client.send(b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n")
        await client.reader.readuntil(b"ab")
        world.clock.shift += 30
        for _ in range(5):
            world.handler.tick(world.clock())
        next(iter(slow._writers)).write(b"cd")

        assert await client.reader.readexactly(2) == b"cd"


# --- what else is told


async def test_server_timing_says_what_went_by() -> None:
    up = await Server("one").start()
    async with gateway(up, server_timing=True) as world:
        first, second = await get(world, 2)

        number = r"[0-9]+\.[0-9]"
        assert re.fullmatch(
            f"dns;dur={number}, connect;dur={number}, upstream;dur={number}, total;dur={number}",
            first.fields["server-timing"],
        )
        assert re.fullmatch(
            f"upstream;dur={number}, total;dur={number}", second.fields["server-timing"]
        )
        assert second.body == b"one"


async def test_server_timing_is_told_to_nobody_unless_it_is_switched_on() -> None:
    async with gateway(await Server("one").start()) as world:
        assert "server-timing" not in (await get(world))[0].fields


async def test_a_trace_goes_on_as_it_came() -> None:
    lines = (
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: congo=t61rcWkgMzE",
        "baggage: userId=alice",
    )
    up = await Server("one").start()
    async with gateway(up) as world:
        await world.get("/v2/payments/", *lines)

        for line in lines:
            assert line.encode() + b"\r\n" in up.requests[0]


async def test_an_open_breaker_does_not_stand_before_instances_that_did_not_fail() -> None:
    """It opens because nothing is left; when DNS names another instance, something is."""
    closing, well = await Server("closing", lambda u, r: None).start(), await Server("well").start()
    async with gateway(closing, well) as world:
        world.dns.instances["payments"] = [closing.record]
        assert [a.status for a in await get(world, 4)] == [502, 502, 502, 503]

        world.dns.instances["payments"] = [closing.record, well.record]
        world.clock.shift += 5.1
        assert {a.status for a in await get(world, 10)} == {200}
        page = json.loads((await world.get("/gateway/status")).body)
        assert page["services"]["payments"]["breaker"] == "closed"
