"""A fleet that comes back at once: the sidecars' decisions against a registrar made of numbers.

Time is a heap of events, so that minutes of a thousand sidecars pass in a second.
"""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from sidecar.actions import Register, Renew, Wait
from sidecar.heartbeat import Heartbeat

LEASE = 60.0
GRACE = 5.0

HOLD = 70.0
"""Seconds for which registrars keep what they hold after time in which nobody could renew."""

RETRY_AFTER = 5.0


@dataclass
class Registrar:
    """Leases by number; away from *away* until *back*; so many calls a second, the rest 503."""

    away: float
    back: float
    capacity: float = float("inf")
    deadlines: dict[int, float] = field(default_factory=dict)
    arrivals: Counter[int] = field(default_factory=Counter)
    refusals: int = 0
    renewed_at: dict[int, float] = field(default_factory=dict)
    _allowance: float = 0.0
    _last: float = 0.0

    def is_away(self, now: float) -> bool:
        return self.away <= now < self.back

    def takes(self, now: float) -> bool:
        """Whether there is room for one more call."""
        self.arrivals[int(now)] += 1
        self._allowance += (now - self._last) * self.capacity
        self._allowance, self._last = min(self._allowance, self.capacity), now
        if self._allowance < 1.0 and self.capacity != float("inf"):
            self.refusals += 1
            return False
        self._allowance -= 1.0
        return True

    def deadline(self, number: int, now: float) -> float:
        held = self.back + HOLD if now >= self.back else float("inf")
        kept = self.deadlines[number]
        # What ran out before the outage is over; what could not be renewed in it is kept.
        return max(kept, held) if kept + GRACE >= self.away else kept

    def holds(self, number: int, now: float) -> bool:
        return number in self.deadlines and now <= self.deadline(number, now) + GRACE

    def renew(self, number: int, now: float) -> None:
        self.deadlines[number] = now + LEASE
        self.renewed_at.setdefault(number, now) if now >= self.back else None


@dataclass
class Fleet:
    """Sidecars, each with chance of its own, and the moments at which they have to act."""

    registrar: Registrar
    size: int
    seed: int
    hangs: bool
    lost: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)
        self.heartbeats = [
            Heartbeat(None, random.Random(chance.random()).random) for _ in range(self.size)
        ]
        # Started together: the worst that a deployment can do.
        self.events = [(chance.random(), number) for number in range(self.size)]
        heapq.heapify(self.events)

    def play(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            now, number = heapq.heappop(self.events)
            heapq.heappush(self.events, (self.act(number, now), number))

    def act(self, number: int, now: float) -> float:
        """Obey one heartbeat; when it is to be asked again."""
        heartbeat, registrar = self.heartbeats[number], self.registrar
        action = heartbeat.next_action(wanted="serving", now=now)
        if isinstance(action, Wait):
            return now + max(action.seconds, 0.001)
        assert isinstance(action, Register | Renew)
        if registrar.is_away(now):
            later = now + (5.0 if self.hangs else 0.001)
            heartbeat.failed(later)
            return later
        if not registrar.takes(now):
            heartbeat.failed(now, RETRY_AFTER)
            return now
        if isinstance(action, Register):
            was_there = registrar.holds(number, now)
            if not was_there and number in registrar.deadlines:
                self.lost.append((number, now))
            registrar.renew(number, now)
            heartbeat.lease_granted(
                f"lease-{number}", ttl=LEASE, created=not was_there, sent_at=now
            )
            heartbeat.state_learned("serving", "")
        elif registrar.holds(number, now):
            registrar.renew(number, now)
            heartbeat.renewed(now)
        else:
            self.lost.append((number, now))
            heartbeat.lease_lost(now)
        return now + 0.001


def come_back(fleet: Fleet, seconds: float) -> None:
    """Play until so many seconds after the registrar's return; nobody may be overdue then."""
    end = fleet.registrar.back + seconds
    fleet.play(end)
    overdue = [n for n in fleet.registrar.deadlines if not fleet.registrar.holds(n, end)]
    assert (fleet.lost, overdue) == ([], [])


@pytest.mark.parametrize(
    ("outage", "hangs"), [(10.0, False), (10.0, True), (90.0, True), (600.0, False)]
)
def test_a_thousand_come_back_spread_out_and_none_is_lost(outage: float, hangs: bool) -> None:
    """However long it was: within the 70 s that registrars allow, and never in a heap."""
    registrar = Registrar(away=100.0, back=100.0 + outage)
    fleet = Fleet(registrar, 1000, seed=int(outage), hangs=hangs)

    come_back(fleet, seconds=HOLD)

    assert len(registrar.renewed_at) == 1000
    # Steady, it is 40 to 44 a second.
    after = [n for second, n in registrar.arrivals.items() if second >= registrar.back]
    assert max(after) <= 200


def test_a_registrar_that_has_room_for_few_says_so_and_loses_nobody() -> None:
    """Half as much room again as the fleet needs from day to day: 503 with Retry-After for the
    rest, and all are back within 90 s."""
    registrar = Registrar(away=100.0, back=190.0, capacity=1.5 * 2000 / 25)
    fleet = Fleet(registrar, 2000, seed=7, hangs=True)

    come_back(fleet, seconds=90.0)

    assert len(registrar.renewed_at) == 2000
    assert max(registrar.renewed_at.values()) - registrar.back <= 90.0
    assert registrar.refusals > 0


def test_a_fleet_that_was_started_at_once_does_not_beat_as_one() -> None:
    registrar = Registrar(away=1e9, back=1e9)
    fleet = Fleet(registrar, 1000, seed=3, hangs=False)

    fleet.play(200.0)

    late = [registrar.arrivals[second] for second in range(10, 200)]
    assert max(late) <= 2.5 * sum(late) / len(late)
    assert fleet.lost == []
