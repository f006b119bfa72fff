"""Sets to which many services add: kept up by what changed, cut alike, compared across serials."""

import random
from collections.abc import Iterator

import dns.flags
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.compiler import MAX_RRSET
from dnsd.shared import CATALOG, POINTER_SIZE, TYPES, AtType, Fact, Members, Shared, Tally
from registry.catalog import Catalog, Service
from registry.model import Instance, Port
from tests.support.dnsd import Dnsd, instance, outcome, rdatas

ZONE = b"\x03svc\x08internal\0"
NETWORKS = ("40a", "6fd")

STATES = st.sampled_from(["serving", "draining", "suspect"])
PORTS = st.lists(
    st.sampled_from([Port("http", 1), Port("web", 2), Port("game", 3, "udp")]),
    min_size=1,
    max_size=3,
    unique=True,
)
ADDRESSES = st.lists(
    st.sampled_from(["10.0.0.1", "10.0.0.2", "192.0.2.1", "fd00::1"]), max_size=3, unique=True
)
INSTANCES = st.builds(
    lambda service, id, addresses, ports, state: instance(
        service, id, addresses, ports, state=state, host="h"
    ),
    st.sampled_from(["pay", "nmap_service", "taken", "s" * 60]),
    st.sampled_from(["a", "b_1", "c" * 50]),
    ADDRESSES,
    PORTS,
    STATES,
)
STEPS = st.lists(
    st.tuples(st.just("up"), INSTANCES)
    | st.tuples(st.sampled_from(["down", "forget", "settle"]), INSTANCES),
    max_size=20,
)


class World:
    """A catalog and what is shared of it."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.shared = Shared(ZONE, NETWORKS, {"taken"})

    def step(self, verb: str, one: Instance) -> None:
        match verb:
            case "up":
                self.catalog.put(one)
            case "down":
                self.catalog._remove(one.service, one.id, 9)
            case "forget":
                self.catalog._forget(one.service)
            case "settle":
                self.shared.settle(self.catalog)
                return
        self.shared.touch([one.service])

    def services(self) -> dict[str, Service]:
        return {
            name: Service(service.name, dict(service.instances))
            for name, service in self.catalog.services()
        }

    def facts(self) -> set[Fact]:
        self.shared.settle(self.catalog)
        return set(self.shared.sets.facts())


@given(STEPS)
def test_kept_up_step_by_step_they_are_what_they_would_be_made_anew(
    steps: list[tuple[str, Instance]],
) -> None:
    world = World()
    for verb, one in steps:
        world.step(verb, one)
    anew = Shared(ZONE, NETWORKS, {"taken"})
    anew.restart(world.catalog)
    anew.settle(world.catalog)

    assert world.facts() == set(anew.sets.facts())
    assert world.shared.ports == anew.ports
    assert world.shared.protocols == anew.protocols
    assert world.shared.sets.types == anew.sets.types
    for digits in ("40a", "40a00", "40a000002", "6", "6fd00", "4c"):
        assert world.shared.has_address_in(digits) == anew.has_address_in(digits)


@given(STEPS)
def test_when_everybody_left_and_was_forgotten_nothing_stays(
    steps: list[tuple[str, Instance]],
) -> None:
    world = World()
    for verb, one in steps:
        world.step(verb, one)
    for name, service in list(world.catalog.services()):
        for id in list(service.instances):
            world.catalog._remove(name, id, 9)
        world.catalog._forget(name)
        world.shared.touch([name])

    assert world.facts() == set()
    assert not world.shared.sets.members
    assert not world.shared.sets.addresses
    assert not world.shared.ports
    assert not world.shared._held


@given(STEPS, STEPS)
def test_x11_differences_lead_from_what_was_to_what_is(
    before: list[tuple[str, Instance]], after: list[tuple[str, Instance]]
) -> None:
    world = World()
    for verb, one in before:
        world.step(verb, one)
    was, services = world.facts(), world.services()
    for verb, one in after:
        world.step(verb, one)
    now, present = world.facts(), world.services()
    tally: Tally = {}
    for name in {*services, *present}:
        world.shared.count(tally, services.get(name), -1)
        world.shared.count(tally, present.get(name), 1)

    differences = list(world.shared.sets.differences(tally))

    assert {fact for came, fact in differences if not came} == was - now
    assert {fact for came, fact in differences if came} == now - was
    assert len(differences) == len(was ^ now)


def test_a_copy_stays_as_it_was() -> None:
    """A transfer goes on for seconds, and is of one serial."""
    world = World()
    for n in range(300):
        world.step("up", instance("pay", f"p{n}", (f"10.0.0.{n % 250}",)))
    before = world.facts()
    zone, reverse = world.shared.sets.of_zone(), world.shared.sets.of_reverse_zone("40a")

    for n in range(0, 300, 2):
        world.step("down", instance("pay", f"p{n}"))
    world.step("up", instance("other", "o", ("10.9.9.9",), (Port("new", 1),)))

    assert world.facts() != before
    assert set(zone.facts()) | set(reverse.facts()) == before


# --- size -----------------------------------------------------------------------------------------


def crowd(count: int) -> Iterator[Instance]:
    for n in range(count):
        yield instance(f"service-{n // 5}", f"i{n % 5}", (f"10.0.{n // 250}.{n % 250}",))


@pytest.mark.parametrize("place", [CATALOG, AtType("http", "tcp")])
def test_r12_of_a_set_too_large_a_part_is_shown_the_same_on_every_replica(
    place: AtType,
) -> None:
    worlds = []
    for seed in (1, 2):
        world = World()
        instances = [instance(f"service-{n}", "a", (f"10.0.0.{n % 250}",)) for n in range(3500)]
        random.Random(seed).shuffle(instances)
        for one in instances:
            world.step("up", one)
        world.shared.settle(world.catalog)
        worlds.append(world)
    shown = worlds[0].shared.sets.shown(place)

    assert shown == worlds[1].shared.sets.shown(place)
    assert MAX_RRSET - 100 < sum(len(t) + POINTER_SIZE for t in shown) <= MAX_RRSET
    assert worlds[0].shared.sets.count(place) > len(shown)
    assert worlds[0].shared.sets.shown(TYPES) == (b"\x05_http\x04_tcp",)


def test_r12_t12_the_answer_holds_what_fits_and_says_what_does_not() -> None:
    dnsd = Dnsd()
    dnsd.catalog = Catalog()
    for one in (*crowd(4000), instance()):
        dnsd.catalog.put(one)
    dnsd.table.reset("fresh")
    answer = dnsd.dig("_http._tcp", "PTR", tcp=True)

    assert not answer.flags & dns.flags.TC
    assert 1500 < len(rdatas(answer)) < 4001
    left_out = 4001 - len(rdatas(answer))
    assert dnsd.problems == [("_http._tcp", f"{left_out} records do not fit one message")]
    for listed in rdatas(answer)[:20]:
        assert outcome(dnsd.dig(listed, "SRV")) == "NOERROR"
    assert len(rdatas(dnsd.dig("catalog", "PTR", tcp=True))) == 801


def test_x6_a_set_too_large_is_transferred_as_far_as_it_is_shown() -> None:
    """And the difference of two serials is that of the parts shown."""
    world = World()
    for one in crowd(4000):
        world.step("up", one)
    was, services = world.facts(), world.services()
    # Of one service all leave, of another they come: the border of what is shown moves.
    for n in range(3):
        for id in range(5):
            world.step("down", instance(f"service-{n}", f"i{id}"))
    for one in (instance("fresh", f"f{n}", (f"10.1.0.{n}",)) for n in range(8)):
        world.step("up", one)
    now, present = world.facts(), world.services()
    tally: Tally = {}
    for name in {*services, *present}:
        world.shared.count(tally, services.get(name), -1)
        world.shared.count(tally, present.get(name), 1)

    differences = list(world.shared.sets.differences(tally))

    assert {fact for came, fact in differences if not came} == was - now
    assert {fact for came, fact in differences if came} == now - was


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=3)), max_size=60))
def test_members_are_a_set_and_copies_are_apart(steps: list[tuple[bool, bytes]]) -> None:
    members, expected, copies = Members(), set[bytes](), list[tuple[Members, set[bytes]]]()
    for number, (adds, target) in enumerate(steps):
        if adds and target not in expected:
            members.add(target)
            expected.add(target)
        elif not adds and target in expected:
            members.remove(target)
            expected.remove(target)
        if number % 7 == 0:
            copies.append((members.copy(), set(expected)))
    for one, wanted in [*copies, (members, expected)]:
        assert one.shown() == tuple(sorted(wanted))
        assert len(one) == len(wanted)
        assert one.size == sum(len(t) + POINTER_SIZE for t in wanted)


# --- effort ---------------------------------------------------------------------------------------


def test_a_change_is_taken_in_without_looking_at_other_services() -> None:
    """A hundred changes a second must not cost a hundred times everything."""
    world = World()
    for one in crowd(1000):
        world.step("up", one)
    world.shared.settle(world.catalog)
    asked: list[str] = []
    original = world.catalog.service

    def service(name: str) -> Service | None:
        asked.append(name)
        return original(name)

    world.catalog.service = service  # type: ignore[method-assign]
    for n in range(10):
        world.step("up", instance("service-7", f"new-{n}"))

    assert world.shared.settle(world.catalog)

    assert asked == ["service-7"]


def test_it_can_be_done_a_piece_at_a_time() -> None:
    world = World()
    for one in crowd(50):
        world.step("up", one)

    steps = 1
    while not world.shared.settle(world.catalog, 3):
        steps += 1

    assert steps == 4
    assert world.shared.sets.count(CATALOG) == 10
    assert repr(world.shared) == "<Shared 53 sets, 0 services to be looked at>"


def test_a_change_of_state_does_not_begin_anew() -> None:
    """When the store goes away all replicas have other things to do than to count services."""
    dnsd = Dnsd(*crowd(50))
    dnsd.table.settle()

    dnsd.table.reset("away")

    assert dnsd.table.settle(0), "nothing is left to be looked at"
    assert len(rdatas(dnsd.dig("catalog", "PTR", tcp=True))) == 10
