"""Hops 4 to 6 of a request, and what follows when they fail: leave out the sick, choose, pass it
on; try again where that is safe.

A request that is with an instance comes back here only when something went wrong.
"""

from collections import Counter
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, Final

from resolver_gateway import balancer
from resolver_gateway.balancer import BY_CHANCE, Algorithm, Ballot, Upstream
from resolver_gateway.call import Call
from resolver_gateway.learning import Learner, of_dns
from resolver_gateway.metrics import Counts
from resolver_gateway.outgoing import HeadWriter
from resolver_gateway.pool import ConnectFailed, Pool
from resolver_gateway.resolver import Resolver
from resolver_gateway.retry import IDEMPOTENT, MAX_ATTEMPTS, NEVER_LEFT, Failure, may_retry
from resolver_gateway.routing import Named
from resolver_gateway.srv import Resolution

MAX_DIALS: Final = 10
"""Attempts of one request while none has left: connecting costs an instance little."""

FAILURE_STATUS: Final = {Failure.TIMEOUT: 504, Failure.CONNECT_TIMEOUT: 504}
"""What a client is told when nothing is left to try; 502 for the others."""

MAX_ADMITTED: Final = 256
"""Names with an instance out whose admitted ones are remembered; all are forgotten beyond."""


class Attempts:
    """What is tried for requests."""

    def __init__(
        self,
        resolver: Resolver,
        pool: Pool,
        learner: Learner,
        writer: HeadWriter,
        counts: Counts,
        clock: Callable[[], float],
        *,
        start: Callable[[Coroutine[Any, Any, None]], None],
        random: Callable[[], float],
        hash_key: Callable[[Call], bytes | None],
        upstream_timeout: float,
        timed: bool,
    ) -> None:
        self._resolver = resolver
        self._pool = pool
        self._learner = learner
        self._outliers = learner.outliers
        self._writer = writer
        self._counts = counts
        self._clock = clock
        self._start = start
        self._random = random
        self._hash_key = hash_key
        self._upstream_timeout = upstream_timeout
        self._timed = timed
        self._load: Counter[str] = Counter()
        self._admitted: dict[str, tuple[Resolution, int, float, Ballot]] = {}

    def __repr__(self) -> str:
        return f"<Attempts with {self._outliers!r}>"

    def begin(self, call: Call, named: Named, resolution: Resolution, now: float) -> None:
        """The first attempt of *call*, whose standing is set."""
        assert call.standing is not None
        call.standing.budget.count(now)
        call.resolution = resolution
        self._attempt(call, named, resolution, now)

    def _attempt(self, call: Call, named: Named, resolution: Resolution, now: float) -> None:
        upstream = self._choose(call, named, resolution, now)
        call.attempts += 1
        call.upstream = upstream
        head = self._writer.head_for(call, named, upstream)
        if head is None:
            call.refuse(508, "loop", "the request has passed this gateway before (Via)")
            return
        connection = None
        if not call.fresh_only:
            careful = call.head.method not in IDEMPOTENT
            connection = self._pool.take(upstream, now, careful=careful)
        if connection is not None:
            if self._timed:
                call.sent_at = now
            call.send(connection, head, now)
        else:
            self._start(self._dial(call, upstream, head, now))

    # --- hops 4 and 5: leave out the sick, choose

    def _choose(self, call: Call, named: Named, resolution: Resolution, now: float) -> Upstream:
        """The upstream for the next attempt: none that was tried, while there are others."""
        in_trouble = named.service in self._outliers.troubled
        if call.tried:
            ballot = self._untried(call, resolution, now)
        elif in_trouble:
            ballot = self._admitted_of(call, named, resolution, now)
        else:
            ballot = resolution.ballot
        if named.plain:
            upstream = ballot.pick(self._random)
        else:
            upstream = self._balanced(call, named, ballot)
            self._hurry(call, named, now)
        if in_trouble and self._outliers.chosen(upstream, now):
            self._counts.probes += 1
        return upstream

    def _untried(self, call: Call, resolution: Resolution, now: float) -> Ballot:
        upstreams = resolution.upstreams
        admitted = self._outliers.admit(upstreams, now, careful=_careful(call))
        untried = [u for u in admitted if u.key not in call.tried]
        return Ballot(untried or [u for u in upstreams if u.key not in call.tried] or upstreams)

    def _admitted_of(self, call: Call, named: Named, resolution: Resolution, now: float) -> Ballot:
        """Those that are not out, remembered until an event or time may change who that is."""
        known = self._admitted.get(named.name)
        changes = self._outliers.changes
        if known is not None and known[0] is resolution and known[1] == changes and now < known[2]:
            return known[3]
        until = self._outliers.settled_until(named.service)
        ballot = Ballot(self._outliers.admit(resolution.upstreams, now, careful=_careful(call)))
        if now < until:
            if len(self._admitted) >= MAX_ADMITTED:
                self._admitted.clear()
            self._admitted[named.name] = resolution, changes, until, ballot
        return ballot

    def _balanced(self, call: Call, named: Named, ballot: Ballot) -> Upstream:
        balance = named.rule.balance
        key = self._hash_key(call) if balance.algorithm is Algorithm.HASH else None
        if call.tried and balance.algorithm is Algorithm.ROUND_ROBIN:
            balance = BY_CHANCE  # a ballot of its own has no turns to go on with
        upstream = balancer.choose(ballot, balance, self._random, self._load, key)
        if balance.algorithm is Algorithm.LEAST_REQUESTS:
            call.loads = upstream.key
            self._load[upstream.key] += 1
        return upstream

    def _hurry(self, call: Call, named: Named, now: float) -> None:
        """How long the instance may take to begin its answer."""
        rule = named.rule
        if rule.try_timeout or rule.request_timeout:
            patience = rule.try_timeout or self._upstream_timeout
            call.patience = max(0.001, min(patience, _time_left(call, named, now)))

    # --- hop 6: pass it on, on a new connection

    async def _dial(self, call: Call, upstream: Upstream, head: bytes, began: float) -> None:
        try:
            connection = await self._pool.dial(upstream)
        except ConnectFailed as error:
            if not call.over:
                self.failed(call, error.failure, error.detail, reused=False)
            return
        now = self._clock()
        if call.over:
            self._pool.give(connection, now)
        elif connection.transport.is_closing():
            self.failed(call, Failure.CLOSED, "closed at once", reused=False)
        else:
            if self._timed:
                call.spend("connect", now - began)
                call.sent_at = now
            call.send(connection, head, now)

    # --- when it failed

    def failed(self, call: Call, failure: Failure, detail: str, *, reused: bool) -> None:
        """An attempt of *call* failed before anything was answered: try again, or give up."""
        now, named = self._clock(), call.named
        assert named is not None
        self._counts.failures[failure.value] += 1
        self.unload(call)
        again = may_retry(
            failure,
            call.head.method,
            answering=call.informed,
            replayable=call.replayable,
            try_timeout=named.rule.try_timeout,
        )
        if failure is Failure.CLOSED and reused and not call.fresh_only:
            # It was being closed while we sent: no fault of the instance, and no extra load.
            call.fresh_only = True
            if again:
                self._retry(call, named, now)
                return
        else:
            self._learner.attempt_failed(call, failure.value, now)
        if again and self._may_try_again(call, named, failure, now):
            self._retry(call, named, now)
        elif failure in NEVER_LEFT and not call.informed and of_dns(call):
            self._start(self._renew(call, named, failure, detail))
        else:
            self._give_up(call, failure, detail, now)

    def _may_try_again(self, call: Call, named: Named, failure: Failure, now: float) -> bool:
        assert call.resolution is not None
        assert call.standing is not None
        if _time_left(call, named, now) <= 0:
            return False
        if failure in NEVER_LEFT:
            untried = any(u.key not in call.tried for u in call.resolution.upstreams)
            return untried and call.attempts < MAX_DIALS
        if call.attempts >= MAX_ATTEMPTS:
            return False
        if call.standing.budget.allows(now):
            return True
        self._counts.retries_denied += 1
        return False

    def _retry(self, call: Call, named: Named, now: float) -> None:
        """Another attempt, at an instance that is there now: the first may have taken long."""
        self._counts.retries += 1
        if of_dns(call):
            call.resolution = self._resolver.cache.known(named.name) or call.resolution
        assert call.resolution is not None
        self._attempt(call, named, call.resolution, now)

    async def _renew(self, call: Call, named: Named, failure: Failure, detail: str) -> None:
        """No instance takes a connection: all may have been replaced, so ask where they are."""
        resolution = await self._resolver.renew(named.name)
        if call.over:
            return
        now = self._clock()
        if resolution is not None and any(u.key not in call.tried for u in resolution.upstreams):
            self._retry(call, named, now)
        else:
            self._give_up(call, failure, detail, now)

    def _give_up(self, call: Call, failure: Failure, detail: str, now: float) -> None:
        assert call.resolution is not None
        self._learner.gave_up(call, now)
        why = self._learner.why(call, call.resolution, now)
        call.refuse(FAILURE_STATUS.get(failure, 502), failure.value, detail, None, **why)

    def unload(self, call: Call) -> None:
        """The request is not with its instance any more."""
        if call.loads:
            self._load[call.loads] -= 1
            if not self._load[call.loads]:
                del self._load[call.loads]
            call.loads = ""


def _careful(call: Call) -> bool:
    """Whether the request cannot be repeated elsewhere."""
    return call.head.method not in IDEMPOTENT or not call.replayable


def _time_left(call: Call, named: Named, now: float) -> float:
    """Seconds that *call* has in all until an answer must have begun."""
    total = named.rule.request_timeout
    return call.began + total - now if total else inf
