"""What can go wrong with a lease, by whose fault it is.

The caller's: `InvalidInstance`, `LeaseNotFound`, `LeaseSuperseded`.  The
world's: `StoreUnavailable`.  Foreign exceptions are translated into these at
the one module that imports the foreign library.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong with one field, and what would be right."""

    field: str
    message: str


class CallboardError(Exception):
    """Base of all our exceptions, so that a shell can tell ours from a bug."""


class InvalidInstance(CallboardError):
    """A registration breaks rules; *problems* holds every one of them, never none."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.field}: {p.message}" for p in self.problems))


class LeaseNotFound(CallboardError):
    """No such lease, or it has expired: the caller registers again."""


class LeaseSuperseded(CallboardError):
    """Somebody newer holds the lease (other `lease_id`, greater `generation`)."""


class OwnedByAnother(CallboardError):
    """The service's name belongs to somebody else, who registered it first."""


class RevisionConflict(CallboardError):
    """A compare-and-set met another revision than the one the caller had read."""

    def __init__(self, current: int) -> None:
        self.current = current
        super().__init__(f"the instance is at revision {current}")


class StoreUnavailable(CallboardError):
    """The store did not answer, or answered that it cannot write now."""


class MalformedEntry(CallboardError):
    """Something read from the store is not ours to understand: skipped, counted, named once."""
