"""What the sidecar does next for one instance: register, renew, report its state, leave, wait.

Nothing here knows HTTP, clocks or chance; agent.py obeys what this module
decides and tells it what came of it.  Times are seconds of one monotonic clock.
"""

from collections.abc import Callable

from sidecar.actions import (
    AS_SERVING,
    SERVING,
    Action,
    Ask,
    Deregister,
    Lease,
    Register,
    Renew,
    Report,
    Stopped,
    Wait,
)
from sidecar.pace import MAX_BACKOFF, Pace
from sidecar.stopping import Limits, Step, Stop

JOIN_SHARE = 0.5
"""A renewal due within this share of its interval goes along with another's, in one request: those
of one sidecar, apart at first, are together by the second round."""

REASON_PACE = 60.0
"""Seconds between two reports of which only the reason differs: each is a change to all readers."""

OURS = "sidecar: "
"""How the reasons of states begin that a sidecar has set; any other is an operator's and stays."""


class Heartbeat:
    """One instance's lease, as far as we know it, and what is due next.

    *interval* is the configured one (None: what the registrar says); *random* gives
    numbers in [0, 1).  Used by one owner: an action, its outcome, the next action.
    """

    def __init__(self, interval: float | None, random: Callable[[], float]) -> None:
        self._interval = interval
        self._pace = Pace(random)
        self.lease: Lease | None = None
        self.last_renewal: float | None = None
        self._next_at = 0.0
        self._hidden_until = 0.0
        self._failures = 0
        self._losses = 0
        self._changed = False
        self._owed: str | None = None
        self._held = ""
        self._held_reason = ""
        self._held_is_fresh = False
        self._foreign = False
        self._report_at = 0.0
        self._reason_at = 0.0
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

    def next_action(self, *, wanted: str, reason: str = "", now: float) -> Action:
        """What to do at *now* for an instance whose state is to be *wanted*, and why.

        An empty *wanted* says that its health is not known yet.
        """
        if self._stop is not None:
            return self._stopping(self._stop, now)
        if self.lease is None:
            return self._unregistered(wanted, reason, now)
        report = self._report(self.lease, wanted, reason, now)
        if not isinstance(report, Wait):
            return report
        if now < self._next_at:
            return Wait(min(report.seconds, self._next_at - now))
        # A lease that passed unanswered is asked for anew; an error alone proves nothing.
        may_register = wanted == SERVING or (wanted != "" and now >= self._hidden_until)
        if may_register and (self._changed or now >= self.lease.ends_at):
            return _registration(wanted, reason)
        return Renew(self.lease.lease_id, self.lease.timeout)

    def joins(self, now: float) -> Renew | None:
        """The renewal to send now along with another instance's; None when it is not near."""
        lease = self.lease
        if lease is None or self._stop is not None or self._changed or self._failures:
            return None
        near = now < lease.ends_at and self._next_at - now <= JOIN_SHARE * lease.every
        return Renew(lease.lease_id, lease.timeout) if near else None

    def _unregistered(self, wanted: str, reason: str, now: float) -> Action:
        # Health wakes us, so that no wait here need be short.
        if not wanted:
            return Wait(MAX_BACKOFF)
        begins_at = self._next_at
        if wanted != SERVING:
            begins_at = max(begins_at, self._hidden_until)
        return _registration(wanted, reason) if now >= begins_at else Wait(begins_at - now)

    def _report(self, lease: Lease, wanted: str, reason: str, now: float) -> Action:
        # 1. The registrar has what we want: nothing.
        # 2. An operator took it out of DNS: theirs to end; see whether they did, if we would
        #    have to take it out ourselves.
        # 3. What it has may be old: ask, lest an operator's state be overwritten.
        # 4. Report.
        told = _told(wanted, reason)
        if not wanted or (self._foreign and wanted == SERVING):
            return Wait(MAX_BACKOFF)
        if self._held == wanted and not self._foreign:
            if wanted == SERVING or self._held_reason == told:
                return Wait(MAX_BACKOFF)
            if now < self._reason_at:
                return Wait(self._reason_at - now)
        if now < self._report_at:
            return Wait(self._report_at - now)
        if not self._held_is_fresh:
            return Ask()
        if self._foreign:
            self._held_is_fresh = False
            self._report_at = now + lease.every
            return Wait(lease.every)
        return Report(wanted, told)

    def _stopping(self, stop: Stop, now: float) -> Action:
        if self._over or self._owed is None:
            return Stopped()
        is_serving = self.lease is not None and self._held in ("", SERVING)
        began = stop.gave_up_at
        match stop.step(is_serving=is_serving, now=now):
            case Step.DRAIN:
                drain = Report("draining", OURS + "stopping")
                return self._when_due(drain, now, latest=stop.drain_ends_at)
            case Step.LAME_DUCK:
                return self._lame_duck(stop.lame_duck_ends_at - now, now)
            case Step.DEREGISTER:
                assert stop.gave_up_at is not None
                if began is None:
                    self._report_at, self._report_failures = now, 0
                return self._when_due(Deregister(self._owed), now, latest=stop.gave_up_at)
        return Stopped()

    def _when_due(self, action: Action, now: float, latest: float) -> Action:
        return action if now >= self._report_at else Wait(min(self._report_at, latest) - now)

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
        asked: Register = AS_SERVING,
    ) -> None:
        """Registered; *interval* is the registrar's advice, *sent_at* when the request left.

        Not *created*: it was there before, perhaps in a state that outlived its last sidecar.
        """
        ttl = ttl if ttl > 0 else MAX_BACKOFF
        every = self._pace.every(ttl, self._interval, interval)
        self.lease = Lease(lease_id, ttl, every, sent_at + ttl)
        self._owed = lease_id
        self._changed = False
        if created:
            self._hold(asked.state, asked.reason, foreign=False)
            self._reason_at = sent_at + REASON_PACE
        else:
            self._hold("", "", foreign=False)
        self._scheduled(sent_at, self._pace.first())

    def renewed(self, sent_at: float) -> None:
        """The lease begins anew, at the earliest when the request left."""
        if (lease := self.lease) is not None:
            self.lease = Lease(lease.lease_id, lease.ttl, lease.every, sent_at + lease.ttl)
            self._losses = 0
            self._scheduled(sent_at, self._pace.early())

    def lease_lost(self, now: float) -> None:
        """The registrar says (404, 409) that the lease is not ours: register, at first at once."""
        self.lease = None
        self._hold("", "", foreign=False)
        self._failures = 0
        self._next_at = now + (self._pace.backoff(self._losses) if self._losses else 0.0)
        self._losses += 1

    def failed(
        self, now: float, retry_after: float | None = None, *, may_have_arrived: bool = True
    ) -> None:
        """A registration or renewal had no answer, or one that says "later"."""
        if self._owed is None and may_have_arrived:
            self._owed = ""  # it may have been registered all the same
        pace, lease, failures = self._pace, self.lease, self._failures
        self._failures += 1
        if lease is not None and now < lease.ends_at:
            self._next_at = now + pace.within(lease, failures, now, retry_after)
        else:
            self._next_at = now + pace.at_least(pace.backoff(failures), retry_after)

    def refused(self, now: float) -> None:
        """The registrar understood and declined; what it has of us, it keeps."""
        self._failures += 1
        self._next_at = now + self._pace.refused()

    def superseded(self, now: float) -> None:
        """A newer sidecar holds this id: nothing of it is ours; look again in a minute."""
        self.lease = None
        self._owed = None
        self._hold("", "", foreign=False)
        self.refused(now)

    def not_shown(self, now: float) -> None:
        """The registrar takes no registration that is not serving: in a minute, or once healthy."""
        self._hidden_until = now + self._pace.refused()

    def data_changed(self, at: float | None = None) -> None:
        """The registration is to be sent again: in place of the next renewal, or *at* a time."""
        self._changed = self.lease is not None
        if at is not None and self.lease is not None:
            self._next_at = min(self._next_at, at)

    def health_changed(self) -> None:
        """What the registrar holds is to be read before it is overwritten."""
        self._held_is_fresh = False
        self._report_at = 0.0

    def state_learned(self, state: str, reason: str) -> None:
        """The registrar's answer to `Ask`; an empty *state* says that it lists no such instance."""
        # A read may come from a replica that has not heard of our last write, or of us at all: so
        # it tells only whether somebody else has set a state.  Of the rest, what we were answered
        # ourselves counts; lest one that is healthy stay out of DNS because a replica was late.
        state = SERVING if state in ("", "suspect") else state
        foreign = state != SERVING and not reason.startswith(OURS)
        if foreign or self._foreign or not self._held:
            self._hold(state, reason, foreign=foreign)
        self._held_is_fresh = True
        self._report_failures = 0

    def state_reported(self, state: str, now: float, reason: str = "") -> None:
        """The registrar has taken *state*."""
        self._hold(state, reason, foreign=False)
        self._reason_at = now + REASON_PACE
        self._report_failures = 0
        if self._stop is not None and state == "draining":
            self._stop.drained_at = now

    def report_failed(self, now: float, retry_after: float | None = None) -> None:
        """`Ask`, `Report` or `Deregister` had no answer: again soon, and sooner when stopping."""
        delay = self._pace.soon(self._report_failures)
        self._report_failures += 1
        if self._stop is None:
            self._report_at = now + self._pace.at_least(delay, retry_after)
        else:
            self._report_at = now + delay / 4

    def report_refused(self, state: str, reason: str = "") -> None:
        """The registrar will not have *state* (an older one): let it be until health changes."""
        self._hold(state, reason, foreign=False)

    # --- the end -----------------------------------------------------------------------

    def stop(self, now: float, *, lame_duck: float, limits: Limits | None = None) -> None:
        """From now on: drain for *lame_duck* seconds (0: not at all), deregister, stop."""
        if self._stop is None:
            limits = limits or Limits()
            self._stop = Stop(now, min(lame_duck, limits.lame_duck), limits)
            self._report_at = now
            self._report_failures = 0

    def hurry(self) -> None:
        """Of an instance that is to stop: deregister it now."""
        if self._stop is not None:
            self._stop.hurry()

    def deregistered(self) -> None:
        """The lease is given back, or was no longer ours."""
        self.lease = None
        self._owed = None
        self._over = True

    # --- what is held, and when what is next -------------------------------------------

    def _hold(self, state: str, reason: str, *, foreign: bool) -> None:
        self._held = state
        self._held_reason = reason
        self._foreign = foreign
        self._held_is_fresh = False

    def _scheduled(self, sent_at: float, share: float) -> None:
        assert self.lease is not None
        self.last_renewal = sent_at
        self._failures = 0
        self._next_at = sent_at + self.lease.every * share


def _told(wanted: str, reason: str) -> str:
    return "" if wanted == SERVING else OURS + reason


def _registration(wanted: str, reason: str) -> Register:
    return Register(wanted, _told(wanted, reason))
