"""Hop 3 of a request: which of the versions, where is it, and is it worth a try?

When discovery has nothing to offer, the environment may (`fallback.py`).
"""

from collections.abc import Callable, Coroutine
from typing import Any

from resolver_gateway import balancer
from resolver_gateway.attempts import Attempts
from resolver_gateway.balancer import Algorithm
from resolver_gateway.cache import Absent, Fresh, Stale
from resolver_gateway.call import Call
from resolver_gateway.fallback import Policy
from resolver_gateway.learning import Learner
from resolver_gateway.resolver import Resolver
from resolver_gateway.retry import Standing
from resolver_gateway.routing import Named, draw
from resolver_gateway.srv import Failed, Resolution


class Finder:
    """Finds instances for calls, and hands both to `attempts.py`."""

    def __init__(
        self,
        resolver: Resolver,
        attempts: Attempts,
        learner: Learner,
        clock: Callable[[], float],
        *,
        start: Callable[[Coroutine[Any, Any, None]], None],
        random: Callable[[], float],
        hash_key: Callable[[Call], bytes | None],
        policy: Policy,
    ) -> None:
        self._resolver = resolver
        self._attempts = attempts
        self._learner = learner
        self._clock = clock
        self._start = start
        self._random = random
        self._hash_key = hash_key
        self._policy = policy

    def __repr__(self) -> str:
        return f"<Finder {self._resolver!r}>"

    def find(self, call: Call, named: Named, now: float) -> None:
        """*call* is served now."""
        if named.split:
            call.left = named.split
            self._draw(call, named, now)
        else:
            self.resolve(call, named, now)

    def _draw(self, call: Call, named: Named, now: float) -> None:
        """Which of the versions that share the requests this one gets."""
        key = self._hash_key(call) if named.rule.balance.algorithm is Algorithm.HASH else None
        drawn = self._random() if key is None else balancer.hash_of(key) / balancer.HASHES
        version = draw(call.left, drawn)
        call.left = tuple(part for part in call.left if part[0] is not version)
        call.named = version
        self.resolve(call, version, now)

    def resolve(self, call: Call, named: Named, now: float) -> None:
        """Where is it?  For one whose requests no versions share."""
        found = self._resolver.lookup(named.name, now)
        if type(found) is Fresh:
            call.how = "hit"
            self._resolved(call, named, found.resolution, now)
        elif isinstance(found, Stale) and not found.wait:
            call.how = "stale"
            self._resolved(call, named, found.resolution, now)
        elif isinstance(found, Absent):
            call.how = "hit"
            self._absent(call, named, found, now)
        else:
            self._start(self._wait_for(call, named, now))

    async def _wait_for(self, call: Call, named: Named, began: float) -> None:
        answer, call.how = await self._resolver.resolve(named.name)
        if call.over:
            return
        now = self._clock()
        call.spend("dns", now - began)
        if isinstance(answer, Resolution):
            self._resolved(call, named, answer, now)
        elif isinstance(answer, Absent):
            self._absent(call, named, answer, now)
        else:
            self._unresolved(call, named, answer)

    def _absent(self, call: Call, named: Named, absent: Absent, now: float) -> None:
        if call.left:
            self._draw(call, named, now)  # a version that is not there is no reason to fail
        elif self._policy is Policy.PREFER_DNS and self._has_fallback(named):
            self._start(self._fall_back(call, named))
        elif absent.exists:
            left = round(absent.retry_after, 1)
            call.refuse(
                503,
                "no-instances",
                f"{named} is known, and has no instance now",
                absent.retry_after,
                instances=[],
                dns={"ttl_remaining": left},
            )
        else:
            call.refuse(404, "unknown-service", f"there is no service {named.service}")

    def _unresolved(self, call: Call, named: Named, failed: Failed) -> None:
        if self._policy is not Policy.NEVER and self._has_fallback(named):
            self._start(self._fall_back(call, named))
        else:
            detail = f"nobody told where {named} is: {failed.reason}"
            call.refuse(503, "discovery-unavailable", detail, 1.0, instances=[])

    def _has_fallback(self, named: Named) -> bool:
        """Whether the environment stands in: not for instances that the client chose."""
        return not named.explicit and self._resolver.has_fallback(named.service)

    async def _fall_back(self, call: Call, named: Named) -> None:
        resolution = await self._resolver.fall_back(named.service)
        if call.over:
            return
        if resolution is None:
            detail = f"the fallback for {named.service} cannot be found"
            call.refuse(503, "fallback-unavailable", detail, 1.0)
            return
        call.how = "fallback"
        call.standing = self._learner.standings.of(named.name)
        self._attempts.begin(call, named, resolution, self._clock())

    def _resolved(self, call: Call, named: Named, resolution: Resolution, now: float) -> None:
        standing = call.standing = self._learner.standings.of(named.name)
        if standing.breaker.opened_at is not None and not self._admits(standing, resolution, now):
            self._broken_circuit(call, named, resolution, now)
        else:
            self._attempts.begin(call, named, resolution, now)

    def _admits(self, standing: Standing, resolution: Resolution, now: float) -> bool:
        """Whether an open breaker lets a request pass: its one probe, or because DNS names an
        instance since that has not failed, so that something is left."""
        if not self._learner.outliers.all_failing(resolution.upstreams):
            return True
        return standing.breaker.admits(now)

    def _broken_circuit(self, call: Call, named: Named, known: Resolution, now: float) -> None:
        assert call.standing is not None
        if self._policy is not Policy.NEVER and self._has_fallback(named):
            self._start(self._fall_back(call, named))
            return
        call.refuse(
            503,
            "breaker-open",
            f"every instance of {named} failed; they are left alone for a while",
            call.standing.breaker.retry_after(now),
            **self._learner.why(call, known, now),
        )
