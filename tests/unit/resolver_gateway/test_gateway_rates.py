"""How often, and how many at once: rates, the gate of a service, and what is told who must wait."""

import asyncio
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver_gateway.clients import address_of, limited_as
from resolver_gateway.gate import Entry, Gate
from resolver_gateway.gcra import Rates
from resolver_gateway.limiter import default_burst
from resolver_gateway.routing import Router
from resolver_gateway.rules import Rule, Rules
from tests.support.http import OK, Upstream, gateway
from tests.support.waiting import until

# --- GCRA


def test_a_burst_is_allowed_then_one_an_interval() -> None:
    rates = Rates(rate=2.0, burst=3)
    assert [rates.take("a", 10.0) for _ in range(3)] == [0.0] * 3

    assert rates.take("a", 10.0) == pytest.approx(0.5)
    assert rates.take("a", 10.4) == pytest.approx(0.1)
    assert rates.take("a", 10.5) == 0.0
    assert rates.take("b", 10.5) == 0.0  # another one's are its own


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_no_window_has_more_than_its_rate_and_one_burst(
    rate: float, burst: int, waits: list[float]
) -> None:
    rates, now, taken = Rates(rate, burst), 0.0, []
    for wait in waits:
        now += wait
        if rates.take("a", now) == 0.0:
            taken.append(now)
    for i, start in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= burst + rate * (taken[j] - start) + 1e-3


@given(st.floats(0.1, 100), st.integers(1, 20), st.integers(0, 60))
def test_who_waits_as_told_is_allowed_and_being_refused_costs_nothing(
    rate: float, burst: int, refused: int
) -> None:
    rates = Rates(rate, burst)
    for _ in range(burst):
        rates.take("a", 5.0)
    told = [rates.take("a", 5.0) for _ in range(refused + 1)]

    assert all(wait == told[0] > 0 for wait in told)
    assert rates.take("a", 5.0 + told[0]) == 0.0


def test_the_table_is_bounded_and_forgets_those_that_asked_longest_ago() -> None:
    rates = Rates(rate=1.0, burst=1, capacity=10)
    for n in range(1000):
        rates.take(str(n), 0.0)

    assert len(rates) <= 20
    assert rates.take("999", 0.5) == pytest.approx(0.5)
    rates.forget_idle(0.5)
    assert 0 < len(rates) <= 20
    rates.forget_idle(1.0)
    assert len(rates) == 0


@pytest.mark.parametrize(("rate", "burst"), [(0.1, 1), (0.6, 2), (10, 20), (1.5, 3)])
def test_a_burst_that_nobody_sets_is_two_seconds_worth(rate: float, burst: int) -> None:
    assert default_burst(rate) == burst


# --- the gate


def test_who_comes_first_goes_first_and_nobody_waits_beyond_the_room() -> None:
    gate: Gate[str] = Gate(limit=2, room=2, patience=1.0)
    entries = [gate.enter(who, 0.0) for who in "abcde"]

    assert entries == [Entry.ENTERED] * 2 + [Entry.WAITING] * 2 + [Entry.FULL]
    assert gate.leave() == "c"
    assert gate.give_up("d")
    assert not gate.give_up("d")
    assert gate.leave() is None
    assert gate.leave() is None
    assert gate.inside == 0


def test_patience_ends() -> None:
    gate: Gate[str] = Gate(limit=1, room=5, patience=1.0)
    for n, who in enumerate("abc"):
        gate.enter(who, n / 2)

    assert gate.overdue(1.4) == []
    assert gate.overdue(1.5) == ["b"]
    assert gate.waiting == 1


@given(
    st.integers(1, 4),
    st.integers(0, 4),
    st.lists(st.sampled_from(["enter", "leave", "give up", "time"]), max_size=80),
)
def test_a_gate_never_holds_more_than_it_may_and_loses_nobody(
    limit: int, room: int, steps: list[str]
) -> None:
    gate: Gate[int] = Gate(limit, room, patience=1.0)
    inside: set[int] = set()
    waiting: list[int] = []
    now = 0.0
    for who, step in enumerate(steps):
        now += 0.3
        if step == "enter":
            entry = gate.enter(who, now)
            if entry is Entry.ENTERED:
                inside.add(who)
            elif entry is Entry.WAITING:
                waiting.append(who)
        elif step == "leave" and inside:
            inside.pop()
            following = gate.leave()
            assert following == (waiting.pop(0) if waiting else None)
            inside |= {following} if following is not None else set()
        elif step == "give up" and waiting:
            assert gate.give_up(waiting.pop())
        elif step == "time":
            for late in gate.overdue(now):
                waiting.remove(late)
        assert gate.inside == len(inside) <= limit
        assert gate.waiting == len(waiting) <= room
        assert not waiting or len(inside) == limit


# --- whose


PROXIES = [ipaddress.ip_network("10.0.0.0/8")]


@pytest.mark.parametrize(
    ("seen", "address"),
    [
        ([], "10.0.0.1"),
        ([b"192.0.2.7"], "192.0.2.7"),
        ([b"198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        ([b"198.51.100.1, 192.0.2.7, 10.0.0.9"], "192.0.2.7"),
        ([b"198.51.100.1", b"192.0.2.7"], "192.0.2.7"),
        ([b"198.51.100.1, not-an-address"], "10.0.0.1"),
        ([b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ([b"[2001:db8::1]:4711"], "2001:db8::1"),
        ([b"192.0.2.7:4711"], "192.0.2.7"),
        ([b"::ffff:192.0.2.7"], "192.0.2.7"),
    ],
)
def test_a_client_is_who_the_last_of_our_proxies_saw(seen: list[bytes], address: str) -> None:
    """What stands before that was said by strangers: it must not buy anyone a rate of his own."""
    assert address_of("10.0.0.1", seen, PROXIES) == address


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_ipv6_is_counted_by_what_one_subscriber_has(address: str, counted: str) -> None:
    assert limited_as(address) == counted


# --- through the gateway


def ruled(**said: object) -> Router:
    return Router(Rules(Rule(), {"payments": Rule(**said)}))  # type: ignore[arg-type]


async def test_a_client_that_asks_too_often_is_told_when_it_may() -> None:
    up = await Upstream().start()
    async with gateway(up, client_rates=Rates(rate=0.5, burst=3)) as world:
        answers = [await world.get("/v2/payments/") for _ in range(4)]

        assert [a.status for a in answers] == [200, 200, 200, 429]
        assert answers[3].fields["x-callboard-error"] == "client-rate"
        assert answers[3].fields["retry-after"] == "2"
        assert b"at most 0.5 requests a second from one client" in answers[3].body
        assert (await world.get("/gateway/status")).status == 200  # our own pages are not counted
        world.clock.shift += 2.1
        assert (await world.get("/v2/payments/")).status == 200


async def test_behind_a_trusted_proxy_every_client_has_its_own_rate() -> None:
    trusted = (ipaddress.ip_network("127.0.0.0/8"),)
    up = await Upstream().start()
    async with gateway(up, client_rates=Rates(0.5, 1), trusted=trusted) as world:
        statuses = [
            (await world.get("/v2/payments/", f"X-Forwarded-For: {who}")).status
            for who in ("192.0.2.1", "192.0.2.2", "192.0.2.1")
        ]

        assert statuses == [200, 200, 429]


async def test_a_service_has_a_rate_and_so_has_a_client_of_it() -> None:
    up = await Upstream().start()
    async with gateway(up, router=ruled(rate=0.5, burst=2)) as world:
        world.dns.instances["other"] = [up.record]
        answers = [await world.get("/v2/payments/") for _ in range(3)]

        assert [a.status for a in answers] == [200, 200, 503]
        assert answers[2].fields["x-callboard-error"] == "service-rate"
        assert (await world.get("/v2/other/")).status == 200
    up = await Upstream().start()
    async with gateway(up, router=ruled(client_rate=1.0, client_burst=1)) as world:
        answers = [await world.get("/v2/payments/") for _ in range(2)]

        assert [a.status for a in answers] == [200, 429]


async def holding() -> Upstream:
    """An upstream that answers when it is let."""
    return await Upstream(script=lambda u, r: []).start()


def let_go(upstream: Upstream) -> None:
    (writer,) = upstream._writers
    writer.write(OK)


async def test_what_a_service_cannot_take_waits_then_goes_in_order_or_is_told() -> None:
    up = await holding()
    async with gateway(up, router=ruled(max_requests=1, queue=2)) as world:

        def here() -> int:
            return len(up.requests) + world.handler.limiter.waiting

        gets = []
        for n in range(3):
            gets.append(asyncio.ensure_future(world.get(f"/v2/payments/{n}")))
            await until(lambda: here() == len(gets))
        full = await world.get("/v2/payments/3")
        assert (full.status, full.fields["x-callboard-error"]) == (503, "overloaded")
        assert full.fields["retry-after"] == "1"

        for get in gets:
            await until(lambda: len(up.requests) + world.handler.limiter.waiting == 3)
            let_go(up)
            assert (await get).status == 200
        paths = [request.split(b" ")[1] for request in up.requests]
        assert paths == [b"/0", b"/1", b"/2"]
        assert world.handler.limiter.gates["payments"].inside == 0


async def test_patience_ends_and_who_leaves_makes_room() -> None:
    up = await holding()
    router = ruled(max_requests=1, queue=2, queue_timeout=5.0)
    async with gateway(up, router=router, upstream_timeout=60.0) as world:
        limiter = world.handler.limiter
        first = asyncio.ensure_future(world.get("/v2/payments/first"))
        await until(lambda: up.requests)
        leaving = await world.client()
        await leaving.send(b"GET /v2/payments/leaving HTTP/1.1\r\nHost: g\r\n\r\n")
        await until(lambda: limiter.waiting == 1)
        late = asyncio.ensure_future(world.get("/v2/payments/late"))
        await until(lambda: limiter.waiting == 2)
        leaving.close()
        await until(lambda: limiter.waiting == 1)

        world.clock.shift += 5.1
        answer = await late
        assert (answer.status, answer.fields["x-callboard-error"]) == (503, "queue-timeout")
        let_go(up)
        assert (await first).status == 200
        await until(lambda: limiter.gates["payments"].inside == 0)


async def test_many_that_fail_at_once_do_not_call_each_other_down_the_stack() -> None:
    """Each one that ends lets the next one in; a hundred that find no instance end at once."""
    up = await holding()
    async with gateway(up, router=ruled(max_requests=1, queue=2000, queue_timeout=60.0)) as world:
        first = await world.client()
        await first.send(b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n")
        await until(lambda: up.requests)
        clients = [await world.client() for _ in range(300)]
        for client in clients:
            await client.send(b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n")
        await until(lambda: world.handler.limiter.waiting == 300)
        world.dns.instances["payments"] = []
        world.clock.shift += 6
        first.close()

        answers = [await client.answer() for client in clients]
        assert {a.status for a in answers} == {503}
        assert {a.fields["x-callboard-error"] for a in answers} == {"no-instances"}
