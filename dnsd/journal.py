"""What the catalog was at its last revisions: so that a secondary gets the difference alone.

Kept are not records but the instances that each change replaced: the records of then and now
are made when somebody asks, from one serial to another in a single step (RFC 1995, section 5).
So a change costs microseconds, and every worker and replica can start from any serial.
"""

from collections import deque
from collections.abc import Collection, Mapping
from typing import NamedTuple

from registry.catalog import Catalog, Service
from registry.model import Instance

MAX_BYTES = 32 << 20
"""Octets of departed instances that are kept, roughly: some 10,000 changes."""

MAX_AGE = 3600.0
"""Seconds that a change is kept: as long as a secondary waits before it asks unbidden."""

SERIALS = 1 << 32
HALF = 1 << 31

ENTRY_SIZE = 500
INSTANCE_SIZE = 1000
"""Octets of a change, and of an instance without metadata, measured."""


def distance(old: int, new: int) -> int:
    """How far serial *new* is ahead of *old*: below HALF it is newer, above it is older,
    at HALF nobody can tell (RFC 1982, section 3.2)."""
    return (new - old) % SERIALS


class Change(NamedTuple):
    """What one change replaced: instances by their ids (None: there was none), and when.

    `name` is how the service was spelled before; None when it had no instances.
    """

    revision: int
    at: float
    service: str
    name: str | None
    before: dict[str, Instance | None]
    size: int


class Difference(NamedTuple):
    """A service then and now; None where it had no instances."""

    before: Service | None
    after: Service | None


class Journal:
    """The services as they are, frozen, and what was before them, within bounds.

    Of each change of the catalog it is told with `note`, or `reset` when all may be different.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_age: float = MAX_AGE) -> None:
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._services: dict[str, Service] = {}
        self._changes: deque[Change] = deque()
        self._oldest = 0
        self.size = 0
        """Octets, roughly."""

    def __repr__(self) -> str:
        return f"<Journal {len(self._changes)} changes since {self._oldest}, {self.size} octets>"

    def __len__(self) -> int:
        return len(self._changes)

    def reset(self, catalog: Catalog) -> None:
        """Begin anew with *catalog*: how it came about is not known."""
        self._changes.clear()
        self.size = 0
        self._oldest = catalog.revision
        self._services = {
            name: _frozen(service) for name, service in catalog.services() if service.instances
        }

    def note(self, services: Collection[str], catalog: Catalog, now: float) -> None:
        """*services* (folded names) are now as in *catalog*, at its revision."""
        for name in services:
            self._note(name, catalog, now)
        self._drop_old(now)

    def _note(self, name: str, catalog: Catalog, now: float) -> None:
        old = self._services.get(name)
        live = catalog.service(name)
        new = _frozen(live) if live is not None and live.instances else None
        was: Mapping[str, Instance] = {} if old is None else old.instances
        now_is: Mapping[str, Instance] = {} if new is None else new.instances
        before: dict[str, Instance | None] = {
            i: instance for i, instance in was.items() if now_is.get(i) is not instance
        }
        before.update((i, None) for i in now_is if i not in was)
        if not before and (old and old.name) == (new and new.name):
            return
        if new is None:
            self._services.pop(name, None)
        else:
            self._services[name] = new
        size = ENTRY_SIZE + sum(_size(i) for i in before.values() if i is not None)
        spelled = None if old is None else old.name
        self._changes.append(Change(catalog.revision, now, name, spelled, before, size))
        self.size += size

    def _drop_old(self, now: float) -> None:
        changes = self._changes
        while changes and (self.size > self._max_bytes or changes[0].at < now - self._max_age):
            gone = changes.popleft()
            self.size -= gone.size
            # Of several changes at one revision, the later are of no use alone.
            self._oldest = gone.revision

    def services(self) -> dict[str, Service]:
        """All services that have instances, as of now; they do not change any more."""
        return dict(self._services)

    def differences(self, serial: int, revision: int) -> dict[str, Difference] | None:
        """Each service that was another at *serial*; *revision* is the present one.

        None when that is not known: the serial is too old, or was never ours.
        """
        behind = distance(serial, revision % SERIALS)
        since = revision - behind
        if behind >= HALF or since < self._oldest:
            return None
        instances: dict[str, dict[str, Instance]] = {}
        spelled: dict[str, str | None] = {}
        for change in reversed(self._changes):
            if change.revision <= since:
                break
            name = change.service
            if name not in instances:
                present = self._services.get(name)
                instances[name] = {} if present is None else dict(present.instances)
            for i, instance in change.before.items():
                if instance is None:
                    instances[name].pop(i, None)
                else:
                    instances[name][i] = instance
            spelled[name] = change.name
        return {
            name: Difference(_service(spelled[name], then), self._services.get(name))
            for name, then in instances.items()
        }


def _frozen(service: Service) -> Service:
    return Service(service.name, dict(service.instances))


def _service(name: str | None, instances: dict[str, Instance]) -> Service | None:
    return None if name is None else Service(name, instances)


def _size(instance: Instance) -> int:
    r = instance.registration
    texts = sum(len(k) + len(v) + 120 for k, v in r.metadata.items())
    return INSTANCE_SIZE + texts + 100 * (len(r.tags) + len(r.ports) + len(instance.addresses))
