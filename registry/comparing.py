"""The store beside a catalog: what of the one the other lacks, though its changes were all heard.

It should be nothing.  A change that was lost on its way (an entry of the stream that could not be
read, somebody's hand in the store) would else stay lost until the next snapshot.
"""

from collections.abc import Iterator, Mapping

from registry.catalog import Catalog
from registry.errors import MalformedEntry
from registry.model import decode_instance


class Comparison:
    """One pass over the store, slice by slice; the catalog goes on changing in between."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self.differing: set[str] = set()

    def __repr__(self) -> str:
        return f"<Comparison {len(self._seen)} seen, {len(self.differing)} differ>"

    def look_at(self, stored: Mapping[str, str], catalog: Catalog, heard: int) -> None:
        """Compare a slice, read when every change up to the revision *heard* had been folded in.

        What is later than that is on its way; whatever is not must be in the catalog as it is.
        """
        for key, value in stored.items():
            self._seen.add(key)
            revision = _revision_of(value)
            if revision is None or revision > heard:
                continue
            service, _, instance_id = key.partition("/")
            held = catalog.instances(service).get(instance_id)
            if (held is None or held.revision != revision) and _is_ours(key, value):
                self.differing.add(key)

    def unseen(self, catalog: Catalog) -> Iterator[str]:
        """Keys that the catalog has and the pass, now over, did not meet; one a step, or "".

        Whoever came since may be among them, and whoever left since is not there any more.
        """
        for name, service in catalog.services():
            for instance_id in service.instances:
                key = f"{name}/{instance_id}"
                met = key in self._seen or catalog.is_unconfirmed(key)
                yield "" if met else key


def _revision_of(value: str) -> int | None:
    """The revision in the first line of a stored value, without reading the rest."""
    _, _, rest = value[:80].partition(" ")
    revision = rest.partition(" ")[0]
    return int(revision) if revision.isascii() and revision.isdigit() else None


def _is_ours(key: str, value: str) -> bool:
    """Whether a snapshot would hold it; else it differs for good, and is skipped there too."""
    try:
        return decode_instance(value).registration.key == key
    except MalformedEntry:
        return False
