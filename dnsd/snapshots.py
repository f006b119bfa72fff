"""The catalog as a file: what a dnsd starts from while the store is away.

One line of JSON for the head, one for each instance, one for the end, which shows that
nothing was cut off.  What is read back is checked as if a stranger had written it.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from registry.catalog import Catalog
from registry.changes import Snapshot
from registry.errors import MalformedEntry
from registry.model import MAX_INTEGER, decode_instance, encode_instance

FORMAT = 1
MAX_INSTANCES = 1_000_000
"""Lines that are read at most."""


@dataclass(frozen=True, slots=True)
class Head:
    """Which zone, as of which revision, written when (seconds since 1970)."""

    zone: str
    revision: int
    saved_at: float


def lines_of(snapshot: Snapshot, zone: str, saved_at: float) -> Iterator[str]:
    """The lines of the file.  Encoding takes 10 µs each: the caller may pause in between."""
    head = {"format": FORMAT, "zone": zone, "revision": snapshot.revision, "saved_at": saved_at}
    yield json.dumps(head)
    for kind, instances in (("live", snapshot.instances), ("gone", snapshot.gone)):
        for instance in instances:
            yield json.dumps([kind, instance.listed_as, encode_instance(instance)])
    yield json.dumps(["end", len(snapshot.instances) + len(snapshot.gone)])


class Reading:
    """Folds lines into a catalog, one at a time; `problem` says why the file cannot be used.

    An instance that is not as we write it is left out and counted: the others are worth having.
    """

    def __init__(self, zone: str) -> None:
        self.problem = "it has no head"
        self.malformed = 0
        self.head: Head | None = None
        self.catalog = Catalog()
        self._zone = zone
        self._instances = 0

    def take(self, line: str) -> None:
        """Fold one line in."""
        if self.head is None:
            self._take_head(line)
            return
        try:
            match json.loads(line):
                case ["live", str(listed_as), str(value)]:
                    self._instances += 1
                    self.catalog.put(decode_instance(value, listed_as))
                case ["gone", str(listed_as), str(value)]:
                    self._instances += 1
                    self.catalog.put_gone(decode_instance(value, listed_as))
                case ["end", int(count)]:
                    self.problem = "" if count == self._instances else "lines are missing"
                case _:
                    self.malformed += 1
        except (ValueError, MalformedEntry, RecursionError):
            self.malformed += 1
        if self._instances > MAX_INSTANCES:
            raise MalformedEntry(f"more than {MAX_INSTANCES} instances")

    def _take_head(self, line: str) -> None:
        try:
            document = json.loads(line)
            if document["format"] != FORMAT or document["zone"] != self._zone:
                raise MalformedEntry("another format, or another zone's")
            head = Head(self._zone, int(document["revision"]), float(document["saved_at"]))
            if not 0 <= head.revision <= MAX_INTEGER:
                raise MalformedEntry(f"revision {head.revision}")
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise MalformedEntry(f"not a snapshot: {error!r}") from error
        self.head = head
        self.catalog = Catalog(head.revision)
        self.problem = "its end is missing"


def read(lines: Iterable[str], zone: str) -> Reading:
    """All of *lines*; MalformedEntry when the head is none of ours."""
    reading = Reading(zone)
    for line in lines:
        reading.take(line)
    return reading
