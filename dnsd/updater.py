"""Keeps the table true: what the feed says goes into it, and how old that is.

It owns readiness: ready is a dnsd that has something to answer from, from the store or from
its own last snapshot on disk, and it stays ready when the store is away.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterable
from pathlib import Path
from typing import TypeVar

from dnsd.memo import Memo
from dnsd.metrics import Counts, Feed
from dnsd.snapshots import Reading, lines_of
from dnsd.table import ZONE_WIDE, AnswerTable, State
from registry.errors import MalformedEntry
from registry.follower import Follower
from registry.runtime import logs

LOOK_INTERVAL = 0.25
"""Seconds between two looks at how current the feed is."""

SETTLING = 2.0
"""Seconds without a pulse that are no absence yet."""

DISK_AFTER = 1.0
"""Seconds that the store has to answer at the start before the snapshot on disk is taken."""

SAVE_INTERVAL = 10.0
"""Seconds between two snapshots: what a restart without the store may lack."""

SLICE = 0.002
"""Seconds of reading or writing a snapshot between two turns of the loop."""

T = TypeVar("T")

log = logs.get("dnsd")


class Updater:
    """From *follower* to *table* and *memo*; with *path*, to disk and back."""

    def __init__(
        self,
        follower: Follower,
        table: AnswerTable,
        memo: Memo,
        counts: Counts,
        *,
        zone: str,
        stale_bound: float,
        path: Path | None = None,
        saves: bool = True,
    ) -> None:
        self._follower = follower
        self._table = table
        self._memo = memo
        self._counts = counts
        self._zone = zone
        self._stale_bound = stale_bound
        self._path = path
        self._saves = saves
        self._known_at = time.monotonic()
        self._heard = asyncio.Event()
        self._from_disk = False
        self._malformed_on_disk = 0
        self._saved_revision = -1
        self._state = logs.Transition(log, "loading")

    def changed(self, services: Collection[str]) -> None:
        """The follower's word that *services* are not what they were."""
        self._table.invalidate(services)
        self._memo.forget((*services, ZONE_WIDE))

    def reset(self) -> None:
        """The follower's word that all may be different."""
        if self._follower.loaded:
            self._known_at = time.monotonic()
            self._heard.set()
        self._renew(self._state_now())

    def missing(self) -> list[str]:
        """What keeps this worker from being ready."""
        if self._table.state != "loading":
            return []
        return [f"catalog: the store has not been read ({self._follower.error})"]

    def feed(self) -> Feed:
        """How the catalog is doing, for the metrics."""
        follower, catalog = self._follower, self._follower.catalog
        return Feed(
            services=len(catalog),
            instances=catalog.instance_count,
            revision=catalog.revision,
            age=self._age(),
            current=follower.current,
            applied=follower.applied,
            snapshots=follower.snapshots,
            losses=follower.losses,
            malformed=follower.malformed + self._malformed_on_disk,
        )

    async def run(self) -> None:
        """Follow the store and watch over it, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run())
            if self._path is not None:
                tasks.create_task(self._start_from_disk(self._path))
            tasks.create_task(self._watch())

    async def _watch(self) -> None:
        saved_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            self.look()
            await self._settle()
            now = time.monotonic()
            if self._path is not None and self._saves and now - saved_at >= SAVE_INTERVAL:
                saved_at = now
                await self.save(self._path)

    async def _settle(self) -> None:
        """Bring the sets up to date to which many services add, so that nobody waits for it."""
        until = time.monotonic() + SLICE
        while not self._table.settle(1):
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE

    def look(self) -> None:
        """Take note of how current the feed is."""
        if self._follower.current:
            self._known_at = time.monotonic()
        if self._follower.losses:
            self._heard.set()
        state = self._state_now()
        if state != self._table.state:
            self._renew(state)
        elif self._table.revision != self._follower.catalog.revision:
            self.changed(())  # a change that touched no service still moves the serial

    def _age(self) -> float:
        return 0.0 if self._follower.current else time.monotonic() - self._known_at

    def _state_now(self) -> State:
        if not self._follower.loaded and not self._from_disk:
            return "loading"
        age = self._age()
        if age > self._stale_bound:
            return "stale"
        return "fresh" if age < SETTLING and self._follower.loaded else "away"

    def _renew(self, state: State) -> None:
        self._table.reset(state)
        self._memo.clear()
        catalog = self._follower.catalog
        match state:
            case "fresh":
                self._state.enter(state, "answers are current", revision=catalog.revision)
            case "away" | "stale":
                self._state.enter(
                    state,
                    "answers may be old",
                    level="warning",
                    age=self._age(),
                    error=self._follower.error,
                    revision=catalog.revision,
                )

    # --- disk -------------------------------------------------------------------------------

    async def _start_from_disk(self, path: Path) -> None:
        """Begin with the last snapshot, if the store does not answer soon.

        It answers what was true then; better than SERVFAIL, and gone when the store is back.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISK_AFTER):
                await self._heard.wait()
        if self._follower.loaded:
            return
        try:
            reading = await self._read(path)
        except FileNotFoundError:
            return
        except (OSError, ValueError, MalformedEntry) as error:
            log.warning("snapshot not used", file=path, error=error)
            return
        if reading.problem or reading.head is None:
            log.warning("snapshot not used", file=path, error=reading.problem)
            return
        self._malformed_on_disk = reading.malformed
        if self._follower.loaded:
            return
        age = max(0.0, time.time() - reading.head.saved_at)
        self._known_at, self._from_disk = time.monotonic() - age, True
        log.info("started from snapshot", file=path, age=age, malformed=reading.malformed)
        self._follower.start_from(reading.catalog)

    async def _read(self, path: Path) -> Reading:
        reading = Reading(self._zone)
        with path.open(encoding="utf-8") as file:
            async for line in _in_slices(file):
                reading.take(line)
        return reading

    async def save(self, path: Path) -> None:
        """Write the catalog to disk, whole or not at all, if it has changed."""
        catalog = self._follower.catalog
        if not self._follower.current or catalog.revision == self._saved_revision:
            return
        snapshot = catalog.snapshot()
        try:
            await self._write(path, lines_of(snapshot, self._zone, time.time()))
        except OSError as error:
            self._counts.save_failures += 1
            log.warning("snapshot not written", file=path, error=error)
            return
        self._saved_revision = snapshot.revision
        self._counts.saves += 1

    async def _write(self, path: Path, lines: Iterable[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                async for line in _in_slices(lines):
                    file.write(line + "\n")
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


async def _in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """*items*, with a turn for everyone else after each slice."""
    until = time.monotonic() + SLICE
    for item in items:
        yield item
        if time.monotonic() > until:
            await asyncio.sleep(0)
            until = time.monotonic() + SLICE
