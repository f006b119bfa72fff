"""Which instance stands for a service, and which a heartbeat without an id means."""

import random
from collections import Counter

import pytest

from registrar.selection import (
    Ambiguous,
    candidates,
    cumulative_weights,
    heartbeat_targets,
    pick,
)
from registry.model import Instance, Port, Registration


def instance(
    id: str,
    *,
    priority: int = 0,
    state: str = "serving",
    addresses: tuple[str, ...] = ("10.0.0.1",),
    named: bool = True,
    caller: str = "",
) -> Instance:
    registration = Registration(
        "web",
        id,
        (Port("http", 80),),
        addresses,
        host="" if addresses else "web",
        priority=priority,
        named=named,
        caller=caller,
    )
    return Instance(registration, 1, "lease", 0, state=state)


def ids(instances: object) -> list[str]:
    assert isinstance(instances, list | tuple)
    return [i.id for i in instances]


def test_those_of_lowest_priority_stand_for_the_service() -> None:
    some = [instance("c", priority=5), instance("b", priority=1), instance("a", priority=1)]

    assert ids(candidates(some)) == ["a", "b"]


@pytest.mark.parametrize("state", ["draining", "maintenance", "waiting", "unhealthy"])
def test_what_dns_does_not_answer_stands_only_when_there_is_nothing_else(state: str) -> None:
    away = instance("a", state=state)

    assert ids(candidates([away, instance("b", priority=9)])) == ["b"]
    assert ids(candidates([away])) == ["a"]


def test_one_without_an_address_is_not_answered_either() -> None:
    assert ids(candidates([instance("a", addresses=()), instance("b", priority=9)])) == ["b"]


def test_a_suspect_comes_behind_everyone_whose_lease_is_good() -> None:
    some = [instance("a", state="suspect"), instance("b", priority=9)]

    assert ids(candidates(some)) == ["b"]
    assert ids(candidates(some[:1])) == ["a"]


def test_nobody_stands_for_nothing() -> None:
    assert candidates([]) == []


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([1, 3], [0.25, 0.75]),
        ([0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]),
        ([0, 9], [0.1, 0.9]),
        ([0, 0, 8], [0.0556, 0.0556, 0.8889]),
        ([65535], [1.0]),
    ],
)
def test_frequencies_follow_the_weights(weights: list[int], shares: list[float]) -> None:
    """RFC 2782: weight 0 has a very small chance beside others, and an equal one among zeros."""
    rng, cumulative = random.Random(7), cumulative_weights(weights)
    drawn = Counter(pick(cumulative, rng) for _ in range(20_000))

    for index, share in enumerate(shares):
        assert drawn[index] / 20_000 == pytest.approx(share, abs=0.015)


class Last:
    """The greatest number that a source in [0, 1) can give."""

    def random(self) -> float:
        return 1 - 2**-53


def test_the_last_of_all_numbers_still_picks_one() -> None:
    assert pick(cumulative_weights([0, 0, 0]), Last()) == 2


def test_the_only_instance_is_meant_with_or_without_an_id() -> None:
    assert heartbeat_targets({}, "") == ()
    assert ids(heartbeat_targets({"a": instance("a")}, "192.0.2.1")) == ["a"]


def test_among_several_those_without_an_id() -> None:
    some = {"a": instance("a"), "b": instance("b", named=False), "c": instance("c", named=False)}

    assert ids(heartbeat_targets(some, "192.0.2.1")) == ["b", "c"]


def test_and_of_these_the_callers_own() -> None:
    some = {
        "a": instance("a", named=False, caller="192.0.2.1"),
        "b": instance("b", named=False, caller="192.0.2.2"),
        "c": instance("c", named=False, caller="192.0.2.2"),
    }

    assert ids(heartbeat_targets(some, "192.0.2.2")) == ["b", "c"]
    assert ids(heartbeat_targets(some, "192.0.2.9")) == ["a", "b", "c"]


def test_when_all_have_ids_nobody_can_tell() -> None:
    some = {"b": instance("b"), "a": instance("a")}

    assert heartbeat_targets(some, "192.0.2.1") == Ambiguous(("a", "b"))
