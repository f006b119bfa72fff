"""How an instance leaves: out of DNS, a wait until caches have forgotten it, then for good."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that each step of leaving may take, whatever the registrar does."""

    call: float = 1.0
    """One call, also one that is under way already: two fit where a registrar hangs."""

    drain: float = 2.0
    """A registrar that does not take `draining` by then is left: deregistering is next."""

    lame_duck: float = 7.0
    """Longest wait after draining; with the rest it fits into the 10 s that Docker gives."""

    deregister: float = 3.0
    """Spent on deregistering; after that the lease ends by itself."""

    total: float = 8.8
    """From the wish to stop to the end: the life cycle has 9."""


class Step(Enum):
    """Where an instance that is to stop stands."""

    DRAIN = "drain"
    LAME_DUCK = "lame duck"
    DEREGISTER = "deregister"
    OVER = "over"


@dataclass(slots=True)
class Stop:
    """How far an instance that is to stop has come; *lame_duck* seconds are wished for."""

    began: float
    lame_duck: float
    limits: Limits
    drained_at: float | None = None
    gave_up_at: float | None = None

    def step(self, *, is_serving: bool, now: float) -> Step:
        """What is to be done at *now*."""
        # 1. Time is up.
        # 2. Out of DNS first, so that nobody is sent to what is about to end.
        # 3. Wait until caches have forgotten it; the lease is renewed as ever.
        # 4. Deregister, for as long as there is time.
        if now >= self.began + self.limits.total:
            return Step.OVER
        may_drain = self.lame_duck > 0 and now < self.drain_ends_at
        if self.drained_at is None and is_serving and may_drain:
            return Step.DRAIN
        if now < self.lame_duck_ends_at:
            return Step.LAME_DUCK
        if self.gave_up_at is None:
            latest = self.began + self.limits.total
            self.gave_up_at = min(now + self.limits.deregister, latest)
        return Step.DEREGISTER if now < self.gave_up_at else Step.OVER

    def hurry(self) -> None:
        """Leave out what is left of draining and of the wait: nothing answers any more."""
        self.lame_duck = 0.0

    @property
    def drain_ends_at(self) -> float:
        return self.began + self.limits.drain

    @property
    def lame_duck_ends_at(self) -> float:
        """When caches have forgotten it; the beginning where it was never drained."""
        if self.drained_at is None:
            return self.began
        wait = self.drained_at + self.lame_duck
        return min(wait, self.began + self.limits.lame_duck)
