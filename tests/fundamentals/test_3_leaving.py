"""Third: what leaves is gone, and stays gone."""

import pytest

from registry.errors import LeaseSuperseded
from tests.support.world import World, outcome


@pytest.fixture
def world() -> World:
    return World()


async def test_deregistering_leaves_at_once(world: World) -> None:
    await world.register("payments", "pay-1", "10.0.0.7")
    await world.register("payments", "pay-2", "10.0.0.8")

    await world.deregister("payments", "pay-1")

    assert world.addresses("payments") == ["10.0.0.8"]


async def test_a_late_heartbeat_revives_nobody(world: World) -> None:
    await world.register("payments", "pay-1")
    await world.deregister("payments", "pay-1")

    assert not await world.renew("payments", "pay-1")
    assert world.addresses("payments") == []


async def test_a_delayed_registration_of_an_older_start_is_refused(world: World) -> None:
    """The generation is the sidecar's start: what left cannot be revived by what came before."""
    await world.register("payments", "pay-1", generation=20)
    await world.deregister("payments", "pay-1")

    with pytest.raises(LeaseSuperseded):
        await world.register("payments", "pay-1", generation=10)
    await world.register("payments", "pay-1", generation=30)

    assert world.addresses("payments") == ["10.0.0.1"]


async def test_a_drained_instance_leaves_dns_and_stays_listed(world: World) -> None:
    await world.register("payments", "pay-1")

    await world.set_state("payments", "pay-1", "draining")

    assert world.addresses("payments") == []
    assert world.catalog.instances("payments")["pay-1"].state == "draining"


async def test_a_drain_survives_a_registration(world: World) -> None:
    """An operator's decision is not undone by a sidecar that restarts."""
    await world.register("payments", "pay-1", "10.0.0.7")
    await world.set_state("payments", "pay-1", "maintenance")

    await world.register("payments", "pay-1", "10.0.0.8")

    assert world.catalog.instances("payments")["pay-1"].state == "maintenance"


async def test_an_emptied_service_is_known_for_two_leases(world: World) -> None:
    """NXDOMAIN at once would have resolvers forget the name while it merely restarts."""
    await world.register("payments", "pay-1", lease_ttl=15)
    await world.deregister("payments", "pay-1")

    assert outcome(world.dig("payments.svc.internal.")) == "NODATA"
    await world.advance(30)
    assert outcome(world.dig("payments.svc.internal.")) == "NXDOMAIN"


async def test_half_a_service_may_leave_at_once_but_not_more(world: World) -> None:
    """More than half silent at one time is rather a network's fault than theirs."""
    for n in range(4):
        await world.register("payments", f"pay-{n}", f"10.0.0.{n}", lease_ttl=15)

    done = await world.advance(25)

    assert (len(done.evicted), len(done.suspects)) == (2, 2)
    assert len(world.addresses("payments")) == 2


async def test_suspects_leave_after_five_minutes(world: World) -> None:
    for n in range(4):
        await world.register("payments", f"pay-{n}", f"10.0.0.{n}", lease_ttl=15)
    await world.advance(25)

    await world.advance(300)

    assert world.addresses("payments") == []
