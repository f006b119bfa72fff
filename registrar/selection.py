"""Choosing among instances: the one that stands for its service, those a heartbeat means."""

import bisect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from registry.model import Instance


class Rng(Protocol):
    """A source of numbers in [0, 1), such as `random.Random`."""

    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """A heartbeat without an id could mean any of these, each registered with one."""

    ids: tuple[str, ...]


def heartbeat_targets(
    instances: Mapping[str, Instance], caller: str
) -> tuple[Instance, ...] | Ambiguous:
    """The instances that a heartbeat without an id renews; empty when there is none.

    *caller* is the address it came from.
    """
    # 1. The only instance.
    # 2. Among several, those registered without an id from the caller's address.
    # 3. None from there: all registered without an id.
    # 4. Every one was registered with an id: nobody can tell.
    if len(instances) <= 1:
        return tuple(instances.values())
    unnamed = [i for _, i in sorted(instances.items()) if not i.registration.named]
    from_there = [i for i in unnamed if i.registration.caller == caller]
    if from_there or unnamed:
        return tuple(from_there or unnamed)
    return Ambiguous(tuple(i.registration.instance for _, i in sorted(instances.items())))


def candidates(instances: Iterable[Instance]) -> list[Instance]:
    """Those of which DNS would have a client take one: of lowest priority among the answered.

    Where DNS answers none, the first by id that is listed at all; empty without instances.
    """
    listed = sorted(instances, key=lambda i: i.id)
    answered = [i for i in listed if i.in_dns]
    if not answered:
        return listed[:1]
    best = min(map(_rank, answered))
    return [i for i in answered if _rank(i) == best]


def _rank(instance: Instance) -> tuple[bool, int]:
    # A suspect is answered behind everyone whose lease is good.
    return instance.state == "suspect", instance.registration.priority


def cumulative_weights(weights: Sequence[int]) -> tuple[float, ...]:
    """For `pick`: the running sums by which RFC 2782 has a client choose.

    All the weights of 0 share one part in sum + 1: "a very small chance of being
    selected".  Among nothing but zeros, each has the same.
    """
    zeros = weights.count(0)
    return tuple(itertools.accumulate(w or 1 / zeros for w in weights))


def pick(cumulative: Sequence[float], rng: Rng) -> int:
    """An index into what *cumulative* was made from, by weight."""
    return min(bisect.bisect(cumulative, rng.random() * cumulative[-1]), len(cumulative) - 1)
