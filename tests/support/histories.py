"""Whether what clients saw of one instance can have happened one call after the other.

Wing and Gong's search: some call that no other had ended before must have been the first; try each
that the model allows, and go on with the rest.  Instances do not touch one another, so each has
a history of its own, short enough to search.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Verb = Literal["register", "renew", "deregister"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when it began and ended, and whether it found the instance there.

    `found` is None when no answer came: it may have happened, even later, or not at all.
    """

    verb: Verb
    began: float
    ended: float
    found: bool | None

    @classmethod
    def unanswered(cls, verb: Verb, began: float) -> "Call":
        return cls(verb, began, math.inf, None)


@dataclass(frozen=True, slots=True)
class Live:
    """The instance is there; nobody may find it gone before `until`."""

    until: float


State = Live | None
"""None: it is not there."""

ABSENT: tuple[State, ...] = (None,)

UNKNOWN: tuple[State, ...] = (None, Live(-math.inf))
"""What a history that begins in the middle may begin with."""


def is_linearizable(
    history: Iterable[Call], lease: float, begins: Sequence[State] = ABSENT
) -> bool:
    """Whether the calls of one instance, whose leases last *lease* seconds, have an order."""
    calls = sorted(history, key=lambda call: call.began)
    everything = (1 << len(calls)) - 1
    tried: set[tuple[int, State]] = set()
    todo: list[tuple[int, State]] = [(everything, state) for state in begins]
    while todo:
        left, state = todo.pop()
        if (left, state) in tried:
            continue
        tried.add((left, state))
        mine = [n for n in range(len(calls)) if left >> n & 1]
        if all(calls[n].found is None for n in mine):
            return True  # those that nobody heard of need not have happened
        first_end = min(calls[n].ended for n in mine)
        for n in mine:
            if calls[n].began > first_end:
                break
            todo += [(left & ~(1 << n), after) for after in _steps(calls[n], state, lease)]
    return False


def _steps(call: Call, state: State, lease: float) -> list[State]:
    """The states that *call* may leave behind; none when it cannot have been answered so."""
    before: list[State] = [state]
    if state is not None and call.ended >= state.until:
        before.append(None)  # its lease may have ended just before
    after: list[State] = []
    for there in before:
        if call.found is not None and call.found != (there is not None):
            continue
        if call.verb == "deregister":
            after.append(None)
        elif call.verb == "register" or there is not None:
            after.append(Live(call.began + lease))
        else:
            after.append(None)
    return after
