"""What a lease store can be asked, and what it answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from registry.changes import Snapshot
from registry.errors import LeaseNotFound, LeaseSuperseded
from registry.model import Instance, Registration


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease was granted: whether the instance is new, and whether readers see a change."""

    instance: Instance
    created: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class Renewal:
    """The wish to renew the lease of *key* (folded service/id), if *lease_id* is current."""

    key: str
    lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class Renewed:
    """The lease lasts *ttl* seconds from now; 0 for one that never ends."""

    ttl: float


RenewalResult = Renewed | LeaseNotFound | LeaseSuperseded


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep did: keys of the evicted and of the newly suspect, services forgotten."""

    evicted: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()


class LeaseStore(Protocol):
    """Leases and the changes they cause.  Its clock alone says what has expired.

    Every method raises StoreUnavailable when the store does not answer; then the call may have
    had its effect or not.  Keys are `Registration.key`; services are folded.
    """

    async def register(
        self,
        registration: Registration,
        *,
        lease_id: str,
        generation: int = 0,
        found: tuple[str, ...] = (),
        state: str = "serving",
        reason: str = "",
    ) -> Granted:
        """Grant a lease.  The same registration again is a renewal and no change.

        In another *state* than serving an instance begins, or goes on if it serves, with that
        *reason*, in the same change; a state that was set stays whatever is asked for.
        *lease_id* is used when the lease is new, its data or its generation.  *found* are the
        addresses of the registration's host, at most MAX_ADDRESSES.  LeaseSuperseded when
        *generation* (0: none) is lower than the stored or tombstoned one; OwnedByAnother when
        the registration has an owner and the service's name belongs to another.
        """

    async def renew(self, renewals: Sequence[Renewal]) -> list[RenewalResult]:
        """Renew each; results in the same order.  What is still stored can be renewed."""

    async def deregister(self, key: str, *, lease_id: str | None = None) -> tuple[bool, int]:
        """Remove one: whether it was there, and the revision after it.

        A Down is written also of one that is not known, since a reader may hold it still: once,
        and of no more than MAX_UNKNOWN a minute.  LeaseSuperseded when *lease_id* is given and
        not the current one.
        """

    async def deregister_service(self, service: str, ids: Iterable[str]) -> tuple[int, int]:
        """Remove every instance of *service*, of which the caller knows *ids*.

        How many were there, and the revision after it.
        """

    async def set_state(
        self, key: str, state: str, reason: str, *, expected: int | None = None
    ) -> Instance:
        """Put an instance into *state*.  LeaseNotFound; RevisionConflict unless at *expected*.

        *reason* is one printable line of at most MAX_REASON characters, no space at its ends.
        """

    async def set_answers(self, service: str, answers: int) -> int:
        """Let answers of *service* (folded) have so many records, 0: all; the revision after it.

        It stays when the service is forgotten.  LeaseNotFound when the service is not known.
        """

    async def owner_of(self, service: str) -> str:
        """Whose name *service* (folded) is; empty when it is nobody's."""

    async def set_found(self, key: str, found: tuple[str, ...], *, expected: int) -> Instance:
        """Replace the addresses of its host.  LeaseNotFound; RevisionConflict."""

    async def sweep(self) -> Sweep:
        """Evict what has expired, forget what was known long enough.  Called each second."""

    async def lease_times(self, keys: Sequence[str]) -> list[float | None]:
        """Seconds until each lease ends, never negative; None for unknown or without lease."""

    async def snapshot(self) -> Snapshot:
        """Everything, at one revision."""

    async def begin_epoch(self, known_revision: int) -> None:
        """Raise the revision once per life of the store, above all that it may have lost.

        Also when it is below *known_revision*.  Whatever grants a revision does this by itself.
        """

    async def release_guard(self, service: str, ids: Iterable[str]) -> tuple[int, int]:
        """Evict those of *ids* that are suspect; for as long as a guard holds, none holds others.

        How many they were, and the revision after it.  LeaseNotFound when the service (folded)
        is not known.
        """

    async def claim(self, role: str, holder: str, seconds: float) -> bool:
        """Whether *holder* has *role* for the next *seconds*: nobody else has it."""

    async def ping(self) -> None:
        """StoreUnavailable unless the store answers."""

    async def close(self) -> None:
        """Give connections back."""
