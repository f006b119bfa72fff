"""The lease store in memory: the specification that `RedisStore` must equal.

It is also what every other test registers in.  Nothing here waits; the methods
are coroutines only because the protocol's are.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from registry import lease, names
from registry.changes import (
    Change,
    InstanceDown,
    InstanceUp,
    RevisionRaised,
    ServiceForgotten,
    ServiceSettings,
    Snapshot,
)
from registry.errors import LeaseNotFound, LeaseSuperseded, OwnedByAnother, RevisionConflict
from registry.lease import Losses
from registry.leases import Granted, Renewal, RenewalResult, Renewed, Sweep
from registry.model import Instance, Registration

ZONE = ""
"""Stands for the whole zone where services are counted."""


class MemoryStore:
    """All leases of one zone.  *now_ms* is its clock, in milliseconds; the rest as `RedisStore`."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        replid: str = "memory",
        *,
        known_revision: Callable[[], int] = lambda: 0,
        guard_hold: float = lease.GUARD_HOLD_MS / 1000,
    ) -> None:
        self._now_ms = now_ms
        self._replid = replid
        self._known_revision = known_revision
        self._guard_hold_ms = int(guard_hold * 1000)
        self._epoch_of = ""
        self.revision = 0
        self._instances: dict[str, Instance] = {}
        self._deadlines: dict[str, int] = {}
        self._late: dict[str, int] = {}
        self._free: dict[str, int] = {}
        self._unknown: tuple[int, int] | None = None
        self._dead: dict[str, tuple[int, int]] = {}
        self._gone: dict[str, Instance] = {}
        self._listed_as: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self._answers: dict[str, int] = {}
        self._losses: dict[str, Losses] = {}
        self._roles: dict[str, tuple[str, int]] = {}
        self._last_tick: int | None = None
        self._outage_end: int | None = None
        self._changes: list[Change] = []

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._instances)} instances, revision {self.revision}>"

    def changes_after(self, revision: int) -> list[Change]:
        """The feed: every change later than *revision*, oldest first."""
        return [c for c in self._changes if c.revision > revision]

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
        self._begin()
        key, now = registration.key, self._now_ms()
        owner = self._owners.get(names.fold(registration.service))
        if registration.owner and owner not in (None, registration.owner):
            raise OwnedByAnother(f"{registration.service} belongs to {owner}")
        old = self._instances.get(key)
        known_generation = old.generation if old else self._dead.get(key, (0, 0))[1]
        if generation and generation < known_generation:
            raise LeaseSuperseded(f"generation {generation} is older than {known_generation}")
        newer = generation > known_generation
        generation = max(generation, known_generation)
        self._set_deadline(key, registration.lease_ttl * 1000, now)
        is_free = old is None or old.state in ("serving", "suspect")
        is_same = old is not None and old.registration.to_json() == registration.to_json()
        if old is not None and is_same and (state == "serving" or not is_free):
            # 1. The same again: a renewal.  A newer owner gets a lease of its own.
            kept = replace(old, lease_id=lease_id if newer else old.lease_id, generation=generation)
            self._instances[key] = kept
            return Granted(*self._unsuspected(key, kept), changed=old.state == "suspect")
        # 2. Other data, or new, or no longer serving.
        service = names.fold(registration.service)
        self._listed_as.setdefault(service, registration.service)
        if registration.owner:
            self._owners.setdefault(service, registration.owner)
        self._dead.pop(key, None)
        self._deadlines.pop(f"~dead:{key}", None)
        self._gone.pop(service, None)
        self._deadlines.pop(f"~gone:{service}", None)
        if old is not None and not is_free:
            state, reason = old.state, old.reason
        if old is not None and is_same and not newer:
            lease_id = old.lease_id
        instance = Instance(
            registration,
            self.revision + 1,
            lease_id,
            old.registered_at_ms if old else now,
            generation,
            state,
            reason if state != "serving" else "",
            found,
            self._listed_as[service],
        )
        self._put(instance)
        return Granted(instance, created=old is None, changed=True)

    async def renew(self, renewals: Sequence[Renewal]) -> list[RenewalResult]:
        return [self._renew(renewal) for renewal in renewals]

    def _renew(self, renewal: Renewal) -> RenewalResult:
        instance = self._instances.get(renewal.key)
        if instance is None:
            return LeaseNotFound(renewal.key)
        if renewal.lease_id is not None and renewal.lease_id != instance.lease_id:
            return LeaseSuperseded(renewal.key)
        ttl = instance.registration.lease_ttl
        self._set_deadline(renewal.key, ttl * 1000, self._now_ms())
        self._unsuspected(renewal.key, instance)
        return Renewed(float(ttl))

    async def deregister(self, key: str, *, lease_id: str | None = None) -> tuple[bool, int]:
        self._begin()
        instance = self._instances.get(key)
        if instance is not None and lease_id is not None and lease_id != instance.lease_id:
            raise LeaseSuperseded(key)
        self._remove(key, "deregistered", self._now_ms())
        return instance is not None, self.revision

    async def deregister_service(self, service: str, ids: Iterable[str]) -> tuple[int, int]:
        self._begin()
        stored = [k for k in self._instances if k.partition("/")[0] == service]
        for key in dict.fromkeys([*(f"{service}/{i}" for i in ids), *sorted(stored)]):
            self._remove(key, "deregistered", self._now_ms())
        return len(stored), self.revision

    async def set_state(
        self, key: str, state: str, reason: str, *, expected: int | None = None
    ) -> Instance:
        self._begin()
        instance = self._at(key, expected)
        if (instance.state, instance.reason) == (state, reason):
            return instance
        return self._put(replace(instance, state=state, reason=reason, revision=self.revision + 1))

    async def set_answers(self, service: str, answers: int) -> int:
        self._begin()
        if service not in self._listed_as:
            raise LeaseNotFound(service)
        if self._answers.get(service, 0) != answers:
            self._answers[service] = answers
            prev, self.revision = self.revision, self.revision + 1
            self._changes.append(ServiceSettings(service, answers, self.revision, prev))
        return self.revision

    async def owner_of(self, service: str) -> str:
        return self._owners.get(service, "")

    async def set_found(self, key: str, found: tuple[str, ...], *, expected: int) -> Instance:
        self._begin()
        instance = self._at(key, expected)
        if instance.found == found:
            return instance
        return self._put(replace(instance, found=found, revision=self.revision + 1))

    async def sweep(self) -> Sweep:
        self._begin()
        now = self._now_ms()
        if lease.is_outage(self._last_tick, now):
            self._outage_end = now
        self._last_tick = now
        evicted: list[str] = []
        suspects: list[str] = []
        forgotten: list[str] = []
        for at, member in self._due(now)[: lease.MAX_EXAMINED]:
            if len(evicted) + len(suspects) + len(forgotten) >= lease.MAX_EVICTIONS:
                break
            if member.startswith("~dead:"):
                del self._dead[member.removeprefix("~dead:")], self._deadlines[member]
            elif member.startswith("~gone:"):
                forgotten.append(self._forget(member))
            else:
                match self._verdict(self._instances[member], at, now):
                    case "evict":
                        self._remove(member, "evicted", now)
                        evicted.append(member)
                    case "suspect":
                        instance = self._instances[member]
                        revision = self.revision + 1
                        self._put(replace(instance, state="suspect", reason="", revision=revision))
                        self._late[member] = now + self._guard_hold_ms
                        suspects.append(member)
                    case int(until):
                        self._late[member] = until
        return Sweep(tuple(evicted), tuple(suspects), tuple(forgotten))

    def _due(self, now: int) -> list[tuple[int | None, str]]:
        """Who is to be looked at: those put off until now, without the end of their lease, and
        those whose lease is over, less the many of whom it is known that an outage keeps them."""
        late = sorted((at, member) for member, at in self._late.items() if at <= now)
        after = -1
        if self._outage_end is not None and lease.is_held(0, self._outage_end, now):
            after = self._outage_end
        over = sorted(
            (at, member)
            for member, at in self._deadlines.items()
            if at > after and lease.is_expired(at, now) and member not in self._late
        )
        return [(None, member) for _, member in late] + [*over]

    async def lease_times(self, keys: Sequence[str]) -> list[float | None]:
        now = self._now_ms()
        return [
            None if (at := self._deadlines.get(key)) is None else max(0, at - now) / 1000
            for key in keys
        ]

    async def snapshot(self) -> Snapshot:
        return Snapshot(
            self.revision,
            tuple(self._instances.values()),
            tuple(self._gone.values()),
            {key: revision for key, (revision, _) in self._dead.items()},
            {service: answers for service, answers in self._answers.items() if answers},
        )

    async def begin_epoch(self, known_revision: int) -> None:
        self._begin(known_revision)

    async def release_guard(self, service: str, ids: Iterable[str]) -> tuple[int, int]:
        self._begin()
        if service not in self._listed_as:
            raise LeaseNotFound(service)
        now = self._now_ms()
        self._free[service] = now + self._guard_hold_ms
        evicted = 0
        for key in dict.fromkeys(f"{service}/{i}" for i in ids):
            instance = self._instances.get(key)
            if instance is not None and instance.state == "suspect":
                self._remove(key, "evicted", now)
                evicted += 1
        return evicted, self.revision

    async def claim(self, role: str, holder: str, seconds: float) -> bool:
        now = self._now_ms()
        owner, until = self._roles.get(role, (holder, 0))
        if owner != holder and now < until:
            return False
        self._roles[role] = (holder, now + int(seconds * 1000))
        return True

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None

    # --- steps --------------------------------------------------------------------------

    def _begin(self, known: int | None = None) -> None:
        """Begin the epoch unless it has begun: done by whatever may grant a revision."""
        known = self._known_revision() if known is None else known
        if self._epoch_of != self._replid or self.revision < known:
            self._epoch_of, prev = self._replid, self.revision
            self.revision = lease.next_epoch(prev, known, self._now_ms() // 1000)
            self._changes.append(RevisionRaised(self.revision, prev))

    def _set_deadline(self, key: str, lease_ms: int, now: int) -> None:
        self._late.pop(key, None)
        if lease_ms:
            self._deadlines[key] = now + lease_ms
        else:
            self._deadlines.pop(key, None)

    def _at(self, key: str, expected: int | None) -> Instance:
        instance = self._instances.get(key)
        if instance is None:
            raise LeaseNotFound(key)
        if expected is not None and instance.revision != expected:
            raise RevisionConflict(instance.revision)
        return instance

    def _unsuspected(self, key: str, instance: Instance) -> tuple[Instance, bool]:
        """A renewed suspect serves again; the instance, and False for "not created"."""
        if instance.state == "suspect":
            self._begin()
            revision = self.revision + 1
            instance = self._put(replace(instance, state="serving", reason="", revision=revision))
        return instance, False

    def _put(self, instance: Instance) -> Instance:
        self._instances[instance.registration.key] = instance
        self._changes.append(InstanceUp(instance, instance.revision, self.revision))
        self.revision = instance.revision
        return instance

    def _remove(self, key: str, reason: str, now: int) -> None:
        service, _, instance_id = key.partition("/")
        instance = self._instances.pop(key, None)
        self._deadlines.pop(key, None)
        self._late.pop(key, None)
        if instance is None and not self._may_announce_unknown(key, now):
            return
        prev, self.revision = self.revision, self.revision + 1
        self._changes.append(InstanceDown(service, instance_id, reason, self.revision, prev))
        if instance is None:
            return
        # The sweep looks at everything a grace later than its deadline.
        lease_ms = instance.registration.lease_ttl * 1000
        ends = lease.tombstone_ends_ms(lease_ms, now) - lease.GRACE_MS
        self._dead[key] = self.revision, instance.generation
        self._deadlines[f"~dead:{key}"] = ends
        if not any(i.service == service for i in self._instances.values()):
            self._gone[service] = instance
            self._deadlines[f"~gone:{service}"] = ends

    def _may_announce_unknown(self, key: str, now: int) -> bool:
        """Whether readers are told that somebody left whom this store does not know."""
        if key in self._dead:
            return False
        window = lease.UNKNOWN_WINDOW_MS
        ends, told = self._unknown or (now, 0)
        if now >= ends or ends > now + window:
            ends, told = now + window, 0
        if told >= lease.MAX_UNKNOWN:
            return False
        self._unknown = ends, told + 1
        return True

    def _forget(self, member: str) -> str:
        service = member.removeprefix("~gone:")
        del self._gone[service], self._deadlines[member], self._listed_as[service]
        self._losses.pop(service, None)
        self._owners.pop(service, None)
        self._free.pop(service, None)
        prev, self.revision = self.revision, self.revision + 1
        self._changes.append(ServiceForgotten(service, self.revision, prev))
        return service

    def _verdict(self, instance: Instance, expires_at: int | None, now: int) -> str | int:
        """What to do when a lease is over: `evict`, `suspect`, or when to look again.

        *expires_at* is None for one that was looked at before and put off until now.
        """
        lease_ms = instance.registration.lease_ttl * 1000
        renewed_at = 0 if expires_at is None else expires_at - lease_ms
        if self._outage_end is not None and lease.is_held(renewed_at, self._outage_end, now):
            return self._outage_end + lease.OUTAGE_HOLD_MS
        if instance.state == "suspect" and expires_at is not None:
            return now + self._guard_hold_ms  # an older version made it one
        if instance.state != "serving":
            return "evict"
        scopes = {
            scope: lease.losses_at(self._losses.get(scope), self._serving(scope), lease_ms, now)
            for scope in (instance.service, ZONE)
        }
        held = any(lease.is_mass_expiry(losses) for losses in scopes.values())
        held = held and now >= self._free.get(instance.service, now)
        for scope, losses in scopes.items():
            self._losses[scope] = losses if held else losses._replace(lost=losses.lost + 1)
        return "suspect" if held else "evict"

    def _serving(self, scope: str) -> int:
        """How many serving leases there are, of one service or of the zone."""
        return sum(
            i.state == "serving" and i.registration.lease_ttl > 0
            for i in self._instances.values()
            if scope in (ZONE, i.service)
        )
