"""The rules of leases, in whole milliseconds of the store's clock.

`MemoryStore` obeys these functions; the Lua scripts say the same, and
tests/conformance/ holds the two together.
"""

from typing import NamedTuple

GRACE_MS = 5_000
"""How long an instance may be late: a renewal still counts, and it is answered."""

OUTAGE_GAP_MS = 5_000
"""Sweeps come each second.  None for longer than this, or a clock that went back, means that
nobody could renew."""

OUTAGE_HOLD_MS = 70_000
"""After an outage: the longest back-off of a sidecar (60 s), and one attempt."""

KNOWN_LEASES = 2
"""For so many leases a departed instance cannot be revived by something late, and a service
without instances stays known (NODATA, not NXDOMAIN)."""

STATIC_LEASE_MS = 60_000
"""What counts as the lease of an instance that has none, for its tombstone."""

GUARD_MIN = 3
"""A service (or zone) with fewer serving leases has no half to lose."""

GUARD_HOLD_MS = 300_000
"""How long instances are kept as suspect when too many leases end at once, unless it is set."""

MAX_UNKNOWN = 1_000
"""In UNKNOWN_WINDOW_MS so many instances that the store does not know are said to have left:
more than stop at once after a flush, little beside the 100,000 that the stream keeps."""

UNKNOWN_WINDOW_MS = 60_000

MAX_EVICTIONS = 500
"""Of one sweep, oldest first: a mass expiry must not stall the store."""

MAX_EXAMINED = 2_000
"""Members that one sweep looks at: some 5 ms in Lua.  Who is kept is not looked at again before
that is over, so this is how many leases may end a second."""

LATE_MS = 10**14
"""In the sorted set of deadlines, the score of who is kept although the lease is over is when to
look again, less this: below zero, so an end of a lease is never mistaken for it."""

EPOCH_STEP = 1_000_000
"""By so much the revision is raised when the store may have lost writes: more than it can have
lost, and small against the 2^31 that serial arithmetic allows (RFC 1982)."""


def is_expired(expires_at_ms: int, now_ms: int) -> bool:
    """Whether a lease is over, its grace included: the ttl once, the grace once."""
    return now_ms >= expires_at_ms + GRACE_MS


def is_outage(last_tick_ms: int | None, now_ms: int) -> bool:
    """Whether the time since the last sweep was one in which nobody could renew.

    A store that was never swept is new and has had no outage.
    """
    if last_tick_ms is None:
        return False
    return now_ms < last_tick_ms or now_ms - last_tick_ms > OUTAGE_GAP_MS


def is_held(renewed_at_ms: int, outage_end_ms: int | None, now_ms: int) -> bool:
    """Whether an expired lease is kept because its owner could not have renewed it."""
    if outage_end_ms is None or renewed_at_ms > outage_end_ms:
        return False
    return now_ms < outage_end_ms + OUTAGE_HOLD_MS


def tombstone_ends_ms(lease_ms: int, now_ms: int) -> int:
    """Until when a departed instance of that lease is remembered."""
    return now_ms + KNOWN_LEASES * (lease_ms or STATIC_LEASE_MS)


class Losses(NamedTuple):
    """How many of the leases that served at the first loss were lost since, within one lease."""

    window_ends_ms: int
    base: int
    lost: int


def losses_at(before: Losses | None, serving: int, lease_ms: int, now_ms: int) -> Losses:
    """The window that a loss at *now_ms* falls into: the running one, or a new one."""
    if before is not None and now_ms < before.window_ends_ms:
        return before
    return Losses(now_ms + lease_ms, serving, 0)


def is_mass_expiry(losses: Losses) -> bool:
    """Whether one more loss would be more than half of what served."""
    return losses.base >= GUARD_MIN and (losses.lost + 1) * 2 > losses.base


def next_epoch(stored: int, known: int, unix_time_s: int) -> int:
    """The revision after the store may have lost writes: greater than any ever seen."""
    return max(stored, known, unix_time_s) + EPOCH_STEP
