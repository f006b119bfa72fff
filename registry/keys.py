"""The four keys of a zone in Redis.

None has a time to live: leases end by the sweep, which is the only place that decides it, and
four keys leave nothing to leak.  `{zone}` is a hash tag, so every script stays in one slot.
"""

from typing import NamedTuple


class Keys(NamedTuple):
    """Names of the keys, in the order in which the scripts take them."""

    instances: str
    """Hash: folded service/id → the stored instance (four lines, see model.py)."""

    deadlines: str
    """Sorted set, scores in Redis ms: service/id → end of its lease; `~dead:service/id` and
    `~gone:service` → when that tombstone ends."""

    changes: str
    """Stream of changes (see changes.py), cut to about MAX_STREAM entries."""

    meta: str
    """Hash: revision, last_tick, outage_end, replid, counts, tombstones, of services their
    first spellings, owners and settings."""


MAX_STREAM = 100_000
"""Entries kept in the stream: a reader away for longer takes a snapshot instead."""


def keys_of(zone: str) -> Keys:
    """The keys of *zone* (its apex, with the final dot)."""
    return Keys(*(f"sd:{{{zone}}}:{name}" for name in Keys._fields))
