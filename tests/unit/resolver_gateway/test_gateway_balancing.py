"""Which instance: the four algorithms, and what each promises."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver_gateway.balancer import (
    Algorithm,
    Balance,
    Ballot,
    Upstream,
    choose,
    hash_of,
    parse_balance,
    upstream,
)
from resolver_gateway.cache import Fresh, SrvCache
from resolver_gateway.routing import Router
from resolver_gateway.rules import Rule, Rules
from resolver_gateway.srv import Resolution
from tests.support.http import Upstream as Server
from tests.support.http import World, gateway
from tests.support.waiting import until

WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=8)


def ups(*weights: int) -> tuple[Upstream, ...]:
    return tuple(upstream("s", f"i{n}", f"10.0.0.{n + 1}", 80, 0, w) for n, w in enumerate(weights))


def seeded(seed: int = 7) -> random.Random:
    return random.Random(seed)


# --- round robin


@given(WEIGHTS, st.integers(0, 1000))
def test_in_turn_each_comes_as_often_as_its_weight_says(weights: list[int], seed: int) -> None:
    """After any number of picks nobody is off its share by more than one turn and its start."""
    ballot, rng = Ballot(ups(*weights)), seeded(seed)
    total, counted = sum(weights), Counter[str]()
    for picks in range(1, 3 * total + 1):
        counted[ballot.next(rng.random).instance] += 1
        for n, weight in enumerate(weights):
            assert abs(counted[f"i{n}"] - picks * weight / total) < len(weights) + 1


def test_turns_are_spread_and_not_in_bursts() -> None:
    ballot, rng = Ballot(ups(3, 1)), seeded()
    picked = "".join(ballot.next(rng.random).instance[1] for _ in range(40))

    assert "0000" not in picked
    assert "11" not in picked
    assert picked.count("1") == 10


def test_two_gateways_do_not_begin_with_the_same_instance() -> None:
    firsts = {Ballot(ups(1, 1, 1, 1)).next(seeded(n).random).instance for n in range(40)}

    assert len(firsts) == 4


def test_whose_turn_it_is_goes_on_when_the_same_instances_are_answered_again() -> None:
    """Else each renewal would begin anew, and with one request a TTL it would be chance."""
    cache = SrvCache(60)
    cache.store("s", Resolution(ups(1, 1), 5.0), 0.0, 0.0)
    before = cache.known("s")
    assert before is not None
    first = before.ballot.next(seeded().random)

    cache.store("s", Resolution(ups(1, 1), 5.0), 4.5, 0.0)
    found = cache.lookup("s", 4.6)

    assert isinstance(found, Fresh)
    assert found.resolution.ballot.next(seeded().random) != first


# --- least requests


def test_the_less_busy_of_two_is_chosen() -> None:
    ballot, rng = Ballot(ups(1, 1, 1)), seeded()
    load = {u.key: n for n, u in enumerate(ups(1, 1, 1))}

    counted = Counter(ballot.least(load, rng.random).instance for _ in range(3000))

    assert counted["i2"] == 0  # it is the busier one of any two
    assert counted["i0"] == pytest.approx(2000, rel=0.1)


def test_a_heavier_instance_may_have_more_to_do() -> None:
    ballot, rng = Ballot(ups(1, 10)), seeded()
    load = {ups(1, 10)[1].key: 5}

    assert {ballot.least(load, rng.random).instance for _ in range(50)} == {"i1"}


@given(st.integers(2, 12), st.integers(0, 1000))
def test_requests_that_never_end_are_spread_evenly(size: int, seed: int) -> None:
    """Two choices: the fullest has a few more than the emptiest, however many there are."""
    ballot, rng, load = Ballot(ups(*[1] * size)), seeded(seed), Counter[str]()
    for _ in range(size * 40):
        load[ballot.least(load, rng.random).key] += 1

    assert max(load.values()) - min(load.values()) <= 12


# --- hashing

KEYS = [f"client-{n}".encode() for n in range(4000)]


def placed(upstreams: Sequence[Upstream]) -> dict[bytes, str]:
    ballot = Ballot(upstreams)
    return {key: ballot.nearest(hash_of(key)).instance for key in KEYS}


def test_keys_are_spread_by_weight() -> None:
    counted = Counter(placed(ups(10, 20, 10)).values())

    assert counted["i1"] == pytest.approx(2000, rel=0.1)
    assert counted["i0"] == pytest.approx(1000, rel=0.15)


def test_who_leaves_takes_only_its_own_keys_and_gets_them_back() -> None:
    whole, without = placed(ups(1, 1, 1, 1)), placed(ups(1, 1, 1, 1)[:3])

    moved = {key for key in KEYS if whole[key] != without[key]}
    assert moved == {key for key in KEYS if whole[key] == "i3"}
    assert placed(ups(1, 1, 1, 1)) == whole


def test_the_same_key_has_the_same_place_in_every_process() -> None:
    """Numbers that were written down once: a change would move every client at an upgrade."""
    assert hash_of(b"client-1") == 0xF1F40A5A24A152
    assert [placed(ups(1, 1, 1))[key] for key in KEYS[:6]] == ["i1", "i0", "i1", "i1", "i2", "i1"]


def test_weight_0_gets_next_to_nothing_beside_others_and_its_share_alone() -> None:
    beside, alone = Counter(placed(ups(0, 100)).values()), Counter(placed(ups(0, 0)).values())

    assert beside["i0"] < 10
    assert alone["i0"] == pytest.approx(2000, rel=0.1)


def test_without_a_key_it_is_chance() -> None:
    rng = seeded()
    balance = Balance(Algorithm.HASH, b"x-user")
    picked = {choose(Ballot(ups(1, 1)), balance, rng.random, {}, None).instance for _ in range(40)}

    assert picked == {"i0", "i1"}


# --- how it is written


@pytest.mark.parametrize(
    "text",
    ["weighted-random", "round-robin", "least-requests", "hash-client", "hash-header:x-user"],
)
def test_every_algorithm_can_be_written(text: str) -> None:
    assert str(parse_balance(text)) == text


@pytest.mark.parametrize("text", ["random", "hash", "hash-header:", "hash-client:x", "", "Hash"])
def test_what_is_no_algorithm_is_answered_with_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="least-requests"):
        parse_balance(text)


# --- through the gateway


async def answered(world: World, times: int, *lines: str) -> list[bytes]:
    return [(await world.get("/v2/payments/", *lines)).body for _ in range(times)]


def routed_by(text: str) -> Router:
    return Router(Rules(Rule(balance=parse_balance(text))))


async def test_requests_go_round() -> None:
    servers = [await Server(name).start() for name in ("a", "b", "c")]
    async with gateway(*servers, router=routed_by("round-robin")) as world:
        got = await answered(world, 9)

        assert got[:3] == got[3:6] == got[6:]
        assert sorted(got[:3]) == [b"a", b"b", b"c"]


async def test_a_client_stays_with_its_instance_and_a_header_with_its_own() -> None:
    servers = [await Server(name).start() for name in ("a", "b", "c")]
    async with gateway(*servers, router=routed_by("hash-client")) as world:
        assert len(set(await answered(world, 8))) == 1
    servers = [await Server(name).start() for name in ("a", "b", "c")]
    async with gateway(*servers, router=routed_by("hash-header:X-User")) as world:
        by_user = [await answered(world, 3, f"X-User: {n}") for n in range(12)]

        assert all(len(set(bodies)) == 1 for bodies in by_user)
        assert len({bodies[0] for bodies in by_user}) > 1


async def test_an_instance_that_is_busy_gets_no_further_request() -> None:
    busy, free = await Server("busy", lambda u, r: []).start(), await Server("free").start()
    async with gateway(busy, free, router=routed_by("least-requests")) as world:
        waiting = [await world.client() for _ in range(20)]
        for client in waiting:
            if busy.requests:
                break
            await client.send(b"GET /v2/payments/ HTTP/1.1\r\nHost: g\r\n\r\n")
            await until(lambda: busy.requests or free.requests)
        await until(lambda: busy.requests)

        assert await answered(world, 10) == [b"free"] * 10
        for client in waiting:
            client.close()
        await until(lambda: not world.handler.attempts._load)
