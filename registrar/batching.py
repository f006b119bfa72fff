"""Heartbeats that arrive together are renewed together: one call to the store for all.

While one call is under way the next batch gathers, so that batches grow with
the load and a lone heartbeat waits for nobody.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from registrar.gate import Gate
from registry.errors import StoreUnavailable
from registry.leases import LeaseStore, Renewal, RenewalResult

MAX_BATCH = 512
"""Renewals in one call, unless one list has more: some 2 ms of the store's time."""

MAX_WAITING = 20_000
"""Renewals that wait.  At 10,000 a second the last of them is answered after 2 s; whoever comes
later is told to come back."""

_Waiting = tuple[Sequence[Renewal], "asyncio.Future[list[RenewalResult]]"]


class Renewals:
    """Gathers renewals; `run` makes the calls.  *observe* is told the size of each batch."""

    def __init__(self, store: LeaseStore, gate: Gate, observe: Callable[[int], None]) -> None:
        self._store = store
        self._gate = gate
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Renewals {self._waiting} waiting>"

    async def renew(self, renewals: Sequence[Renewal]) -> list[RenewalResult]:
        """Results in the same order; StoreUnavailable when there are none to be had."""
        if not renewals:
            return []
        if self._waiting >= MAX_WAITING:
            raise StoreUnavailable(f"{self._waiting} heartbeats wait already")
        future = asyncio.get_running_loop().create_future()
        self._queue.append((renewals, future))
        self._waiting += len(renewals)
        self._arrived.set()
        result: list[RenewalResult] = await future
        return result

    async def run(self) -> None:
        """Make the calls, one after the other, for ever.  Cancelled, it leaves nobody waiting."""
        try:
            await self._make_calls()
        finally:
            _fail(list(self._queue), "the registrar is stopping")
            self._queue.clear()
            self._waiting = 0

    async def _make_calls(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._take()
            try:
                await self._renew(batch)
            except StoreUnavailable as error:
                _fail(batch, str(error))
            finally:
                _fail(batch, "the registrar is stopping")  # whoever has no answer yet

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0][0]) <= MAX_BATCH):
            batch.append(self._queue.popleft())
            size += len(batch[-1][0])
        self._waiting -= size
        if not self._queue:
            self._arrived.clear()
        return batch

    async def _renew(self, batch: list[_Waiting]) -> None:
        renewals = [renewal for some, _ in batch for renewal in some]
        self._observe(len(renewals))
        results = iter(await self._gate(self._store.renew(renewals)))
        for some, future in batch:
            mine = [next(results) for _ in some]
            if not future.done():
                future.set_result(mine)


def _fail(batch: Sequence[_Waiting], reason: str) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(StoreUnavailable(reason))
