"""Second: a lease lasts as long as somebody renews it."""

import pytest

from registry.lease import GRACE_MS, is_expired
from tests.support.world import World


@pytest.fixture
def world() -> World:
    return World()


def test_a_lease_ends_one_ttl_after_its_last_renewal_and_the_grace_once() -> None:
    """A known registry added the ttl twice; here it is added in one place."""
    renewed, ttl = 100_000, 15_000

    assert not is_expired(renewed + ttl, now_ms=renewed + ttl + GRACE_MS - 1)
    assert is_expired(renewed + ttl, now_ms=renewed + ttl + GRACE_MS)


async def test_heartbeats_keep_an_instance(world: World) -> None:
    await world.register("payments", "pay-1", lease_ttl=15)

    for _ in range(10):
        await world.advance(10)
        assert await world.renew("payments", "pay-1")

    assert world.addresses("payments") == ["10.0.0.1"]


async def test_a_heartbeat_is_no_change(world: World) -> None:
    """Ten thousand instances renewing cost readers nothing."""
    await world.register("payments", "pay-1")
    revision = world.catalog.revision

    await world.renew("payments", "pay-1")

    assert world.catalog.revision == revision


async def test_silence_ends_the_lease_after_its_grace(world: World) -> None:
    await world.register("payments", "pay-1", lease_ttl=15)

    await world.advance(19)
    assert world.addresses("payments") == ["10.0.0.1"]

    await world.advance(1)
    assert world.addresses("payments") == []


async def test_who_was_evicted_is_told_to_register_again(world: World) -> None:
    """404 is the one answer that says so; nothing else proves a lost lease."""
    await world.register("payments", "pay-1", lease_ttl=15)
    await world.advance(20)

    assert not await world.renew("payments", "pay-1")


async def test_an_instance_without_lease_stays(world: World) -> None:
    await world.register("router", "r1", lease_ttl=0)

    await world.advance(7200)

    assert world.addresses("router") == ["10.0.0.1"]


async def test_an_outage_removes_nobody(world: World) -> None:
    """Time in which nobody could renew does not count against a lease."""
    await world.register("payments", "pay-1", lease_ttl=15)
    await world.advance(5)

    await world.outage(600)
    assert world.addresses("payments") == ["10.0.0.1"]
    assert await world.renew("payments", "pay-1")


async def test_a_dead_instance_leaves_after_the_outage(world: World) -> None:
    """70 s later: the longest that a living one may need to come back."""
    await world.register("payments", "pay-1", lease_ttl=15)
    await world.advance(5)
    await world.outage(600)

    await world.advance(69)
    assert world.addresses("payments") == ["10.0.0.1"]

    await world.advance(1)
    assert world.addresses("payments") == []
