"""Fourth: how many answers, in what order, in how many octets."""

from collections import Counter

import dns.flags
import pytest

from tests.support.world import World


@pytest.fixture
def world() -> World:
    return World()


async def test_addresses_are_those_of_the_lowest_priority(world: World) -> None:
    """A higher number stands by until no lower one serves."""
    await world.register("db", "main", "10.0.0.1", priority=0)
    await world.register("db", "spare", "10.0.0.2", priority=10)
    assert world.addresses("db") == ["10.0.0.1"]

    await world.set_state("db", "main", "draining")
    assert world.addresses("db") == ["10.0.0.2"]


async def test_the_order_changes_and_follows_the_weights(world: World) -> None:
    """Most clients take the first: it is the heavy one about nine times in ten."""
    await world.register("web", "big", "10.0.0.1", weight=90)
    await world.register("web", "small", "10.0.0.2", weight=10)

    first = Counter(str(world.dig("web.svc.internal.").answer[0][0]) for _ in range(1000))

    assert 850 < first["10.0.0.1"] < 950


async def test_an_answer_fits_what_the_asker_takes(world: World) -> None:
    """512 octets without EDNS, at most 1,232 with it; TC says that there is more."""
    for n in range(60):
        await world.register("crowd", f"c{n}", f"10.1.0.{n}")
    name = "_http._tcp.crowd.svc.internal."

    plain, wide, whole = (
        world.dig(name, "SRV"),
        world.dig(name, "SRV", edns=4096),
        world.dig(name, "SRV", tcp=True),
    )

    assert plain.flags & dns.flags.TC
    assert len(plain.to_wire()) <= 512
    assert wide.flags & dns.flags.TC
    assert len(wide.to_wire()) <= 1232
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 60


async def test_the_ttl_is_a_quarter_of_the_lease_at_most(world: World) -> None:
    """So no cache outlives a lease by much."""
    await world.register("quick", "q1", lease_ttl=8)
    await world.register("usual", "u1", lease_ttl=60)

    assert world.dig("quick.svc.internal.").answer[0].ttl == 2
    assert world.dig("usual.svc.internal.").answer[0].ttl == 5


async def test_every_change_raises_the_serial(world: World) -> None:
    """The serial is the revision: dig, HTTP and the event feed speak of one number."""
    await world.register("orders", "ord-1")
    before = world.dig("svc.internal.", "SOA").answer[0][0].serial

    await world.register("payments", "pay-1")

    assert world.dig("svc.internal.", "SOA").answer[0][0].serial == before + 1
