"""First: what signs in can be found."""

import pytest

from tests.support.world import World, outcome


@pytest.fixture
def world() -> World:
    return World()


async def test_a_registered_instance_is_answered(world: World) -> None:
    """Register, then ask: there is no step between."""
    await world.register("payments", "pay-1", "10.0.0.7")

    assert world.addresses("payments") == ["10.0.0.7"]


async def test_an_srv_record_tells_the_port_and_where_it_is(world: World) -> None:
    """The target is a name of the instance's own, and its address comes along."""
    await world.register("payments", "pay-1", "10.0.0.7", 8080)

    reply = world.dig("_http._tcp.payments.svc.internal.", "SRV")

    (record,) = reply.answer[0]
    assert (record.port, str(record.target)) == (8080, "pay-1.payments.svc.internal.")
    assert str(reply.additional[0][0]) == "10.0.0.7"


async def test_a_service_has_as_many_instances_as_signed_in(world: World) -> None:
    await world.register("payments", "pay-1", "10.0.0.7")
    await world.register("payments", "pay-2", "10.0.0.8")

    assert world.addresses("payments") == ["10.0.0.7", "10.0.0.8"]


async def test_registering_the_same_again_changes_nothing(world: World) -> None:
    """A sidecar that is not sure registers again; readers notice nothing."""
    await world.register("payments", "pay-1", "10.0.0.7")
    revision = world.catalog.revision

    await world.register("payments", "pay-1", "10.0.0.7")

    assert world.catalog.revision == revision


async def test_registering_other_data_replaces_it(world: World) -> None:
    await world.register("payments", "pay-1", "10.0.0.7")

    await world.register("payments", "pay-1", "10.0.0.9")

    assert world.addresses("payments") == ["10.0.0.9"]


async def test_underscore_hyphen_and_case_are_one_name(world: World) -> None:
    """People write all three, and a look-up that fails for a hyphen helps nobody."""
    await world.register("nmap_service", "scan", "10.0.0.7")

    for spelling in ("nmap_service", "nmap-service", "NMAP_Service"):
        assert world.addresses(spelling) == ["10.0.0.7"]


async def test_a_name_nobody_registered_does_not_exist(world: World) -> None:
    """NXDOMAIN, with the SOA that says how long to remember it."""
    reply = world.dig("nobody.svc.internal.")

    assert outcome(reply) == "NXDOMAIN"
    assert reply.authority[0].ttl == 5


async def test_another_type_of_a_name_that_exists_is_no_data(world: World) -> None:
    """NXDOMAIN here would make some resolvers drop the address that exists."""
    await world.register("payments", "pay-1", "10.0.0.7")

    assert outcome(world.dig("payments.svc.internal.", "AAAA")) == "NODATA"


async def test_names_outside_the_zone_are_refused(world: World) -> None:
    """So that a resolver with several servers asks the next one."""
    assert outcome(world.dig("example.org.")) == "REFUSED"
