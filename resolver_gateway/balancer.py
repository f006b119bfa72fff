"""Which upstream: RFC 2782's priority first, then its weights.

The sums are made once a resolution, so that a pick is one random number and one bisection.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

Random = Callable[[], float]
"""A uniform number in [0, 1)."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """An endpoint of an instance, as the gateway sees it."""

    service: str
    instance: str
    address: str
    port: int
    priority: int = 0
    weight: int = 1
    tls_name: str = ""
    """The name its certificate must have; empty: plain HTTP."""
    base: bytes = b""
    """What stands before every path there: a fallback's URL may have one."""
    where: str = ""
    """`10.0.0.1:8080`, `[fd00::1]:8080`; this and the key are made by `upstream()`."""
    key: str = ""
    """One string for all of the above that makes a connection."""

    def __repr__(self) -> str:
        return f"<Upstream {self.where} weight={self.weight}>"


def upstream(
    service: str,
    instance: str,
    address: str,
    port: int,
    priority: int = 0,
    weight: int = 1,
    tls_name: str = "",
    base: bytes = b"",
) -> Upstream:
    """An upstream with its key: connections of one service are never another's."""
    key = f"{service}/{instance}/{address}/{port}/{tls_name}"
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return Upstream(service, instance, address, port, priority, weight, tls_name, base, where, key)


class Ballot:
    """The upstreams of lowest priority, ready to be drawn from."""

    __slots__ = ("_sums", "_total", "_weighted", "_zero")

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        lowest = min(u.priority for u in upstreams)
        tier = [u for u in upstreams if u.priority == lowest]
        self._zero = [u for u in tier if u.weight == 0]
        self._weighted = [u for u in tier if u.weight > 0]
        self._sums = list(accumulate(u.weight for u in self._weighted))
        self._total = self._sums[-1] if self._sums else 0

    def pick(self, random: Random) -> Upstream:
        """One of them, by weight.

        RFC 2782: a number from 0 to the sum of weights, inclusive; those of weight 0 stand first
        and share the 0, so they get "a very small chance".
        """
        if len(self._weighted) == 1 and not self._zero:
            return self._weighted[0]
        if not self._zero:
            return self._weighted[bisect_left(self._sums, int(random() * self._total) + 1)]
        drawn = int(random() * (self._total + 1))
        if drawn == 0:
            return self._zero[int(random() * len(self._zero))]
        return self._weighted[bisect_left(self._sums, drawn)]


def pick(upstreams: Sequence[Upstream], random: Random) -> Upstream:
    """One of *upstreams* (at least one) by priority and weight."""
    return Ballot(upstreams).pick(random)
