"""How many requests of one service are under way, and which wait for their turn.

Who comes when it is full waits, within a bound of waiting requests and of time, and goes in the
order of coming.  Beyond the bound one is turned away at once: a longer queue only makes everyone
in it too late.
"""

from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Entry(Enum):
    """What became of one who came."""

    ENTERED = "entered"
    WAITING = "waiting"
    FULL = "full"


class Gate(Generic[T]):
    """At most *limit* inside, at most *room* waiting, each for at most *patience* seconds."""

    def __init__(self, limit: int, room: int, patience: float) -> None:
        self.limit = limit
        self.room = room
        self.patience = patience
        self.inside = 0
        self._waiting: dict[T, float] = {}

    def __repr__(self) -> str:
        return f"<Gate {self.inside} of {self.limit} inside, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def enter(self, who: T, now: float) -> Entry:
        """Let *who* in, or wait, or neither."""
        if self.inside < self.limit:
            self.inside += 1
            return Entry.ENTERED
        if len(self._waiting) >= self.room:
            return Entry.FULL
        self._waiting[who] = now + self.patience
        return Entry.WAITING

    def leave(self) -> T | None:
        """Somebody inside is done; who enters in its place, if anyone waits."""
        self.inside -= 1
        if not self._waiting or self.inside >= self.limit:
            return None
        first = next(iter(self._waiting))
        del self._waiting[first]
        self.inside += 1
        return first

    def give_up(self, who: T) -> bool:
        """*who* waits no longer; whether it did wait."""
        return self._waiting.pop(who, None) is not None

    def overdue(self, now: float) -> list[T]:
        """Those whose patience is over; they wait no longer."""
        late = []
        for who, until in self._waiting.items():
            if until > now:
                break  # they came in this order, and have the same patience
            late.append(who)
        for who in late:
            del self._waiting[who]
        return late
