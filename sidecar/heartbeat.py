"""What the sidecar does next for one instance: register, renew, report its state, deregister, wait.

Nothing here knows HTTP, clocks or chance; agent.py obeys what this module
decides and tells it what came of it.  Times are seconds of one monotonic clock.
"""

from collections.abc import Callable
from dataclasses import dataclass

MAX_SHARE = 0.45
"""Renewals are at most this share of the lease apart: one may be lost, and a second still fits."""

DEFAULT_SHARE = 5 / 12
"""What registrars advise (25 s of 60), for the answer that does not say."""

JITTER = 0.1
"""Renewals come up to a tenth early, never late, so that a fleet started at once spreads out."""

WINDOW_RETRY = 8.0
"""Longest pause between attempts while the lease lives: 1, 2, 4, 8 s within a lease of 60 s.

Shorter leases have shorter pauses, in proportion.
"""

MAX_BACKOFF = 60.0
"""Longest pause without a lease; after an outage registrars keep leases 70 s longer for it."""

MIN_BACKOFF = 0.1
"""Full jitter may draw nothing at all, which would be a busy loop."""

REFUSED_PACE = 60.0
"""Seconds until a request that was refused is tried again: only a human can mend it."""

JOIN_SHARE = 0.2
"""A renewal due within this share of its interval goes along with another's, in one request."""

DRAIN_BUDGET = 2.0
"""Seconds after which a registrar that does not take `draining` is left: deregistering is next."""

MAX_LAME_DUCK = 7.0
"""Longest wait after draining; with the rest it fits into the 10 s that Docker gives."""

DEREGISTER_BUDGET = 3.0
"""Seconds spent on deregistering; after that the lease ends by itself."""

STOP_BUDGET = 8.8
"""Seconds from the wish to stop to the end, whatever the registrar does: the life cycle has 9."""

OURS = "sidecar: "
"""How the reasons of states begin that a sidecar has set; any other is an operator's and stays."""


@dataclass(frozen=True, slots=True)
class Register:
    """Ask for a lease, with the instance's present data."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Send a heartbeat for the lease; each registrar has *timeout* seconds to answer."""

    lease_id: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Read in which state the registrar holds the instance."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the registrar the instance's state."""

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Deregister:
    """Give the lease back; without *lease_id* the answer to a registration never came."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for *seconds*, unless health changes or something is answered."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing to do any more."""


Action = Register | Renew | Ask | Report | Deregister | Wait | Stopped


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to be answered until *ends_at*, by our clock; the registrar's may be later."""

    lease_id: str
    ttl: float
    every: float
    ends_at: float

    @property
    def timeout(self) -> float:
        """Seconds one attempt may take: 5, less for short leases, so that several fit."""
        return min(5.0, max(0.5, self.ttl / 10))


@dataclass(slots=True)
class Stop:
    """How far an instance that is to stop has come."""

    began: float
    lame_duck: float
    drained_at: float | None = None
    gave_up_at: float | None = None


class Heartbeat:
    """One instance's lease, as far as we know it, and what is due next.

    *interval* is the configured one (None: what the registrar says); *random* gives
    numbers in [0, 1).  Used by one owner: an action, its outcome, the next action.
    """

    def __init__(self, interval: float | None, random: Callable[[], float]) -> None:
        self._interval = interval
        self._random = random
        self.lease: Lease | None = None
        self.last_renewal: float | None = None
        self._next_at = 0.0
        self._failures = 0
        self._losses = 0
        self._changed = False
        self._owed: str | None = None
        self._held = ""
        self._held_is_fresh = False
        self._foreign = False
        self._report_at = 0.0
        self._report_failures = 0
        self._stop: Stop | None = None
        self._over = False

    def __repr__(self) -> str:
        if self._over:
            return "<Heartbeat stopped>"
        kind = "stopping" if self._stop else "leased" if self.lease else "unregistered"
        held = f" {self._held}" if self.lease and self._held else ""
        failing = f" {self._failures} failures" if self._failures else ""
        return f"<Heartbeat {kind}{held}{failing}>"

    @property
    def held(self) -> str:
        """The state in which the registrar holds us, as far as known; "" when it is not."""
        return self._held if self.lease is not None else ""

    @property
    def is_held_by_operator(self) -> bool:
        """Whether the registrar holds us in a state that somebody else has set."""
        return self.lease is not None and self._foreign

    # --- what next ---------------------------------------------------------------------

    def next_action(self, *, healthy: bool, reason: str = "", now: float) -> Action:
        """What to do at *now*; *reason* says why the instance is not healthy."""
        if self._stop is not None:
            return self._stopping(self._stop, now)
        if self.lease is None:
            # An unhealthy instance is not registered: it would be answered for until
            # the report that follows.  Health wakes us, so the wait need not be short.
            if not healthy:
                return Wait(MAX_BACKOFF)
            return Register() if now >= self._next_at else Wait(self._next_at - now)
        report = self._report(self.lease, healthy, reason, now)
        if not isinstance(report, Wait):
            return report
        if now < self._next_at:
            return Wait(min(report.seconds, self._next_at - now))
        # A lease that passed unanswered is asked for anew; an error alone proves nothing.
        if healthy and (self._changed or now >= self.lease.ends_at):
            return Register()
        return Renew(self.lease.lease_id, self.lease.timeout)

    def joins(self, now: float) -> Renew | None:
        """The renewal to send now along with another instance's; None when it is not near."""
        lease = self.lease
        if lease is None or self._stop is not None or self._changed or self._failures:
            return None
        near = now < lease.ends_at and self._next_at - now <= JOIN_SHARE * lease.every
        return Renew(lease.lease_id, lease.timeout) if near else None

    def _report(self, lease: Lease, healthy: bool, reason: str, now: float) -> Action:
        wanted = "serving" if healthy else "unhealthy"
        # 1. The registrar has what we want: nothing.
        # 2. An operator took it out of DNS: theirs to end; see whether they did, if we would
        #    have to take it out ourselves.
        # 3. What it has may be old: ask, lest an operator's state be overwritten.
        # 4. Report.
        if self._held == wanted or (self._foreign and healthy):
            return Wait(MAX_BACKOFF)
        if now < self._report_at:
            return Wait(self._report_at - now)
        if not self._held_is_fresh:
            return Ask()
        if self._foreign:
            self._held_is_fresh = False
            self._report_at = now + lease.every
            return Wait(lease.every)
        return Report(wanted, "" if healthy else (OURS + reason))

    def _stopping(self, stop: Stop, now: float) -> Action:
        # 1. Nothing was registered, or all is done, or time is up: stopped.
        # 2. Out of DNS first, so that nobody is sent to what is about to end.
        # 3. Wait until caches have forgotten it; the lease is renewed as ever.
        # 4. Deregister.
        if self._over or self._owed is None or now >= stop.began + STOP_BUDGET:
            return Stopped()
        if stop.drained_at is None and self._must_drain(stop, now):
            drain = Report("draining", OURS + "stopping")
            return self._when_due(drain, now, latest=stop.began + DRAIN_BUDGET)
        if stop.drained_at is not None:
            ends_at = min(stop.drained_at + stop.lame_duck, stop.began + MAX_LAME_DUCK)
            left = ends_at - now
            if left > 0:
                return self._lame_duck(left, now)
        if stop.gave_up_at is None:
            stop.gave_up_at = min(now + DEREGISTER_BUDGET, stop.began + STOP_BUDGET)
            self._report_at, self._report_failures = now, 0
        if now >= stop.gave_up_at:
            return Stopped()
        return self._when_due(Deregister(self._owed), now, latest=stop.gave_up_at)

    def _when_due(self, action: Action, now: float, latest: float) -> Action:
        return action if now >= self._report_at else Wait(min(self._report_at, latest) - now)

    def _must_drain(self, stop: Stop, now: float) -> bool:
        serving = self.lease is not None and self._held in ("", "serving")
        return serving and stop.lame_duck > 0 and now < stop.began + DRAIN_BUDGET

    def _lame_duck(self, left: float, now: float) -> Action:
        if self.lease is None:
            return Wait(left)
        if now >= self._next_at:
            return Renew(self.lease.lease_id, min(1.0, self.lease.timeout))
        return Wait(min(left, self._next_at - now))

    # --- what came of it ---------------------------------------------------------------

    def lease_granted(
        self,
        lease_id: str,
        *,
        ttl: float,
        interval: float = 0.0,
        created: bool = True,
        sent_at: float,
    ) -> None:
        """Registered; *interval* is the registrar's advice, *sent_at* when the request left.

        Not *created*: it was there before, perhaps in a state that outlived its last sidecar.
        """
        ttl = ttl if ttl > 0 else MAX_BACKOFF
        every = min(self._interval or interval or ttl * DEFAULT_SHARE, ttl * MAX_SHARE)
        self.lease = Lease(lease_id, ttl, every, sent_at + ttl)
        self._owed = lease_id
        self._changed = False
        if created:
            self._hold("serving", foreign=False)
        else:
            self._hold("", foreign=False)
        self._scheduled(sent_at)

    def renewed(self, sent_at: float) -> None:
        """The lease begins anew, at the earliest when the request left."""
        if (lease := self.lease) is not None:
            self.lease = Lease(lease.lease_id, lease.ttl, lease.every, sent_at + lease.ttl)
            self._losses = 0
            self._scheduled(sent_at)

    def lease_lost(self, now: float) -> None:
        """The registrar says (404, 409) that the lease is not ours: register, at first at once."""
        self.lease = None
        self._hold("", foreign=False)
        self._failures = 0
        self._next_at = now + (self._backoff(self._losses) if self._losses else 0.0)
        self._losses += 1

    def failed(self, now: float, retry_after: float | None = None) -> None:
        """A registration or renewal had no answer, or one that says "later"."""
        if self._owed is None:
            self._owed = ""  # it may have been registered all the same
        self._failures += 1
        if self.lease is not None and now < self.lease.ends_at:
            longest = min(WINDOW_RETRY, WINDOW_RETRY * self.lease.ttl / 60)
            delay = min(longest, 2.0 ** (self._failures - 1)) * self._early()
        else:
            delay = self._backoff(self._failures - 1)
        self._next_at = now + self._at_least(delay, retry_after)

    def refused(self, now: float, retry_after: float | None = None) -> None:
        """The registrar understood and declined; what it has of us, it keeps."""
        self._failures += 1
        self._next_at = now + self._at_least(REFUSED_PACE * self._early(), retry_after)

    def superseded(self, now: float) -> None:
        """A newer sidecar holds this id: nothing of it is ours; look again in a minute."""
        self.lease = None
        self._owed = None
        self._hold("", foreign=False)
        self.refused(now)

    def data_changed(self) -> None:
        """The registration is to be sent again, in place of the next renewal."""
        self._changed = self.lease is not None

    def health_changed(self) -> None:
        """What the registrar holds is to be read before it is overwritten."""
        self._held_is_fresh = False
        self._report_at = 0.0

    def state_learned(self, state: str, reason: str) -> None:
        """The registrar's answer to `Ask`; an empty *state* says that it lists no such instance."""
        # Reads may come from a replica that has not heard of us yet; only writes prove loss.
        state = "serving" if state in ("", "suspect") else state
        self._hold(state, foreign=state != "serving" and not reason.startswith(OURS))
        self._held_is_fresh = True
        self._report_failures = 0

    def state_reported(self, state: str, now: float) -> None:
        """The registrar has taken *state*."""
        self._hold(state, foreign=False)
        self._report_failures = 0
        if self._stop is not None and state == "draining":
            self._stop.drained_at = now

    def report_failed(self, now: float, retry_after: float | None = None) -> None:
        """`Ask`, `Report` or `Deregister` had no answer: again soon, and sooner when stopping."""
        self._report_failures += 1
        delay = min(WINDOW_RETRY, 2.0 ** (self._report_failures - 1)) * self._early()
        if self._stop is None:
            self._report_at = now + self._at_least(delay, retry_after)
        else:
            self._report_at = now + delay / 4

    def report_refused(self, state: str) -> None:
        """The registrar will not have *state* (an older one): let it be until health changes."""
        self._hold(state, foreign=False)

    # --- the end -----------------------------------------------------------------------

    def stop(self, now: float, *, lame_duck: float) -> None:
        """From now on: drain for *lame_duck* seconds (0: not at all), deregister, stop."""
        if self._stop is None:
            self._stop = Stop(now, min(lame_duck, MAX_LAME_DUCK))
            self._report_at = now
            self._report_failures = 0

    def deregistered(self) -> None:
        """The lease is given back, or was no longer ours."""
        self.lease = None
        self._owed = None
        self._over = True

    # --- chance and time ---------------------------------------------------------------

    def _hold(self, state: str, *, foreign: bool) -> None:
        self._held = state
        self._foreign = foreign
        self._held_is_fresh = False

    def _scheduled(self, sent_at: float) -> None:
        assert self.lease is not None
        self.last_renewal = sent_at
        self._failures = 0
        self._next_at = sent_at + self.lease.every * self._early()

    def _early(self) -> float:
        return 1.0 - JITTER * self._random()

    def _backoff(self, failures: int) -> float:
        # Full jitter: after an outage, a fleet comes back spread over the whole pause.
        longest = min(MAX_BACKOFF, 2.0 ** min(failures, 6))
        return max(MIN_BACKOFF, longest * self._random())

    def _at_least(self, delay: float, retry_after: float | None) -> float:
        if retry_after is None:
            return delay
        # Spread upwards: the registrar names the earliest moment, to many at once.
        return max(delay, min(retry_after, MAX_BACKOFF) * (1.0 + self._random() / 4))
