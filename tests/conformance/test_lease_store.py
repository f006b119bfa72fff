"""What a lease store promises, asked of the one in memory and of the one in Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from registry.catalog import Catalog
from registry.changes import (
    InstanceDown,
    InstanceUp,
    RevisionRaised,
    ServiceForgotten,
    ServiceSettings,
)
from registry.errors import (
    LeaseNotFound,
    LeaseSuperseded,
    OwnedByAnother,
    RevisionConflict,
    StoreUnavailable,
)
from registry.lease import EPOCH_STEP, MAX_EXAMINED, MAX_UNKNOWN, UNKNOWN_WINDOW_MS
from registry.leases import LeaseStore, Renewal, Renewed, Sweep
from registry.model import Port, Registration
from registry.store import RedisStore
from tests.support.lease_worlds import NOON, MemoryWorld, RedisWorld, World, a_registration
from tests.support.store import StoreServer

SECOND = 1000


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made: World
    if request.param == "memory":
        made = MemoryWorld()
    else:
        made = RedisWorld(request.getfixturevalue("store_server"))
    yield made
    await made.close()


@pytest.fixture(params=["memory", "redis"])
async def unborn(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A store whose epoch has not begun: new, flushed, or promoted."""
    made: World
    if request.param == "memory":
        made = MemoryWorld(begun=False)
    else:
        made = RedisWorld(request.getfixturevalue("store_server"), begun=False)
    yield made
    await made.close()


WRITES: dict[str, Callable[[LeaseStore], Awaitable[object]]] = {
    "register": lambda store: store.register(a_registration(), lease_id="a"),
    "deregister": lambda store: store.deregister("payments/a"),
    "deregister a service": lambda store: store.deregister_service("payments", ["a"]),
    "set a state": lambda store: store.set_state("payments/a", "draining", ""),
    "set addresses": lambda store: store.set_found("payments/a", (), expected=1),
    "set answers": lambda store: store.set_answers("payments", 1),
    "release the guard": lambda store: store.release_guard("payments", ["a"]),
    "sweep": lambda store: store.sweep(),
}


async def sweep_until(world: World, milliseconds: int) -> Sweep:
    """Let time go by with a sweep at least every 4 s, as registrars do; all that they did."""
    evicted: list[str] = []
    suspects: list[str] = []
    forgotten: list[str] = []
    while milliseconds > 0:
        step = min(4 * SECOND, milliseconds)
        milliseconds -= step
        world.advance(step)
        swept = await world.store.sweep()
        evicted += swept.evicted
        suspects += swept.suspects
        forgotten += swept.forgotten
    return Sweep(tuple(evicted), tuple(suspects), tuple(forgotten))


async def register(world: World, *ids: str, service: str = "payments", lease_ttl: int = 60) -> None:
    for i in ids:
        await world.store.register(
            a_registration(service, i, lease_ttl=lease_ttl), lease_id=f"lease-of-{i}"
        )


async def states(world: World) -> dict[str, str]:
    snapshot = await world.store.snapshot()
    return {i.registration.key: i.state for i in snapshot.instances}


# --- granting ------------------------------------------------------------------------------


async def test_a_new_registration_is_created_at_the_next_revision(world: World) -> None:
    wanted = a_registration()

    granted = await world.store.register(wanted, lease_id="a", found=("10.0.0.9",))

    assert (granted.created, granted.changed) == (True, True)
    instance = granted.instance
    assert instance.registration == wanted
    assert (instance.revision, instance.lease_id, instance.found) == (1, "a", ("10.0.0.9",))
    assert (instance.state, instance.reason, instance.generation) == ("serving", "", 0)
    assert instance.registered_at_ms == world.now_ms()
    assert world.changes_after(0) == [InstanceUp(instance, 1, 0)]


async def test_an_instance_may_begin_in_another_state_than_serving(world: World) -> None:
    """In one change, so that nobody who follows ever sees it serve."""
    wanted, reason = a_registration(), "answered 503"

    granted = await world.store.register(wanted, lease_id="a", state="waiting", reason=reason)
    again = await world.store.register(wanted, lease_id="b", state="waiting", reason=reason)
    serving = await world.store.register(wanted, lease_id="c")

    assert granted.created
    assert (granted.instance.state, granted.instance.reason) == ("waiting", "answered 503")
    assert world.changes_after(0) == [InstanceUp(granted.instance, granted.instance.revision, 0)]
    assert (again.changed, serving.changed) == (False, False), "a state that was set stays"
    assert serving.instance == granted.instance


async def test_one_that_serves_takes_the_state_that_its_owner_registers_it_in(
    world: World,
) -> None:
    """Its sidecar was started anew and finds it ill; what an operator has set is kept."""
    first = await world.store.register(a_registration(), lease_id="a")

    ill = await world.store.register(a_registration(), lease_id="b", state="waiting", reason="x")
    assert (ill.created, ill.changed, ill.instance.state) == (False, True, "waiting")
    assert ill.instance.lease_id == first.instance.lease_id
    await world.store.set_state("payments/pay-1", "maintenance", "new disk")
    other = await world.store.register(
        a_registration(port=2), lease_id="c", state="waiting", reason="x"
    )

    assert (other.instance.state, other.instance.reason) == ("maintenance", "new disk")
    await world.store.set_state("payments/pay-1", "serving", "")
    newer = await world.store.register(
        a_registration(port=2), lease_id="d", generation=7, state="unhealthy", reason="y"
    )
    assert (newer.instance.lease_id, newer.instance.state) == ("d", "unhealthy")


async def test_the_same_registration_again_is_a_renewal_and_no_change(world: World) -> None:
    first = await world.store.register(a_registration(), lease_id="a")
    world.advance(50 * SECOND)

    again = await world.store.register(a_registration(), lease_id="b")

    assert (again.created, again.changed) == (False, False)
    assert again.instance == first.instance, "the lease and its id stay"
    assert len(world.changes_after(0)) == 1
    assert await world.lease_times(["payments/pay-1"]) == [pytest.approx(60, abs=1)]


async def test_other_data_replaces_the_registration_and_takes_the_new_lease_id(
    world: World,
) -> None:
    first = await world.store.register(a_registration(port=1), lease_id="a")
    world.advance(SECOND)

    other = await world.store.register(a_registration(port=2), lease_id="b")

    assert (other.created, other.changed) == (False, True)
    assert other.instance.registered_at_ms == first.instance.registered_at_ms
    assert (other.instance.lease_id, other.instance.revision) == ("b", 2)
    assert world.changes_after(1) == [InstanceUp(other.instance, 2, 1)]


async def test_a_service_is_listed_as_first_spelled_until_it_is_forgotten(world: World) -> None:
    await world.store.register(a_registration("nmap_service", "a"), lease_id="1")

    granted = await world.store.register(a_registration("nmap-service", "b"), lease_id="2")

    assert granted.instance.listed_as == "nmap_service"
    assert granted.instance.service == "nmap-service"
    await world.store.deregister_service("nmap-service", ["a", "b"])
    await sweep_until(world, 121 * SECOND)
    granted = await world.store.register(a_registration("nmap-service", "b"), lease_id="3")
    assert granted.instance.listed_as == "nmap-service"


async def test_an_older_generation_is_refused_and_a_newer_one_gets_its_own_lease(
    world: World,
) -> None:
    await world.store.register(a_registration(), lease_id="a", generation=5)

    with pytest.raises(LeaseSuperseded):
        await world.store.register(a_registration(), lease_id="b", generation=4)
    same = await world.store.register(a_registration(), lease_id="c", generation=5)
    newer = await world.store.register(a_registration(), lease_id="d", generation=6)

    assert same.instance.lease_id == "a"
    assert (newer.instance.lease_id, newer.instance.generation) == ("d", 6)
    assert (newer.created, newer.changed) == (False, False)
    assert await world.store.renew([Renewal("payments/pay-1", "d")]) == [Renewed(60.0)]


async def test_a_tombstone_remembers_the_generation_and_a_late_duplicate_revives_nobody(
    world: World,
) -> None:
    await world.store.register(a_registration(), lease_id="a", generation=5)
    await world.store.deregister("payments/pay-1")

    with pytest.raises(LeaseSuperseded):
        await world.store.register(a_registration(), lease_id="b", generation=4)
    assert (await world.store.snapshot()).instances == ()
    without = await world.store.register(a_registration(), lease_id="c")
    assert (without.created, without.instance.generation) == (True, 5)


async def test_a_tombstone_ends_after_two_leases(world: World) -> None:
    await world.store.register(a_registration(), lease_id="a", generation=5)
    await world.store.deregister("payments/pay-1")

    await sweep_until(world, 120 * SECOND - 1)
    assert dict((await world.store.snapshot()).dead) == {"payments/pay-1": 2}
    await sweep_until(world, 1)
    assert dict((await world.store.snapshot()).dead) == {}
    granted = await world.store.register(a_registration(), lease_id="b", generation=4)
    assert granted.instance.generation == 4


# --- renewing -------------------------------------------------------------------------------


async def test_renewals_are_answered_in_order_each_by_itself(world: World) -> None:
    await register(world, "a", "b")

    results = await world.store.renew(
        [
            Renewal("payments/a"),
            Renewal("payments/none"),
            Renewal("payments/b", "lease-of-b"),
            Renewal("payments/b", "another"),
        ]
    )

    assert results[0] == results[2] == Renewed(60.0)
    assert isinstance(results[1], LeaseNotFound)
    assert isinstance(results[3], LeaseSuperseded)
    assert await world.store.renew([]) == []


async def test_a_renewal_changes_nothing_that_readers_see(world: World) -> None:
    await register(world, "a")

    await world.store.renew([Renewal("payments/a")] * 3)

    assert len(world.changes_after(0)) == 1
    assert (await world.store.snapshot()).revision == 1


async def test_what_is_within_its_grace_can_still_be_renewed(world: World) -> None:
    await register(world, "a")
    await sweep_until(world, 65 * SECOND - 1)

    assert await world.lease_times(["payments/a"]) == [0.0]
    assert await world.store.renew([Renewal("payments/a")]) == [Renewed(60.0)]
    assert (await sweep_until(world, 65 * SECOND - 1)).evicted == ()


async def test_a_renewal_with_a_superseded_lease_id_does_not_prolong(world: World) -> None:
    await register(world, "a")
    await sweep_until(world, 40 * SECOND)
    await world.store.renew([Renewal("payments/a", "another")])

    assert (await sweep_until(world, 25 * SECOND)).evicted == ("payments/a",)


async def test_lease_times_are_seconds_never_negative_and_none_for_the_unknown(
    world: World,
) -> None:
    await register(world, "a")
    await register(world, "static", lease_ttl=0)
    keys = ["payments/a", "payments/static", "payments/none"]
    world.advance(20 * SECOND)

    assert await world.lease_times(keys) == [pytest.approx(40, abs=1), None, None]
    world.advance(43 * SECOND)
    assert await world.lease_times(keys) == [0.0, None, None]
    assert await world.lease_times([]) == []


# --- expiry ---------------------------------------------------------------------------------


async def test_a_lease_ends_once_its_ttl_and_its_grace_are_over_and_not_before(
    world: World,
) -> None:
    await register(world, "a")

    assert (await sweep_until(world, 65 * SECOND - 1)).evicted == ()
    assert (await sweep_until(world, 1)).evicted == ("payments/a",)
    assert world.changes_after(1) == [InstanceDown("payments", "a", "evicted", 2, 1)]
    assert await world.store.renew([Renewal("payments/a")]) != [Renewed(60.0)]


async def test_a_registration_without_a_lease_stays(world: World) -> None:
    await register(world, "static", lease_ttl=0)

    assert await sweep_until(world, 600 * SECOND) == Sweep()
    assert await world.store.renew([Renewal("payments/static")]) == [Renewed(0.0)]
    assert await states(world) == {"payments/static": "serving"}


async def test_a_shorter_lease_by_new_data_counts_from_then(world: World) -> None:
    await register(world, "a", lease_ttl=3600)
    await register(world, "a", lease_ttl=5)

    assert (await sweep_until(world, 10 * SECOND - 1)).evicted == ()
    assert (await sweep_until(world, 1)).evicted == ("payments/a",)


async def test_a_service_stays_known_for_two_leases_after_its_last_instance_left(
    world: World,
) -> None:
    await register(world, "a")
    await world.store.deregister("payments/a")
    snapshot = await world.store.snapshot()
    assert [i.id for i in snapshot.gone] == ["a"]

    assert (await sweep_until(world, 120 * SECOND - 1)).forgotten == ()
    assert (await sweep_until(world, 1)).forgotten == ("payments",)
    assert world.changes_after(2) == [ServiceForgotten("payments", 3, 2)]
    assert (await world.store.snapshot()).gone == ()


async def test_a_known_service_that_is_registered_again_is_not_forgotten(world: World) -> None:
    await register(world, "a")
    await world.store.deregister("payments/a")
    await register(world, "b", lease_ttl=0)

    assert await sweep_until(world, 600 * SECOND) == Sweep()
    assert (await world.store.snapshot()).gone == ()


# --- outages and guards ------------------------------------------------------------------------


async def test_time_in_which_nobody_could_renew_does_not_count(world: World) -> None:
    """Store or registrars away for an hour: everyone gets 70 s to come back."""
    await register(world, "a")
    await world.store.sweep()
    world.advance(3600 * SECOND)

    assert (await world.store.sweep()).evicted == ()
    assert (await sweep_until(world, 70 * SECOND - 1)).evicted == ()
    assert (await sweep_until(world, 1)).evicted == ("payments/a",)


async def test_a_gap_of_five_seconds_between_sweeps_is_no_outage_and_one_more_is(
    world: World,
) -> None:
    await register(world, "a")
    await world.store.sweep()
    for _ in range(13):
        world.advance(5 * SECOND)
        swept = await world.store.sweep()
    assert swept.evicted == ("payments/a",)

    await register(world, "a")
    world.advance(5 * SECOND + 1)
    await world.store.sweep()
    assert (await sweep_until(world, 65 * SECOND)).evicted == ()


async def test_a_lease_granted_after_the_outage_expires_as_usual(world: World) -> None:
    await world.store.sweep()
    world.advance(600 * SECOND)
    await world.store.sweep()
    world.advance(1)
    await register(world, "a", lease_ttl=5)

    assert (await sweep_until(world, 10 * SECOND)).evicted == ("payments/a",)


async def test_a_clock_that_steps_back_is_an_outage(world: World) -> None:
    await register(world, "a")
    await world.store.sweep()
    world.advance(-10 * SECOND)
    await world.store.sweep()

    # The deadline is 70 s away now, and the outage holds until then: no less than the lease.
    assert (await sweep_until(world, 70 * SECOND)).evicted == ()
    assert (await sweep_until(world, 5 * SECOND)).evicted == ("payments/a",)


async def test_a_store_that_was_never_swept_is_new_and_had_no_outage(world: World) -> None:
    await register(world, "a")
    world.advance(65 * SECOND)

    assert (await world.store.sweep()).evicted == ("payments/a",)


async def test_a_service_that_would_lose_more_than_half_keeps_the_rest_as_suspect(
    world: World,
) -> None:
    await register(world, "a", "b", "c", "d")

    swept = await sweep_until(world, 66 * SECOND)

    assert (swept.evicted, swept.suspects) == (
        ("payments/a", "payments/b"),
        ("payments/c", "payments/d"),
    )
    assert await states(world) == {"payments/c": "suspect", "payments/d": "suspect"}


async def test_two_instances_have_no_half_to_lose(world: World) -> None:
    await register(world, "a", "b")

    assert (await sweep_until(world, 66 * SECOND)).evicted == ("payments/a", "payments/b")


async def test_a_zone_that_would_lose_more_than_half_keeps_the_rest(world: World) -> None:
    for service in ("s1", "s2", "s3", "s4"):
        await register(world, "a", service=service)

    swept = await sweep_until(world, 66 * SECOND)

    assert (swept.evicted, swept.suspects) == (("s1/a", "s2/a"), ("s3/a", "s4/a"))


async def test_a_suspect_that_renews_serves_again(world: World) -> None:
    await register(world, "a", "b", "c", "d")
    await sweep_until(world, 66 * SECOND)
    before = (await world.store.snapshot()).revision

    await world.store.renew([Renewal("payments/c")])
    granted = await world.store.register(a_registration(instance="d"), lease_id="x")

    assert (granted.created, granted.changed, granted.instance.state) == (False, True, "serving")
    assert [c.revision for c in world.changes_after(before)] == [before + 1, before + 2]
    assert await states(world) == {"payments/c": "serving", "payments/d": "serving"}


async def test_suspicion_ends_after_five_minutes(world: World) -> None:
    await register(world, "a", "b", "c", "d")
    await sweep_until(world, 65 * SECOND)

    assert (await sweep_until(world, 300 * SECOND - 1)).evicted == ()
    assert (await sweep_until(world, 1)).evicted == ("payments/c", "payments/d")


async def test_losses_are_counted_within_one_lease(world: World) -> None:
    """One of three leaves now and then: never more than half at a time."""
    await register(world, "a", "b", "c")
    for lost in ("a", "b", "c"):
        keep = [i for i in ("a", "b", "c") if i > lost]
        evicted: list[str] = []
        for _ in range(9):
            swept = await sweep_until(world, 20 * SECOND)
            assert swept.suspects == ()
            evicted += swept.evicted
            await world.store.renew([Renewal(f"payments/{i}") for i in keep])
        assert evicted == [f"payments/{lost}"]


async def test_deregistrations_and_those_that_do_not_serve_are_no_losses(world: World) -> None:
    await register(world, "a", "b", "c", "d", "e")
    for i in ("a", "b"):
        await world.store.deregister(f"payments/{i}")
    for i in ("c", "d"):
        await world.store.set_state(f"payments/{i}", "draining", "")

    swept = await sweep_until(world, 66 * SECOND)

    assert swept.suspects == ()
    assert set(swept.evicted) == {"payments/c", "payments/d", "payments/e"}


async def test_a_sweep_evicts_no_more_than_five_hundred_the_oldest_first(world: World) -> None:
    ids = [f"i{n:03}" for n in range(502)]
    await register(world, *ids, lease_ttl=0)
    for i in ids:
        await world.store.set_state(f"payments/{i}", "draining", "")
        await world.store.register(a_registration(instance=i), lease_id="x")
        world.advance(1)
    world.advance(65 * SECOND)

    first, second = await world.store.sweep(), await world.store.sweep()

    assert first.evicted == tuple(f"payments/{i}" for i in ids[:500])
    assert second.evicted == tuple(f"payments/{i}" for i in ids[500:])


async def test_many_who_are_held_do_not_keep_those_from_leaving_who_are_not(world: World) -> None:
    """A hundred thousand after an outage: who came and died since leaves by its own lease."""
    held = [f"i{n:04}" for n in range(MAX_EXAMINED + 10)]
    await asyncio.gather(*(register(world, i) for i in held))
    await world.store.sweep()
    world.advance(300 * SECOND)
    await world.store.sweep()
    world.advance(1)
    await register(world, "new", lease_ttl=5)

    assert (await sweep_until(world, 10 * SECOND - 1)).evicted == ()
    assert (await sweep_until(world, 1)).evicted == ("payments/new",)


async def test_who_was_renewed_shortly_before_an_outage_is_held_as_long_as_the_others(
    world: World,
) -> None:
    """Its lease ends only after the outage; it could not renew it either."""
    await register(world, "a", lease_ttl=30)
    await world.store.sweep()
    world.advance(6 * SECOND)
    await world.store.sweep()

    assert (await sweep_until(world, 70 * SECOND - 1)).evicted == ()
    assert (await sweep_until(world, 1)).evicted == ("payments/a",)


async def test_a_second_outage_holds_again_whom_the_first_one_held(world: World) -> None:
    await register(world, "a", lease_ttl=5)
    await world.store.sweep()
    world.advance(6 * SECOND)
    await sweep_until(world, 60 * SECOND)
    world.advance(20 * SECOND)

    assert (await sweep_until(world, 70 * SECOND)).evicted == ()
    assert (await sweep_until(world, 4 * SECOND)).evicted == ("payments/a",)


async def test_suspicion_after_a_long_outage_lasts_as_long_as_any(world: World) -> None:
    """It once was counted from the end of the lease, and so was over when it began."""
    await register(world, "a", "b", "c", "d")
    await world.store.sweep()
    world.advance(3600 * SECOND)
    await world.store.sweep()

    swept = await sweep_until(world, 70 * SECOND)
    assert swept.suspects == ("payments/c", "payments/d")
    assert (await sweep_until(world, 300 * SECOND - 1)).evicted == ()
    assert (await sweep_until(world, 1)).evicted == ("payments/c", "payments/d")


async def test_the_lease_of_a_suspect_and_of_one_that_is_held_is_over(world: World) -> None:
    await register(world, "a", "b", "c", "d")
    await sweep_until(world, 66 * SECOND)

    assert await world.lease_times(["payments/c"]) == [0.0]


async def test_who_releases_a_guard_lets_its_suspects_go_and_none_is_held_after_it(
    world: World,
) -> None:
    await register(world, "a", "b", "c", "d")
    await register(world, "x", "y", "z", service="others")
    await register(world, *(f"e{n}" for n in range(20)), service="eternal", lease_ttl=3600)
    await sweep_until(world, 50 * SECOND)
    await world.store.renew([Renewal(f"others/{i}") for i in ("x", "y", "z")])
    await world.store.renew([Renewal("payments/d")])
    await sweep_until(world, 16 * SECOND)
    assert (await states(world))["payments/c"] == "suspect"
    before = (await world.store.snapshot()).revision

    assert await world.store.release_guard("payments", ["c", "d", "nobody"]) == (1, before + 1)

    assert [c.id for c in world.changes_after(before) if isinstance(c, InstanceDown)] == ["c"]
    swept = await sweep_until(world, 50 * SECOND)
    assert "payments/d" in swept.evicted, "its own guard holds it no more"
    assert swept.suspects == ("others/y", "others/z"), "the guards of others do"


async def test_the_guard_of_an_unknown_service_is_not_found(world: World) -> None:
    with pytest.raises(LeaseNotFound):
        await world.store.release_guard("nobody", [])


# --- leaving --------------------------------------------------------------------------------------


async def test_deregistering_tells_whether_it_was_there_and_at_which_revision_it_left(
    world: World,
) -> None:
    await register(world, "a")

    assert await world.store.deregister("payments/a") == (True, 2)
    assert await world.store.deregister("payments/a") == (False, 2)
    assert world.changes_after(1) == [InstanceDown("payments", "a", "deregistered", 2, 1)]


async def test_who_is_not_known_is_said_to_have_left_all_the_same(world: World) -> None:
    """After a flush a reader may hold somebody of whom the store knows nothing."""
    assert await world.store.deregister("payments/a") == (False, 1)
    assert world.changes_after(0) == [InstanceDown("payments", "a", "deregistered", 1, 0)]


async def test_names_made_up_do_not_push_everything_else_out_of_the_stream(world: World) -> None:
    for n in range(MAX_UNKNOWN):
        await world.store.deregister(f"payments/x{n}")

    assert await world.store.deregister("payments/one-more") == (False, MAX_UNKNOWN)
    world.advance(UNKNOWN_WINDOW_MS)
    assert await world.store.deregister("payments/one-more") == (False, MAX_UNKNOWN + 1)


async def test_deregistering_with_a_superseded_lease_id_removes_nothing(world: World) -> None:
    await register(world, "a")

    with pytest.raises(LeaseSuperseded):
        await world.store.deregister("payments/a", lease_id="another")
    assert await world.store.deregister("payments/a", lease_id="lease-of-a") == (True, 2)
    assert await world.store.deregister("payments/a", lease_id="another") == (False, 2)


async def test_deregistering_a_service_removes_also_those_that_the_caller_does_not_know(
    world: World,
) -> None:
    await register(world, "a", "b", "c")
    await register(world, "a", service="payments-2")

    assert await world.store.deregister_service("payments", ["b", "gone", "b"]) == (3, 8)
    assert list(await states(world)) == ["payments-2/a"]
    downs = [c for c in world.changes_after(4) if isinstance(c, InstanceDown)]
    assert [c.id for c in downs] == ["b", "gone", "a", "c"]
    assert await world.store.deregister_service("none", []) == (0, 8)


# --- states and addresses -------------------------------------------------------------------------


async def test_a_state_survives_renewals_and_registrations(world: World) -> None:
    await register(world, "a")
    changed = await world.store.set_state("payments/a", "maintenance", "new disk")

    assert (changed.state, changed.reason, changed.revision) == ("maintenance", "new disk", 2)
    await world.store.renew([Renewal("payments/a")])
    again = await world.store.register(a_registration(instance="a", port=2), lease_id="x")
    assert (again.instance.state, again.instance.reason) == ("maintenance", "new disk")


async def test_the_same_state_again_is_no_change(world: World) -> None:
    await register(world, "a")
    first = await world.store.set_state("payments/a", "draining", "")

    assert await world.store.set_state("payments/a", "draining", "") == first
    assert len(world.changes_after(0)) == 2


async def test_states_and_addresses_are_set_by_compare_and_set(world: World) -> None:
    await register(world, "a")
    found = await world.store.set_found("payments/a", ("10.0.0.8", "fd00::8"), expected=1)

    assert (found.found, found.revision) == (("10.0.0.8", "fd00::8"), 2)
    with pytest.raises(RevisionConflict) as conflict:
        await world.store.set_found("payments/a", (), expected=1)
    assert conflict.value.current == 2
    with pytest.raises(RevisionConflict):
        await world.store.set_state("payments/a", "draining", "", expected=1)
    assert await world.store.set_found("payments/a", found.found, expected=2) == found
    assert (await world.store.set_found("payments/a", (), expected=2)).found == ()


async def test_states_and_addresses_of_the_unknown_are_not_found(world: World) -> None:
    with pytest.raises(LeaseNotFound):
        await world.store.set_state("payments/none", "draining", "")
    with pytest.raises(LeaseNotFound):
        await world.store.set_found("payments/none", (), expected=1)


async def test_a_state_ends_with_the_instance(world: World) -> None:
    await register(world, "a")
    await world.store.set_state("payments/a", "draining", "bye")
    await world.store.deregister("payments/a")

    granted = await world.store.register(a_registration(instance="a"), lease_id="x")

    assert (granted.instance.state, granted.instance.reason) == ("serving", "")


# --- owners and settings --------------------------------------------------------------------------


async def test_the_first_owner_of_a_name_keeps_it_until_the_service_is_forgotten(
    world: World,
) -> None:
    await world.store.register(a_registration("nmap_service", "a", owner="red"), lease_id="1")

    with pytest.raises(OwnedByAnother):
        await world.store.register(a_registration("nmap-service", "b", owner="blue"), lease_id="2")
    assert await world.store.owner_of("nmap-service") == "red"
    assert await world.store.owner_of("payments") == ""
    await world.store.register(a_registration("nmap-service", "c", owner="red"), lease_id="3")
    await world.store.deregister_service("nmap-service", ["a", "c"])
    with pytest.raises(OwnedByAnother):
        await world.store.register(a_registration("nmap-service", "b", owner="blue"), lease_id="4")
    await sweep_until(world, 121 * SECOND)
    assert await world.store.owner_of("nmap-service") == ""
    granted = await world.store.register(
        a_registration("nmap-service", "b", owner="blue"), lease_id="5"
    )

    assert granted.created
    assert (await world.store.snapshot()).instances == (granted.instance,)


async def test_a_refused_owner_changes_nothing(world: World) -> None:
    await world.store.register(a_registration(owner="red"), lease_id="1")
    before = await world.store.snapshot()

    with pytest.raises(OwnedByAnother):
        await world.store.register(a_registration(port=9, owner="blue"), lease_id="2", generation=9)

    assert await world.store.snapshot() == before


async def test_where_nobody_says_who_they_are_names_belong_to_nobody(world: World) -> None:
    await world.store.register(a_registration(instance="a"), lease_id="1")
    await world.store.register(a_registration(instance="b", owner="red"), lease_id="2")

    granted = await world.store.register(a_registration(instance="c"), lease_id="3")

    assert granted.created


async def test_settings_are_changes_and_the_same_again_is_none(world: World) -> None:
    await register(world, "a")

    revision = await world.store.set_answers("payments", 1)

    assert revision == await world.store.set_answers("payments", 1)
    assert world.changes_after(1) == [ServiceSettings("payments", 1, revision, 1)]
    assert dict((await world.store.snapshot()).answers) == {"payments": 1}
    await world.store.set_answers("payments", 0)
    assert dict((await world.store.snapshot()).answers) == {}


async def test_settings_are_of_known_services_and_outlive_them(world: World) -> None:
    with pytest.raises(LeaseNotFound):
        await world.store.set_answers("payments", 1)
    await register(world, "a")
    await world.store.set_answers("payments", 1)
    await world.store.deregister_service("payments", ["a"])
    await sweep_until(world, 121 * SECOND)
    await register(world, "a")

    catalog = Catalog.of(await world.store.snapshot())
    assert (service := catalog.service("payments")) is not None
    assert service.answers == 1


# --- the whole ------------------------------------------------------------------------------------


async def test_a_snapshot_is_what_the_changes_add_up_to(world: World) -> None:
    await register(world, "a", "b", "c")
    await register(world, "only", service="orders")
    await world.store.deregister("orders/only")
    await world.store.set_state("payments/b", "draining", "")
    await world.store.deregister("payments/c")
    folded = Catalog()
    for change in world.changes_after(0):
        folded.apply(change)

    snapshot = await world.store.snapshot()

    expected = folded.snapshot()
    assert snapshot.revision == expected.revision == 7
    assert by_key(snapshot.instances) == by_key(expected.instances)
    assert by_key(snapshot.gone) == by_key(expected.gone)
    assert dict(snapshot.dead) == {"orders/only": 5, "payments/c": 7}


def by_key(instances: object) -> dict[str, object]:
    assert isinstance(instances, tuple)
    return {i.registration.key: i for i in instances}


async def test_the_revision_is_raised_once_per_life_of_the_store(unborn: World) -> None:
    await unborn.store.begin_epoch(50)
    await unborn.store.begin_epoch(51)

    raised = NOON // 1000 + EPOCH_STEP
    assert (await unborn.store.snapshot()).revision == raised
    assert unborn.changes_after(0) == [RevisionRaised(raised, 0)]
    await register(unborn, "b")
    assert [c.prev for c in unborn.changes_after(raised)] == [raised]


async def test_a_new_life_is_above_everything_that_its_user_has_seen(unborn: World) -> None:
    await unborn.store.begin_epoch(10**12)

    assert (await unborn.store.snapshot()).revision == 10**12 + EPOCH_STEP


@pytest.mark.parametrize("verb", sorted(WRITES))
async def test_nothing_is_written_before_the_epoch_has_begun(unborn: World, verb: str) -> None:
    """A registration that came first would get revision 1, which every reader has long seen."""
    unborn.known = 10**12

    with contextlib.suppress(LeaseNotFound):
        await WRITES[verb](unborn.store)

    changes = unborn.changes_after(0)
    assert changes[0] == RevisionRaised(10**12 + EPOCH_STEP, 0)
    assert [c.prev for c in changes[1:]] == [c.revision for c in changes[:-1]]


async def test_a_store_behind_what_its_user_has_seen_is_raised_again(world: World) -> None:
    """Another registrar, which had seen less, began the epoch of a store that lost its data."""
    await register(world, "a")
    world.known = 10**12

    await register(world, "b")

    assert [c.revision for c in world.changes_after(1)] == [
        10**12 + EPOCH_STEP,
        10**12 + EPOCH_STEP + 1,
    ]


async def test_a_renewal_that_is_no_change_needs_no_epoch(world: World) -> None:
    """It grants no revision; and it is what comes most."""
    await register(world, "a")
    world.known = 10**12

    assert await world.store.renew([Renewal("payments/a")]) == [Renewed(60.0)]
    assert world.changes_after(1) == []


async def test_a_suspect_that_renews_in_a_new_life_is_a_change_of_that_life(world: World) -> None:
    await register(world, "a", "b", "c", "d")
    await sweep_until(world, 66 * SECOND)
    world.known = 10**12

    assert await world.store.renew([Renewal("payments/c")]) == [Renewed(60.0)]

    assert (await states(world))["payments/c"] == "serving"
    assert (await world.store.snapshot()).revision == 10**12 + EPOCH_STEP + 1


async def test_a_role_is_held_by_one_until_its_time_is_over(world: World) -> None:
    assert await world.store.claim("lookups", "r1", 10.0)
    assert not await world.store.claim("lookups", "r2", 10.0)
    assert await world.store.claim("other", "r2", 10.0)
    world.advance(9 * SECOND)
    assert await world.store.claim("lookups", "r1", 10.0), "its holder prolongs it"
    world.advance(10 * SECOND - 1)
    assert not await world.store.claim("lookups", "r2", 10.0)
    world.advance(1)
    assert await world.store.claim("lookups", "r2", 10.0)
    assert not await world.store.claim("lookups", "r1", 10.0)


async def test_everything_that_a_registration_can_hold_comes_back_as_it_went(
    world: World,
) -> None:
    wanted = Registration(
        "Payments_2".lower(),
        "pay_1",
        (Port("http", 80), Port("game", 4000, "udp")),
        ("10.0.0.1", "fd00::1"),
        host="vertice-maximus_eureka",
        priority=65535,
        weight=0,
        version="1.2",
        zone="eu-1",
        tags=("canary", "b"),
        metadata={"owner": 'Zoë "the" \\ \n\r\0', "empty": "", "ключ": "значение"},
        health_endpoint="/v1/sys/health?a=1&b=%20",
        lease_ttl=3600,
        record_ttl=900,
        named=False,
        caller="fd00::2",
        owner="team-a",
    )

    granted = await world.store.register(wanted, lease_id="a", generation=2**53 - 1)

    assert granted.instance.registration == wanted
    assert granted.instance.generation == 2**53 - 1
    (only,) = (await world.store.snapshot()).instances
    assert only == granted.instance
    again = await world.store.register(wanted, lease_id="b", generation=2**53 - 1)
    assert again.instance == replace(granted.instance, lease_id="a")


# --- only of the one in Redis ---------------------------------------------------------------------


async def test_the_store_believes_the_clock_of_redis(store_server: StoreServer) -> None:
    """The scripts as they are: a lease ends by TIME, and no process's clock is asked."""
    zone = store_server.fresh_zone()
    store = RedisStore(store_server.url, zone)
    deadlines = f"sd:{{{zone}}}:deadlines"
    await store.register(a_registration(), lease_id="a")

    seconds, micros = store_server.command("TIME")
    score = float(store_server.command("ZSCORE", deadlines, "payments/pay-1"))
    assert score / 1000 == pytest.approx(seconds + micros / 1e6 + 60, abs=5)
    assert await store.lease_times(["payments/pay-1"]) == [pytest.approx(60, abs=5)]
    store_server.command("ZINCRBY", deadlines, -55_000, "payments/pay-1")
    assert (await store.sweep()).evicted == ()
    store_server.command("ZINCRBY", deadlines, -10_000, "payments/pay-1")
    assert (await store.sweep()).evicted == ("payments/pay-1",)
    await store.close()


async def test_close_gives_every_connection_back(store_server: StoreServer) -> None:
    before = store_server.command("CLIENT", "LIST").count(b"\n")
    store = RedisStore(store_server.url, store_server.fresh_zone())
    await asyncio.gather(*(store.ping() for _ in range(8)))
    assert store_server.command("CLIENT", "LIST").count(b"\n") > before

    await store.close()

    assert store_server.command("CLIENT", "LIST").count(b"\n") == before


async def test_a_store_that_is_not_there_is_unavailable(tmp_path: object) -> None:
    store = RedisStore("unix:///nonexistent/s", "svc.internal.")

    with pytest.raises(StoreUnavailable):
        await store.register(a_registration(), lease_id="a")
    with pytest.raises(StoreUnavailable):
        await store.renew([Renewal("payments/pay-1")])
    with pytest.raises(StoreUnavailable):
        await store.snapshot()
    with pytest.raises(StoreUnavailable):
        await store.begin_epoch(0)
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.close()
