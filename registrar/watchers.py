"""Those who wait for changes: by a long request, or by a stream of events.

They share one journal, in which each has only a position: a slow one costs nothing more than its
connection, and is dropped when what it has not read yet is not kept any more.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from registrar import events
from registrar.errors import LimitReached, SlowWatcher
from registrar.journal import Entry, Journal, Reset, service_of
from registrar.queries import Wait
from registrar.view import View
from registry import names
from registry.changes import Change

MAX_WATCHERS = 4000
"""At once, of both kinds.  Each holds a connection; Consul's clients have one a service."""

MAX_WATCHERS_PER_CLIENT = 1000
"""Of one address, so that one client does not take all the places."""

COMMENT_SECONDS = 15.0
"""Between comments in a stream in which nothing happens."""

GONE_SECONDS = 5.0
"""Between looks at whether who waits is still there."""

GATHER_SECONDS = 0.05
"""Between two parts of one stream, and before a list is sent again: changes that come thick
and fast are gathered, a change that comes alone goes out at once."""

BATCH = 64
"""Events in one part of a stream, some 100 KB."""

MAX_TEXTS = 1024
"""Events kept as text, so that those who listen at one time share the work."""

REACH_SECONDS = 0.5
"""To reach the revision of a listener who comes from a replica that was ahead of us."""


class Start(NamedTuple):
    """Where in the journal a stream begins, and what its listener knows; or is to read *anew*."""

    position: int
    revision: int
    anew: bool = False


class Watchers:
    """All who wait for changes of *view*, which must be told to `heard`."""

    def __init__(self, view: View, journal: Journal | None = None) -> None:
        self._view = view
        self._journal = journal or Journal()
        self._waiting: dict[str | None, set[asyncio.Future[None]]] = {}
        self._clients: Counter[str] = Counter()
        self._texts: dict[int, bytes] = {}
        self._resets = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Watchers {self.count} waiting, {self._journal!r}>"

    @property
    def count(self) -> int:
        return self._clients.total()

    def heard(self, change: Change | None) -> None:
        """Note a change that was folded in; None: the catalog changed otherwise."""
        if change is None:
            self._journal.reset(self._view.catalog.revision)
            self._resets += 1
            for key in list(self._waiting):
                self._wake(key)
            return
        self._journal.add(change)
        self._wake(None)
        self._wake(service_of(change))

    def close(self) -> None:
        """Let everybody go who waits: the registrar stops."""
        self._closed = True
        for key in list(self._waiting):
            self._wake(key)

    def admit(self, caller: str) -> Callable[[], None]:
        """A place for a watcher from *caller*, to be given back by calling what is returned."""
        if self.count >= MAX_WATCHERS:
            raise LimitReached("watchers", f"{MAX_WATCHERS} watchers are served already")
        if self._clients[caller] >= MAX_WATCHERS_PER_CLIENT:
            raise LimitReached(
                "watchers-per-client", f"{MAX_WATCHERS_PER_CLIENT} watchers of {caller} are served"
            )
        self._clients[caller] += 1
        return lambda: self._release(caller)

    def _release(self, caller: str) -> None:
        self._clients[caller] -= 1
        if not self._clients[caller]:
            del self._clients[caller]

    # --- a long request -----------------------------------------------------------------------

    def index_of(self, service: str | None) -> int:
        """The revision to wait from: of the last change of *service* (folded), or of any (None).

        What is answered with it holds everything up to it.
        """
        catalog = self._view.catalog
        if service is None:
            return catalog.revision
        return self._journal.touched_at(service, catalog.service(service) is not None)

    async def changed(
        self, service: str | None, wait: Wait, caller: str, gone: Callable[[], bool]
    ) -> None:
        """Return when the index of *service* is beyond the one waited from, or the time is over."""
        service = None if service is None else names.fold(service)
        if self.index_of(service) > wait.index:
            return
        release = self.admit(caller)
        try:
            await self._changed(service, wait, gone)
        finally:
            release()

    async def _changed(self, service: str | None, wait: Wait, gone: Callable[[], bool]) -> None:
        loop, resets = asyncio.get_running_loop(), self._resets
        end = loop.time() + wait.seconds
        while not self._closed and not gone() and (left := end - loop.time()) > 0:
            await self._woken(service, min(left, GONE_SECONDS))
            if self._resets > resets:
                return
            if self.index_of(service) > wait.index:
                if service is None:
                    await asyncio.sleep(min(left, GATHER_SECONDS))
                return

    # --- a stream of events -------------------------------------------------------------------

    async def start_for(self, last_id: str) -> Start:
        """Where a stream begins whose listener knows everything up to *last_id*; now without one.

        A listener who missed what is not kept any more, or whose id is none of ours, reads anew.
        """
        if last_id:
            revision = int(last_id) if re.fullmatch("[0-9]{1,16}", last_id) else -1
            if revision >= 0 and await self._view.reached(revision, REACH_SECONDS):
                position = self._journal.position_after(revision)
                if position is not None:
                    return Start(position, revision)
        return Start(self._journal.end, self._view.catalog.revision, anew=bool(last_id))

    async def events(self, start: Start) -> AsyncGenerator[bytes]:
        """The stream from *start*, in parts.  SlowWatcher when its reader fell too far behind."""
        loop, position = asyncio.get_running_loop(), start.position
        yield events.opening(start.revision)
        if start.anew:
            yield events.event_of(Reset(start.revision))
        while not self._closed:
            entries = self._journal.after(position)
            if entries is None:
                raise SlowWatcher
            if entries:
                batch = entries[:BATCH]
                sent_at = loop.time()
                yield b"".join(self._text(position + n, entry) for n, entry in enumerate(batch))
                position += len(batch)
                await asyncio.sleep(max(0.0, sent_at + GATHER_SECONDS - loop.time()))
            elif not await self._woken(None, COMMENT_SECONDS):
                yield events.COMMENT

    def _text(self, position: int, entry: Entry) -> bytes:
        text = self._texts.get(position)
        if text is None:
            text = self._texts[position] = events.event_of(entry)
            if len(self._texts) > MAX_TEXTS:
                del self._texts[next(iter(self._texts))]
        return text

    # --- waiting ------------------------------------------------------------------------------

    async def _woken(self, key: str | None, seconds: float) -> bool:
        """Whether something happened to *key* (None: to anything) within *seconds*."""
        if self._closed:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return False
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]
        return True

    def _wake(self, key: str | None) -> None:
        for future in self._waiting.get(key, ()):
            if not future.done():
                future.set_result(None)
