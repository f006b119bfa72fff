"""What is learnt from how requests went: who is ejected, which breaker opens; and what of it is
told."""

from typing import Final

from registry.runtime import logs
from resolver_gateway.balancer import Upstream
from resolver_gateway.cache import SrvCache
from resolver_gateway.call import Call
from resolver_gateway.metrics import Counts
from resolver_gateway.outlier import OutlierDetector
from resolver_gateway.retry import Failure, Standings
from resolver_gateway.srv import Resolution

GATEWAY_FAILURES: Final = frozenset({502, 503, 504})
"""Answers that count against their instance: it, or what it stands before, cannot serve.  A 500
does not: a request that makes every instance fail must not have half of them ejected."""

MAX_DESCRIBED: Final = 16
"""Instances that a problem lists."""

log = logs.get("gateway")


class Learner:
    """The health of instances, and the standing of names."""

    def __init__(self, outliers: OutlierDetector, cache: SrvCache, counts: Counts) -> None:
        self.outliers = outliers
        self.standings = Standings()
        self._cache = cache
        self._counts = counts

    def __repr__(self) -> str:
        return f"<Learner {self.outliers!r}, {self.standings!r}>"

    def attempt_failed(self, call: Call, reason: str, now: float) -> None:
        """An instance failed *call*, which may still go to another one."""
        assert call.upstream is not None
        call.tried |= {call.upstream.key}
        self._failed(call, call.upstream, reason, now)

    def gave_up(self, call: Call, now: float) -> None:
        """Nothing is left to try for *call*."""
        assert call.resolution is not None
        assert call.standing is not None
        if not of_dns(call):
            return  # a fallback's failure says nothing about the instances
        breaker = call.standing.breaker
        nothing_left = self.outliers.all_failing(call.resolution.upstreams)
        was_closed = breaker.opened_at is None
        if breaker.failure(now, nothing_left=nothing_left) and was_closed:
            self._counts.breaker_opens += 1
            log.warning("breaker opened", service=str(call.named), failures=breaker.failures)

    def broken(self, call: Call, failure: Failure, now: float) -> None:
        """An answer broke off after it had begun."""
        self._counts.failures[failure.value] += 1
        self.attempt_failed(call, failure.value, now)
        self.gave_up(call, now)

    def ended(self, call: Call, cause: str, now: float) -> None:
        """*call* is over; *cause* is empty when an upstream's answer went out whole."""
        upstream, standing = call.upstream, call.standing
        if upstream is None or standing is None:
            return
        if not cause:
            assert call.resolution is not None
            if call.status in GATEWAY_FAILURES:
                self._failed(call, upstream, f"status-{call.status}", now)
            else:
                self.outliers.record(upstream, True, now, call.resolution.upstreams)
            if standing.breaker.failures and of_dns(call):
                if standing.breaker.opened_at is not None:
                    log.info("breaker closed", service=str(call.named))
                standing.breaker.success()
        elif of_dns(call):
            standing.breaker.abandoned()  # it told nothing, or `gave_up` has been told already

    def _failed(self, call: Call, upstream: Upstream, reason: str, now: float) -> None:
        """*upstream* failed for *reason*, which may eject it."""
        assert call.resolution is not None
        if self.outliers.record(upstream, False, now, call.resolution.upstreams, reason):
            self._counts.ejections += 1
            log.info(
                "instance ejected", service=upstream.service, upstream=upstream.where, reason=reason
            )

    # --- what is told of it

    def why(self, call: Call, resolution: Resolution, now: float) -> dict[str, object]:
        """What a problem says of the instances that were known, and how old that knowledge is."""
        assert call.named is not None
        told: dict[str, object] = {
            "instances": [self.describe(u, now) for u in resolution.upstreams[:MAX_DESCRIBED]]
        }
        status = self._cache.status(call.named.name, now)
        if status is not None:
            told["dns"] = {"age": round(status.age, 1), "ttl_remaining": round(status.left, 1)}
        return told

    def describe(self, upstream: Upstream, now: float) -> dict[str, object]:
        """An upstream as the status page and problems show it."""
        health = self.outliers.health(upstream)
        ejected_until = health.ejected_until if health is not None else 0.0
        return {
            "instance": upstream.instance,
            "address": upstream.where,
            "priority": upstream.priority,
            "weight": upstream.weight,
            "state": self.outliers.state_of(upstream, now),
            "failures": health.failures if health is not None else 0,
            "reason": health.reason if health is not None else "",
            "ejected_for": round(max(0.0, ejected_until - now), 1),
        }


def of_dns(call: Call) -> bool:
    """Whether the instances of *call* are those that DNS names."""
    return call.resolution is not None and call.resolution.source == "dns"
