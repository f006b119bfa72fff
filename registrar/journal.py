"""The last changes in order, kept for those who listen, and when each service was last touched.

Pure: who waits for them stands in `watchers.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from registry.changes import Change, InstanceDown, InstanceUp, ServiceForgotten, ServiceSettings

CAPACITY: Final = 4096
"""Changes kept: at 100 a second, a listener may be away for 40 s.  Each is some 2 KB at most times,
and 12 KB at the worst."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The catalog changed otherwise than by changes: listeners read it anew."""

    revision: int


Entry = Change | Reset


def service_of(change: Change) -> str | None:
    """The folded name of the service that *change* is about; None when it is about none."""
    match change:
        case InstanceUp(instance):
            return instance.service
        case InstanceDown(service) | ServiceForgotten(service) | ServiceSettings(service):
            return service
    return None


class Journal:
    """A ring of the last *capacity* entries.  A position counts the entries before it."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._ring: list[Entry | None] = [None] * capacity
        self._touched: dict[str, int] = {}
        self._forgotten_at = 0
        self._base = 0
        self._floor = 0
        self._last = 0
        self.end = 0

    def __repr__(self) -> str:
        return f"<Journal {min(self.end, self._capacity)} of {self.end} entries>"

    def add(self, change: Change) -> None:
        """Note *change*, the next one after those noted."""
        service = service_of(change)
        if isinstance(change, ServiceForgotten):
            self._touched.pop(change.service, None)  # only known services are kept
            self._forgotten_at = change.revision
        elif service is not None:
            self._touched[service] = change.revision
        self._append(change)

    def reset(self, revision: int) -> None:
        """The catalog is another one now, at *revision*: nothing before it can be resumed.

        Nor can *revision* itself when we were there already: somebody left without one.
        """
        self._touched.clear()
        self._base = revision
        self._floor = revision + 1 if revision == self._last else revision
        self._append(Reset(revision))

    def _append(self, entry: Entry) -> None:
        slot = self.end % self._capacity
        dropped = self._ring[slot]
        if dropped is not None:
            self._floor = max(self._floor, dropped.revision)
        self._ring[slot] = entry
        self._last = entry.revision
        self.end += 1

    def after(self, position: int) -> Sequence[Entry] | None:
        """What was noted since *position*; None when some of it is not kept any more."""
        if self.end - position > self._capacity:
            return None
        found = [self._ring[at % self._capacity] for at in range(position, self.end)]
        return [entry for entry in found if entry is not None]

    def position_after(self, revision: int) -> int | None:
        """Where to go on for somebody who knows everything up to *revision*.

        None when changes after it are not kept any more.
        """
        if revision < self._floor:
            return None
        # From the end: who comes back was seldom away for long.
        position = self.end
        while position > max(0, self.end - self._capacity):
            entry = self._ring[(position - 1) % self._capacity]
            if entry is None or entry.revision <= revision:
                break
            position -= 1
        return position

    def touched_at(self, service: str, is_known: bool) -> int:
        """A revision not before the last change of *service* (folded), and before the next one.

        Of a service that is not known (any more) it may be that of another one's end.
        """
        touched = self._touched.get(service)
        if touched is not None:
            return touched
        return self._base if is_known else max(self._base, self._forgotten_at)
