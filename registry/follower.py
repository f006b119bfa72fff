"""A catalog kept current: what dnsd answers from and the registrar lists from.

It owns the reading of the feed and what follows from it; its user is told which
services changed, and may ask how current the whole is.
"""

import asyncio
import gc
from collections.abc import Callable, Collection
from contextlib import aclosing

from registry.address import StoreAddress
from registry.catalog import Catalog
from registry.changes import Change
from registry.feed import Differing, Loaded, Lost, Pulse, Skipped, follow
from registry.runtime import logs

MAX_NAMED = 1000
"""Skipped entries that are named in the log, once each; later ones are only counted."""

MAX_REPAIRED_NAMED = 10
"""Of those that a comparison found to differ."""

FREEZE_EVERY = 2_000
"""Changes after which those who came are taken out of the collector's sight too."""

KEEP_SLICE = 500
"""Instances looked at between two turns of the loop when a snapshot is swapped in."""

log = logs.get("feed")


class Follower:
    """The catalog of *zone*, followed from *store* by `run()`.

    *changed* is called after each change with the folded names of the services it touched (none,
    when only the revision rose), *reset* when all of it may have changed.  A catalog that was never
    loaded is empty and not `loaded`.  `known_revision` is the highest that it ever was
    at; `repaired` counts instances that a comparison found otherwise in the store than here.  With
    *freeze*, which is for a process of its own, the collector of cycles is kept from the catalog.
    """

    def __init__(
        self,
        store: str | StoreAddress,
        zone: str,
        *,
        changed: Callable[[Collection[str]], None] = lambda services: None,
        reset: Callable[[], None] = lambda: None,
        freeze: bool = False,
    ) -> None:
        self._store, self._zone = store, zone
        self._changed, self._reset = changed, reset
        self._heard: Callable[[Change | None], None] = lambda change: None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._named: set[str] = set()
        self._freeze = freeze
        self._state = logs.Transition(log)
        self._current_at: float | None = None
        self.catalog = Catalog()
        self.known_revision = 0
        self.loaded = False
        self.current = False
        self.error = "not asked yet"
        self.applied = self.snapshots = self.malformed = self.losses = self.repaired = 0

    def __repr__(self) -> str:
        how = "current" if self.current else f"not current ({self.error})"
        return f"<Follower {how}, {self.catalog!r}>"

    def start_from(self, catalog: Catalog) -> None:
        """Begin with *catalog*, read from disk: served as stale until the store is heard."""
        self.catalog = catalog
        self._reset()
        self._heard(None)

    def listen(self, heard: Callable[[Change | None], None]) -> None:
        """Have *heard* told of each change once it is folded in.

        None stands for whatever is no change of the feed: a snapshot was taken, or somebody
        whom the last one lacked has left.
        """
        self._heard = heard

    def age(self, now: float) -> float:
        """Seconds since the catalog was last known to be current; infinite when it never was."""
        if self.current:
            return 0.0
        return float("inf") if self._current_at is None else now - self._current_at

    async def reached(self, revision: int, timeout: float) -> bool:
        """Wait until *revision* is folded in; False when it was not within *timeout* seconds."""
        if self.catalog.revision >= revision:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (revision, future)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            return False
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        return True

    async def run(self) -> None:
        """Follow the store for ever."""
        now = asyncio.get_running_loop().time
        async with aclosing(
            follow(self._store, self._zone, lambda: self.catalog, self._spare_the_collector)
        ) as events:
            async for event in events:
                match event:
                    case Loaded():
                        await self._adopt(event)
                    case Pulse(current):
                        self._beat(current, now())
                    case Lost(error):
                        self._lose(error)
                    case Skipped():
                        self._skip(event)
                    case Differing(keys):
                        self._repair(keys)
                    case change:
                        self.applied += 1
                        if self.applied % FREEZE_EVERY == 0:
                            self._spare_the_collector()
                        touched = self.catalog.apply(change)
                        self.known_revision = max(self.known_revision, self.catalog.revision)
                        # A change that touches no service still moves the revision.
                        self._changed(() if touched is None else (touched,))
                        self._heard(change)
                        self._wake()

    async def _adopt(self, loaded: Loaded) -> None:
        """Swap a snapshot in; nobody leaves on its word alone (see Catalog.keep_missing)."""
        catalog, now = loaded.catalog, asyncio.get_running_loop().time()
        for count, _ in enumerate(catalog.keep_missing(self.catalog, loaded.dead, now)):
            if count % KEEP_SLICE == KEEP_SLICE - 1:
                await asyncio.sleep(0)
        self.catalog, self.loaded = catalog, True
        self.known_revision = max(self.known_revision, catalog.revision)
        self.snapshots += 1
        log.info(
            "catalog loaded",
            services=len(catalog),
            instances=catalog.instance_count,
            kept=catalog.unconfirmed,
            revision=catalog.revision,
        )
        self._reset()
        self._heard(None)
        self._wake()
        self._spare_the_collector()

    def _spare_the_collector(self) -> None:
        """Let the collector of cycles not go through the catalog: with 100,000 instances that
        stopped everything for half a second, and a catalog has no cycles."""
        if self._freeze:
            gc.collect(1)
            gc.freeze()

    def _beat(self, current: bool, now: float) -> None:
        if touched := self.catalog.drop_unconfirmed(now):
            self._changed(touched)
            self._heard(None)
        if not current:
            self._lose("no registrar sweeps the store")
            return
        if self.loaded:
            self._current_at, self.current, self.error = now, True, ""
            self._state.enter("current", "feed current", revision=self.catalog.revision)

    def _lose(self, error: str) -> None:
        self.current, self.error = False, error
        if self._state.enter(
            "lost", "feed lost", level="warning", error=error, revision=self.catalog.revision
        ):
            self.losses += 1

    def _skip(self, skipped: Skipped) -> None:
        self.malformed += 1
        if skipped.where not in self._named and len(self._named) < MAX_NAMED:
            self._named.add(skipped.where)
            log.warning("entry skipped", entry=skipped.where, error=skipped.error)

    def _repair(self, keys: tuple[str, ...]) -> None:
        self.repaired += len(keys)
        named = ",".join(keys[:MAX_REPAIRED_NAMED]) + (
            ",…" if len(keys) > MAX_REPAIRED_NAMED else ""
        )
        log.warning("catalog differs from the store", instances=len(keys), names=named)

    def _wake(self) -> None:
        ready = [entry for entry in self._waiting if entry[0] <= self.catalog.revision]
        for entry in ready:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)
