"""Random sequences of everything that can be asked of a lease store, played on both at once.

After each step both have given the same answer and written the same changes; at the
end both hold the same, and the changes add up to it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from registry.catalog import Catalog
from registry.changes import Snapshot
from registry.errors import CallboardError
from registry.leases import LeaseStore, Renewal
from registry.model import Instance, Registration
from tests.support.lease_worlds import MemoryWorld, RedisWorld, World, a_registration
from tests.support.store import StoreServer

STEPS = 40
SHARE_OF_EXAMPLES = 2
"""A sequence costs as much as many a plain example: half of the profile's number."""

T = TypeVar("T")

SERVICES = ("pay_ments", "pay-ments", "orders")
"""The first two fold to one."""

keys = st.sampled_from([f"{s}/{i}" for s in ("pay-ments", "orders") for i in ("a", "b", "c", "d")])
lease_ids = st.sampled_from(["x", "y", "z"])
durations = st.sampled_from([1, 999, 1000, 4000, 4999, 5000, 5001, 10_000, 60_000, 70_000, 130_000])
addresses = st.sampled_from([(), ("10.0.0.8",), ("10.0.0.8", "fd00::8")])


@st.composite
def registrations(draw: st.DrawFn) -> Registration:
    return a_registration(
        draw(st.sampled_from(SERVICES)),
        draw(st.sampled_from("abcd")),
        port=draw(st.sampled_from([1, 2])),
        lease_ttl=draw(st.sampled_from([5, 5, 60, 0])),
        owner=draw(st.sampled_from(["", "", "", "team-a", "team-b"])),
    )


class BothStores(RuleBasedStateMachine):
    """Plays on the specification and on Redis; never looks into either."""

    server: StoreServer

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.worlds: tuple[World, ...] = (
            MemoryWorld(begun=False),
            RedisWorld(self.server, begun=False),
        )
        self.memory = self.worlds[0]
        self.folded = Catalog()
        self.known: dict[str, Instance] = {}

    def teardown(self) -> None:
        try:
            self.compare_everything()
        finally:
            for world in self.worlds:
                self.loop.run_until_complete(world.close())
            self.loop.close()

    def both(self, ask: Callable[[LeaseStore], Awaitable[T]]) -> T | CallboardError:
        """The answer that both give to *ask*; what they refuse counts as an answer."""
        answers = [self.run(outcome(ask(world.store))) for world in self.worlds]
        assert comparable(answers[0]) == comparable(answers[1])
        return answers[0]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @initialize(begin=st.booleans())
    def begin(self, begin: bool) -> None:
        if begin:
            self.raise_revision(0)

    @rule(
        wanted=registrations(),
        lease_id=lease_ids,
        generation=st.sampled_from([0, 0, 1, 2, 3]),
        found=addresses,
        begins=st.sampled_from([("serving", ""), ("serving", ""), ("waiting", "answered 503")]),
    )
    def register(
        self,
        wanted: Registration,
        lease_id: str,
        generation: int,
        found: tuple[str, ...],
        begins: tuple[str, str],
    ) -> None:
        state, reason = begins
        self.both(
            lambda s: s.register(
                wanted,
                lease_id=lease_id,
                generation=generation,
                found=found,
                state=state,
                reason=reason,
            )
        )

    @rule(ids=st.sets(st.sampled_from("abcd"), min_size=3), service=st.sampled_from(SERVICES))
    def register_many(self, ids: set[str], service: str) -> None:
        for i in sorted(ids):
            wanted = a_registration(service, i, lease_ttl=5)
            self.both(lambda s, wanted=wanted: s.register(wanted, lease_id="many"))  # type: ignore[misc]

    @rule(wishes=st.lists(st.builds(Renewal, keys, st.none() | lease_ids), max_size=4))
    def renew(self, wishes: list[Renewal]) -> None:
        self.both(lambda s: s.renew(wishes))

    @rule(key=keys, lease_id=st.none() | lease_ids)
    def deregister(self, key: str, lease_id: str | None) -> None:
        self.both(lambda s: s.deregister(key, lease_id=lease_id))

    @rule(
        service=st.sampled_from(["pay-ments", "orders", "none"]),
        ids=st.lists(st.sampled_from("abcde"), max_size=3),
    )
    def deregister_service(self, service: str, ids: list[str]) -> None:
        self.both(lambda s: s.deregister_service(service, ids))

    @rule(
        key=keys,
        state=st.sampled_from(["serving", "draining", "maintenance"]),
        reason=st.sampled_from(["", "new disk"]),
        known=st.sampled_from(["any", "right", "wrong"]),
    )
    def set_state(self, key: str, state: str, reason: str, known: str) -> None:
        expected = None if known == "any" else self.revision_of(key) + (known == "wrong")
        self.both(lambda s: s.set_state(key, state, reason, expected=expected))

    @rule(
        service=st.sampled_from(["pay-ments", "orders", "none"]),
        answers=st.sampled_from([0, 1, 3]),
    )
    def set_answers(self, service: str, answers: int) -> None:
        self.both(lambda s: s.set_answers(service, answers))

    @rule(key=keys, found=addresses, wrong=st.booleans())
    def set_found(self, key: str, found: tuple[str, ...], wrong: bool) -> None:
        expected = self.revision_of(key) + wrong
        self.both(lambda s: s.set_found(key, found, expected=expected))

    @rule()
    def sweep(self) -> None:
        self.both(lambda s: s.sweep())

    @rule(milliseconds=durations)
    def advance(self, milliseconds: int) -> None:
        for world in self.worlds:
            world.advance(milliseconds)

    @rule(steps=st.integers(1, 20), renewed=st.sets(keys, max_size=3))
    def live_on(self, steps: int, renewed: set[str]) -> None:
        """Time goes by with sweeps and some renewals, as in a life without outages."""
        wishes = [Renewal(key) for key in sorted(renewed)]
        for _ in range(steps):
            self.advance(4000)
            self.both(lambda s: s.renew(wishes))
            self.sweep()

    @rule(milliseconds=st.integers(1, 20_000))
    def step_back(self, milliseconds: int) -> None:
        self.advance(-milliseconds)

    @rule(known=st.integers(0, 10**12))
    def raise_revision(self, known: int) -> None:
        self.both(lambda s: s.begin_epoch(known))

    @rule(known=st.integers(0, 10**12))
    def have_seen(self, known: int) -> None:
        """Whoever uses the store has seen a revision that it does not have (any more)."""
        for world in self.worlds:
            world.known = known

    @rule(
        service=st.sampled_from(["pay-ments", "orders", "none"]),
        ids=st.lists(st.sampled_from("abcde"), max_size=3),
    )
    def release_guard(self, service: str, ids: list[str]) -> None:
        self.both(lambda s: s.release_guard(service, ids))

    @rule(
        role=st.sampled_from(["lookups", "other"]),
        holder=st.sampled_from(["r1", "r2"]),
        seconds=st.sampled_from([1.0, 10.0]),
    )
    def claim(self, role: str, holder: str, seconds: float) -> None:
        self.both(lambda s: s.claim(role, holder, seconds))

    @invariant()
    def same_changes(self) -> None:
        mine, theirs = (w.changes_after(self.folded.revision) for w in self.worlds)
        assert mine == theirs
        for change in mine:
            assert change.prev == self.folded.revision
            self.folded.apply(change)

    def compare_everything(self) -> None:
        mine, theirs = (self.run(w.store.snapshot()) for w in self.worlds)
        assert comparable(mine) == comparable(theirs)
        assert dict(mine.dead) == dict(theirs.dead)
        assert membership(mine) == membership(self.folded.snapshot())
        every = [i.registration.key for i in mine.instances] + ["none/none"]
        times = [self.run(w.lease_times(every)) for w in self.worlds]
        assert times[1] == [None if t is None else pytest.approx(t, abs=5) for t in times[0]]

    def revision_of(self, key: str) -> int:
        service, _, instance_id = key.partition("/")
        held = self.folded.instances(service).get(instance_id)
        return 0 if held is None else held.revision


async def outcome(answer: Awaitable[T]) -> T | CallboardError:
    try:
        return await answer
    except CallboardError as error:
        return error


def comparable(answer: Any) -> Any:
    """*answer* such that equal ones compare equal: errors by kind, snapshots without order."""
    match answer:
        case CallboardError():
            return type(answer), getattr(answer, "current", None)
        case list():
            return [comparable(item) for item in answer]
        case Snapshot():
            return (
                answer.revision,
                sorted_by_key(answer.instances),
                sorted_by_key(answer.gone),
                dict(answer.answers),
            )
    return answer


def sorted_by_key(instances: Iterable[Instance]) -> list[Instance]:
    return sorted(instances, key=lambda i: i.registration.key)


def membership(snapshot: Snapshot) -> Any:
    """What the feed carries: all but lease ids and generations, which renewals may change."""
    plain = Snapshot(
        snapshot.revision,
        tuple(replace(i, lease_id="", generation=0) for i in snapshot.instances),
        tuple(replace(i, lease_id="", generation=0) for i in snapshot.gone),
        answers=snapshot.answers,
    )
    return comparable(plain)


@pytest.fixture
def machine(store_server: StoreServer) -> type[BothStores]:
    return type("BothStoresHere", (BothStores,), {"server": store_server})


@pytest.mark.timeout(900)  # the thorough profile
def test_memory_and_redis_give_the_same_answers_to_any_sequence(
    machine: type[BothStores],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=settings().max_examples // SHARE_OF_EXAMPLES, stateful_step_count=STEPS
        ),
    )
