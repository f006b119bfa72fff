"""How fast somebody may ask: the generic cell rate algorithm, one number for each who asks.

The number is the theoretical arrival time of the next request (ITU-T I.371): a request that comes
earlier than that by more than the burst allows is refused, and changes nothing.
"""

from typing import Final

CAPACITY: Final = 65_536
"""Keys in each of the two generations: 128 k addresses at most, some 20 MB.  Beyond it those that
asked longest ago are forgotten, which gives each its burst anew; a stranger with that many
addresses gets no more than their sum would have in any case."""


class Rates:
    """Limits every key to *rate* requests a second, *burst* of them at once."""

    def __init__(self, rate: float, burst: int, capacity: int = CAPACITY) -> None:
        assert rate > 0
        assert burst >= 1
        self.rate = rate
        self.burst = burst
        self._interval = 1.0 / rate
        self._tolerance = (burst - 1) * self._interval
        self._capacity = capacity
        self._due: dict[str, float] = {}
        self._earlier: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Rates {self.rate:g}/s burst {self.burst}, {len(self)} keys>"

    def __len__(self) -> int:
        return len(self._due) + len(self._earlier)

    def take(self, key: str, now: float) -> float:
        """0.0 when *key* may ask at *now*, which then counts; else the seconds until it may."""
        due = self._due.get(key)
        if due is None:
            due = self._earlier.pop(key, now)
        if due < now:
            due = now
        wait = due - now - self._tolerance
        # A hair of tolerance: sums of intervals and of times round differently.
        if wait > 1e-9:
            self._keep(key, due)
            return wait
        self._keep(key, due + self._interval)
        return 0.0

    def _keep(self, key: str, due: float) -> None:
        if key not in self._due and len(self._due) >= self._capacity:
            self._earlier = self._due
            self._due = {}
        self._due[key] = due

    def forget_idle(self, now: float) -> None:
        """Drop the keys whose whole burst is theirs again; called now and then."""
        self._due = {key: due for key, due in self._due.items() if due > now}
        self._earlier = {key: due for key, due in self._earlier.items() if due > now}
