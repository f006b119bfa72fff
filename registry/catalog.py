"""Who is registered now: the fold of all changes.

`apply()` says which service a change touched, so that its reader rewrites that
one and no other.  A service whose last instance left stays known, with its port
names, until it is forgotten.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from registry import names
from registry.changes import (
    Change,
    InstanceDown,
    InstanceUp,
    RevisionRaised,
    ServiceForgotten,
    ServiceSettings,
    Snapshot,
)
from registry.model import MAX_LEASE_TTL, Instance

UNCONFIRMED_HOLD = 75.0
"""Seconds beyond its own lease that an instance stays which a snapshot lacks without a Down
seen: the longest back-off of a sidecar, an attempt, and the grace."""

_NO_INSTANCES: Mapping[str, Instance] = MappingProxyType({})


@dataclass(slots=True)
class Service:
    """A known service: its name as first registered, its instances by folded id.

    `last` is the instance that left last, while there is no other: it remembers the ports.
    `answers` is how many records an answer may have, 0 for all; `owner` whose name it is.
    """

    name: str
    instances: dict[str, Instance] = field(default_factory=dict)
    last: Instance | None = None
    answers: int = 0
    owner: str = ""

    @property
    def serving(self) -> list[Instance]:
        """The instances that DNS answers, in the order of their ids."""
        return [i for _, i in sorted(self.instances.items()) if i.in_dns]


class Catalog:
    """All services known at `revision`.  One task changes it; everyone else reads."""

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        self._services: dict[str, Service] = {}
        self._answers: dict[str, int] = {}
        self._unconfirmed: dict[str, float] = {}
        self._count = 0

    def __repr__(self) -> str:
        return (
            f"<Catalog {self._count} instances in {len(self._services)} services,"
            f" revision {self.revision}>"
        )

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Catalog":
        """A catalog that holds exactly *snapshot*."""
        catalog = cls(snapshot.revision)
        for service, answers in snapshot.answers.items():
            catalog.put_answers(service, answers)
        for instance in snapshot.instances:
            catalog.put(instance)
        for instance in snapshot.gone:
            catalog.put_gone(instance)
        return catalog

    def snapshot(self, dead: Mapping[str, int] = MappingProxyType({})) -> Snapshot:
        """Everything in it, such that `Catalog.of(catalog.snapshot())` equals it."""
        services = self._services.values()
        return Snapshot(
            self.revision,
            tuple(i for s in services for i in s.instances.values()),
            tuple(s.last for s in services if s.last is not None),
            dict(dead),
            dict(self._answers),
        )

    @property
    def instance_count(self) -> int:
        return self._count

    def __len__(self) -> int:
        """How many services are known, those without instances included."""
        return len(self._services)

    def services(self) -> Iterator[tuple[str, Service]]:
        """(folded name, service), in no order."""
        return iter(self._services.items())

    def service(self, name: str) -> Service | None:
        """The service of that name in any spelling; None when it is not known."""
        return self._services.get(names.fold(name))

    def instances(self, name: str) -> Mapping[str, Instance]:
        """Folded id → instance; empty when the service is unknown or has none."""
        service = self.service(name)
        return _NO_INSTANCES if service is None else service.instances

    # --- changes ------------------------------------------------------------------------

    def apply(self, change: Change) -> str | None:
        """Fold *change* in; the folded name of the service it touched, or None.

        A change at or below the catalog's revision was seen before and does nothing;
        an instance's own higher revision wins over an older Down.
        """
        if change.revision <= self.revision:
            return None
        self.revision = change.revision
        match change:
            case InstanceUp(instance):
                return self.put(instance)
            case InstanceDown(service, instance_id):
                return self._remove(service, instance_id, change.revision)
            case ServiceForgotten(service):
                return self._forget(service)
            case ServiceSettings(service, answers):
                return self.put_answers(service, answers)
            case RevisionRaised():
                return None

    def put(self, instance: Instance) -> str | None:
        """Hold *instance*, unless a later revision of it is held; its service, or None."""
        name, instance_id = instance.service, instance.id  # folded: not for nothing
        service = self._services.get(name)
        if service is None:
            service = self._new_service(instance)
        held = service.instances.get(instance_id)
        if held is not None and held.revision > instance.revision:
            return None
        if held is None:
            self._count += 1
        service.instances[instance_id] = instance
        service.last = None
        service.owner = instance.registration.owner or service.owner
        if self._unconfirmed:
            self._unconfirmed.pop(f"{name}/{instance_id}", None)
        return name

    def put_gone(self, instance: Instance) -> None:
        """Know its service as one that *instance* was the last to leave."""
        if instance.service not in self._services:
            self._new_service(instance).last = instance

    def put_answers(self, name: str, answers: int) -> str | None:
        """Set how many records an answer of *name* (folded) may have; the service if known.

        It outlives the service: whoever comes back is answered as before.
        """
        if answers:
            self._answers[name] = answers
        else:
            self._answers.pop(name, None)
        service = self._services.get(name)
        if service is None:
            return None
        service.answers = answers
        return name

    @property
    def settings_count(self) -> int:
        """How many services have a setting, known ones or not."""
        return len(self._answers)

    def _new_service(self, instance: Instance) -> Service:
        name, answers = instance.service, self._answers.get(instance.service, 0)
        owner = instance.registration.owner
        service = Service(instance.listed_as, answers=answers, owner=owner)
        self._services[name] = service
        return service

    def _remove(self, name: str, instance_id: str, revision: int) -> str | None:
        service = self._services.get(name)
        held = None if service is None else service.instances.get(instance_id)
        if service is None or held is None or held.revision > revision:
            return None
        del service.instances[instance_id]
        self._count -= 1
        self._unconfirmed.pop(held.registration.key, None)
        if not service.instances:
            service.last = held
        return name

    def _forget(self, name: str) -> str | None:
        service = self._services.get(name)
        if service is None or service.instances:
            return None
        del self._services[name]
        return name

    # --- snapshots remove nobody on their own word ------------------------------------------

    def keep_missing(self, before: "Catalog", dead: Mapping[str, int], now: float) -> Iterator[str]:
        """Keep what *before* held and this one lacks, for its lease and UNCONFIRMED_HOLD.

        Only a Down that is known from *dead* removes at once.  A generator, so that a large
        catalog can be gone through in slices: it yields the keys it keeps.
        """
        for instance in [i for _, s in before.services() for i in s.instances.values()]:
            key = instance.registration.key
            left_at = dead.get(key, -1)
            if instance.id in self.instances(instance.service) or left_at >= instance.revision:
                continue
            self.put(instance)
            lease = instance.registration.lease_ttl or MAX_LEASE_TTL
            self._unconfirmed[key] = before._unconfirmed.get(key, now + lease + UNCONFIRMED_HOLD)
            yield key

    def drop_unconfirmed(self, now: float) -> list[str]:
        """Remove what was kept long enough without a word of it; the services touched."""
        over = [key for key, until in self._unconfirmed.items() if now >= until]
        touched = []
        for key in over:
            name, _, instance_id = key.partition("/")
            self._remove(name, instance_id, self.revision)
            self._forget(name)
            touched.append(name)
        return touched

    def is_unconfirmed(self, key: str) -> bool:
        """Whether the last snapshot lacked it, and nothing was heard of it since."""
        return key in self._unconfirmed

    @property
    def unconfirmed(self) -> int:
        """How many instances are kept although the last snapshot lacked them."""
        return len(self._unconfirmed)
