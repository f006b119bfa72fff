"""Once a second the store is told to evict whose lease is over; what it did is said here.

Every registrar sweeps: the store's script makes it one decision, and the
sweeps are also its clock for outages.  When eviction may begin is decided there.
"""

import asyncio
import contextlib
from collections.abc import Callable

from registrar.gate import Gate
from registry.errors import StoreUnavailable
from registry.leases import LeaseStore, Sweep
from registry.runtime import logs

SWEEP_SECONDS = 1.0
"""Between sweeps; no instance outlives its lease and grace by more.  A gap of over 5 s counts as
an outage."""

MAX_NAMED = 10
"""Instances named in one line of the log."""

log = logs.get("registrar.sweeper")


class Sweeper:
    """Sweeps *store*.  *swept* is told what each sweep did."""

    def __init__(
        self,
        store: LeaseStore,
        gate: Gate,
        swept: Callable[[Sweep], None],
    ) -> None:
        self._store = store
        self._gate = gate
        self._swept = swept

    async def run(self) -> None:
        """Sweep each second, for ever."""
        while True:
            with contextlib.suppress(StoreUnavailable):  # the gate says so
                await self.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> None:
        """One sweep."""
        done = await self._gate(self._store.sweep())
        self._swept(done)
        _say("instances evicted, their leases are over", done.evicted, "info")
        _say(
            "instances suspect, too many leases ended; `callboard guard release NAME` ends it",
            done.suspects,
            "warning",
        )
        _say("services forgotten", done.forgotten, "info")


def _say(message: str, names: tuple[str, ...], level: str) -> None:
    if names:
        shown = ",".join(names[:MAX_NAMED]) + (",…" if len(names) > MAX_NAMED else "")
        log.at(level, message, count=len(names), names=shown)
