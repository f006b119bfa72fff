"""The fold of changes, duplicated, replayed, out of snapshots; and who stays unconfirmed."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from registry.catalog import UNCONFIRMED_HOLD, Catalog
from registry.changes import (
    Change,
    InstanceDown,
    InstanceUp,
    ServiceForgotten,
    ServiceSettings,
    Snapshot,
)
from registry.errors import CallboardError
from registry.feed import Skipped, _Cursor, _Gap, advance
from registry.follower import Follower
from registry.leases import Renewal
from registry.memory import MemoryStore
from registry.model import MAX_LEASE_TTL, Instance, encode_instance
from tests.support.following import membership
from tests.support.lease_worlds import a_registration

NOW = 1000.0


def an_instance(
    instance: str = "a", revision: int = 1, service: str = "payments", **more: Any
) -> Instance:
    return Instance(a_registration(service, instance, **more), revision, "x", 1, listed_as=service)


def up(instance: str, revision: int, prev: int | None = None) -> InstanceUp:
    return InstanceUp(
        an_instance(instance, revision), revision, revision - 1 if prev is None else prev
    )


def down(instance: str, revision: int) -> InstanceDown:
    return InstanceDown("payments", instance, "deregistered", revision, revision - 1)


def ids(catalog: Catalog) -> set[str]:
    return set(catalog.instances("payments"))


# --- folding -----------------------------------------------------------------------------------


def test_a_change_tells_which_service_it_touched() -> None:
    catalog = Catalog()

    assert catalog.apply(up("a", 1)) == "payments"
    assert catalog.apply(down("b", 2)) is None, "nobody held it"
    assert catalog.apply(down("a", 3)) == "payments"
    assert catalog.apply(ServiceForgotten("payments", 4, 3)) == "payments"
    assert catalog.apply(ServiceForgotten("payments", 5, 4)) is None
    assert catalog.revision == 5


def test_a_service_whose_last_instance_left_stays_known_with_its_ports() -> None:
    catalog = Catalog()
    catalog.apply(up("a", 1))
    catalog.apply(down("a", 2))

    service = catalog.service("PAYMENTS")
    assert service is not None
    assert service.last == an_instance("a", 1)
    assert (service.serving, catalog.instance_count, len(catalog)) == ([], 0, 1)
    catalog.apply(up("b", 3))
    assert service.last is None


def test_a_service_with_instances_is_not_forgotten() -> None:
    catalog = Catalog()
    catalog.apply(up("a", 1))

    assert catalog.apply(ServiceForgotten("payments", 2, 1)) is None
    assert ids(catalog) == {"a"}


def test_settings_touch_a_known_service_and_wait_for_an_unknown_one() -> None:
    catalog = Catalog()

    assert catalog.apply(ServiceSettings("payments", 1, 1, 0)) is None
    catalog.apply(up("a", 2))
    assert (service := catalog.service("payments")) is not None
    assert service.answers == 1
    assert catalog.apply(ServiceSettings("payments", 0, 3, 2)) == "payments"
    assert service.answers == 0
    assert catalog.settings_count == 0


def test_a_name_belongs_to_the_owner_of_its_instances_until_it_is_forgotten() -> None:
    catalog = Catalog()
    owned = an_instance("a", 1, owner="red")
    catalog.apply(InstanceUp(owned, 1, 0))
    catalog.apply(up("b", 2))
    catalog.apply(down("a", 3))

    for held in (catalog, Catalog.of(Snapshot(1, gone=(owned,)))):
        assert (service := held.service("payments")) is not None
        assert service.owner == "red"
    catalog.apply(down("b", 4))
    catalog.apply(ServiceForgotten("payments", 5, 4))
    catalog.apply(up("b", 6))
    assert (service := catalog.service("payments")) is not None
    assert service.owner == ""


def test_an_instance_seen_later_wins_over_an_older_down() -> None:
    catalog = Catalog(4)
    catalog.put(an_instance("a", 9))

    assert catalog.apply(down("a", 5)) is None
    assert catalog.apply(up("a", 6)) is None
    assert catalog.instances("payments")["a"].revision == 9
    assert catalog.apply(down("a", 10)) == "payments"


def test_serving_is_in_the_order_of_ids_and_leaves_out_who_is_not_in_dns() -> None:
    catalog = Catalog()
    for i in ("c", "a", "b"):
        catalog.put(replace(an_instance(i), state="draining" if i == "b" else "serving"))

    service = catalog.service("payments")
    assert service is not None
    assert [i.id for i in service.serving] == ["a", "c"]


acts = st.tuples(
    st.sampled_from("rrrrdsnxa"),
    st.sampled_from(["pay_ments", "pay-ments", "orders"]),
    st.sampled_from("abc"),
    st.integers(1, 2),
)


def history(script: list[tuple[str, str, str, int]]) -> tuple[list[Change], list[Snapshot]]:
    """The changes that a store makes of *script*, and its snapshot after each of them."""
    now = [0]
    store = MemoryStore(lambda: now[0])
    snapshots = [run(store.snapshot())]
    for act, service, i, data in script:
        now[0] += 20_000
        key = a_registration(service, i).key
        try:
            match act:
                case "r":
                    run(store.register(a_registration(service, i, port=data), lease_id="x"))
                case "d":
                    run(store.deregister(key))
                case "s":
                    run(store.set_state(key, "draining", ""))
                case "a":
                    run(store.set_answers(key.partition("/")[0], data))
                case "n":
                    run(store.renew([Renewal(key)]))
                case "x":
                    run(store.sweep())
        except CallboardError:
            pass
        snapshots.append(run(store.snapshot()))
    return store.changes_after(0), snapshots


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("MemoryStore waits for nothing")


@given(st.lists(acts, max_size=40))
def test_changes_add_up_to_every_snapshot_on_the_way(
    script: list[tuple[str, str, str, int]],
) -> None:
    changes, snapshots = history(script)
    catalog = Catalog()
    for snapshot in snapshots:
        for change in changes:
            if catalog.revision < change.revision <= snapshot.revision:
                catalog.apply(change)
        assert membership(catalog.snapshot()) == membership(snapshot)


@given(st.lists(acts, max_size=40), st.data())
def test_duplicates_and_replays_change_nothing(
    script: list[tuple[str, str, str, int]], data: st.DataObject
) -> None:
    changes, snapshots = history(script)
    catalog = Catalog()
    for n, change in enumerate(changes):
        catalog.apply(change)
        before = catalog.snapshot()
        for replayed in data.draw(st.lists(st.sampled_from(changes[: n + 1]), max_size=3)):
            assert catalog.apply(replayed) is None
        assert catalog.snapshot() == before
    assert membership(catalog.snapshot()) == membership(snapshots[-1])


@given(st.lists(acts, max_size=40), st.data())
def test_any_snapshot_and_the_changes_after_it_add_up_to_the_last(
    script: list[tuple[str, str, str, int]], data: st.DataObject
) -> None:
    changes, snapshots = history(script)
    catalog = Catalog.of(data.draw(st.sampled_from(snapshots)))
    for change in changes:
        catalog.apply(change)

    assert membership(catalog.snapshot()) == membership(snapshots[-1])
    assert Catalog.of(catalog.snapshot()).snapshot() == catalog.snapshot()
    assert catalog.instance_count == len(snapshots[-1].instances)


@given(st.lists(acts, max_size=40), st.data())
def test_a_scan_that_saw_each_instance_at_a_moment_of_its_own_is_put_right_by_the_changes(
    script: list[tuple[str, str, str, int]], data: st.DataObject
) -> None:
    """What a snapshot read in steps is: each instance as of some moment, then the changes."""
    changes, snapshots = history(script)
    start = data.draw(st.integers(0, len(snapshots) - 1))
    catalog = Catalog(snapshots[start].revision)
    keys = {i.registration.key for s in snapshots for i in s.instances}
    for key in sorted(keys):
        seen = snapshots[data.draw(st.integers(start, len(snapshots) - 1))]
        for instance in seen.instances:
            if instance.registration.key == key:
                catalog.put(instance)
    for gone in snapshots[start].gone:
        catalog.put_gone(gone)
    for change in changes:
        catalog.apply(change)

    assert membership(catalog.snapshot())[1] == membership(snapshots[-1])[1]


# --- snapshots remove nobody on their own word ---------------------------------------------------


def swapped_in(before: Catalog, snapshot: Snapshot, now: float = NOW) -> Catalog:
    catalog = Catalog.of(snapshot)
    list(catalog.keep_missing(before, snapshot.dead, now))
    return catalog


def before_with(*instances: Instance) -> Catalog:
    return Catalog.of(Snapshot(max(i.revision for i in instances), instances))


def test_who_is_missing_without_a_down_seen_stays_for_its_lease_and_seventy_five_seconds() -> None:
    before = before_with(an_instance("a", 1), an_instance("b", 2, lease_ttl=10))

    catalog = swapped_in(before, Snapshot(9, (an_instance("a", 1),)))

    assert ids(catalog) == {"a", "b"}
    assert (catalog.unconfirmed, catalog.instance_count) == (1, 2)
    assert catalog.drop_unconfirmed(NOW + 10 + UNCONFIRMED_HOLD - 0.1) == []
    assert catalog.drop_unconfirmed(NOW + 10 + UNCONFIRMED_HOLD) == ["payments"]
    assert ids(catalog) == {"a"}
    assert catalog.unconfirmed == 0


def test_one_without_a_lease_stays_as_long_as_the_longest_lease() -> None:
    catalog = swapped_in(before_with(an_instance("a", 1, lease_ttl=0)), Snapshot(9))

    assert catalog.drop_unconfirmed(NOW + MAX_LEASE_TTL + UNCONFIRMED_HOLD - 1) == []
    assert catalog.drop_unconfirmed(NOW + MAX_LEASE_TTL + UNCONFIRMED_HOLD) == ["payments"]
    assert len(catalog) == 0


def test_who_is_known_to_have_left_is_not_kept() -> None:
    catalog = swapped_in(
        before_with(an_instance("a", 3), an_instance("b", 4)),
        Snapshot(9, dead={"payments/a": 7, "payments/b": 3}),
    )

    assert ids(catalog) == {"b"}, "b registered again after the Down that is known"


def test_another_snapshot_does_not_prolong_the_stay() -> None:
    first = swapped_in(before_with(an_instance("a", 1)), Snapshot(9))

    second = swapped_in(first, Snapshot(10), now=NOW + 100)

    assert second.drop_unconfirmed(NOW + 60 + UNCONFIRMED_HOLD) == ["payments"]


def test_registering_again_confirms_and_a_down_ends_it() -> None:
    catalog = swapped_in(before_with(an_instance("a", 1), an_instance("b", 2)), Snapshot(9))

    catalog.apply(up("a", 10))
    catalog.apply(down("b", 11))

    assert (ids(catalog), catalog.unconfirmed) == ({"a"}, 0)
    assert catalog.drop_unconfirmed(NOW + 10_000) == []


def test_what_the_snapshot_holds_wins_over_what_was_held_before() -> None:
    before = before_with(an_instance("a", 5))

    catalog = swapped_in(before, Snapshot(9, (replace(an_instance("a", 3), state="draining"),)))

    assert catalog.instances("payments")["a"].state == "draining"


def test_a_large_catalog_can_be_gone_through_in_slices() -> None:
    many = [an_instance(f"i{n}", n + 1) for n in range(50)]
    catalog = Catalog(99)

    kept = catalog.keep_missing(before_with(*many), {}, NOW)

    assert next(kept) == "payments/i0"
    assert catalog.instance_count == 1
    assert len(list(kept)) == 49


# --- the cursor ----------------------------------------------------------------------------------


def entry(change: InstanceUp | InstanceDown) -> dict[str, str]:
    match change:
        case InstanceUp(instance):
            kind = {"k": "up", "m": instance.registration.key, "v": encode_instance(instance)}
        case InstanceDown():
            kind = {"k": "down", "m": f"{change.service}/{change.id}", "w": change.reason}
    return {"r": str(change.revision), "p": str(change.prev), **kind}


def test_the_cursor_moves_with_the_chain_and_sees_a_gap() -> None:
    cursor = _Cursor("1-0", 5)

    assert advance(cursor, "2-0", entry(up("a", 6))) == up("a", 6)
    assert advance(cursor, "3-0", entry(up("a", 6))) is None
    assert (cursor.id, cursor.revision) == ("3-0", 6)
    with pytest.raises(_Gap):
        advance(cursor, "4-0", entry(up("a", 8, prev=7)))
    with pytest.raises(_Gap):
        advance(cursor, "5-0", entry(up("a", 9, prev=5)))


def test_an_entry_that_we_cannot_read_is_a_link_of_the_chain_if_its_numbers_fit() -> None:
    cursor = _Cursor("1-0", 5)

    skipped = advance(cursor, "2-0", {"r": "6", "p": "5", "k": "renamed", "m": "a/b"})
    assert isinstance(skipped, Skipped)
    assert cursor.revision == 6
    for numbers in ({"r": "9", "p": "8"}, {"r": "x", "p": "6"}, {}):
        assert isinstance(advance(cursor, "3-0", {**numbers, "k": "?"}), Skipped)
        assert cursor.revision == 6


def test_a_raised_revision_is_a_gap_even_where_its_numbers_fit() -> None:
    """The writes that we saw were lost, and others took their numbers."""
    with pytest.raises(_Gap):
        advance(_Cursor("1-0", 5), "2-0", {"r": "99", "p": "5", "k": "raised", "m": ""})


# --- following -----------------------------------------------------------------------------------


async def test_waiting_for_a_revision_ends_with_it_or_with_its_time() -> None:
    follower = Follower("unix:///nonexistent", "svc.internal.")
    follower.start_from(Catalog(5))

    assert await follower.reached(5, timeout=0)
    assert not await follower.reached(6, timeout=0.01)
    waiting = asyncio.create_task(follower.reached(7, timeout=60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert follower.age(1.0) == float("inf")
    assert "not current" in repr(follower)
