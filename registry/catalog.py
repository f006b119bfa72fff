"""Who is registered now: the fold of all changes.

`apply()` says which service a change touched, so that its reader rewrites that
one and no other.  A service whose last instance left stays `known`, with its
port names, until it is forgotten.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from registry import names
from registry.changes import Change, InstanceDown, InstanceUp, ServiceForgotten, Snapshot
from registry.model import Instance

_NO_INSTANCES: Mapping[str, Instance] = MappingProxyType({})


@dataclass(slots=True)
class Service:
    """A known service: its name as first registered, its instances by folded id.

    `last` is the instance that left last, while there is no other: it remembers the ports.
    """

    name: str
    instances: dict[str, Instance] = field(default_factory=dict)
    last: Instance | None = None

    @property
    def serving(self) -> list[Instance]:
        """The instances that DNS answers, in the order of their ids."""
        return [i for _, i in sorted(self.instances.items()) if i.in_dns]


class Catalog:
    """All services known at `revision`.  One task changes it; everyone else reads."""

    def __init__(self) -> None:
        self.revision = 0
        self._services: dict[str, Service] = {}

    def __repr__(self) -> str:
        return (
            f"<Catalog {self.instance_count} instances in {len(self._services)} services,"
            f" revision {self.revision}>"
        )

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Catalog":
        """A catalog that holds exactly *snapshot*."""
        catalog = cls()
        catalog.revision = snapshot.revision
        for instance in sorted(snapshot.instances, key=lambda i: i.revision):
            catalog._put(instance)
        for instance in snapshot.gone:
            if instance.service not in catalog._services:
                catalog._services[instance.service] = Service(instance.listed_as, last=instance)
        return catalog

    def snapshot(self) -> Snapshot:
        """Everything in it, such that `Catalog.of(catalog.snapshot())` equals it."""
        services = self._services.values()
        return Snapshot(
            self.revision,
            tuple(i for s in services for i in s.instances.values()),
            tuple(s.last for s in services if s.last is not None and not s.instances),
        )

    @property
    def instance_count(self) -> int:
        return sum(len(s.instances) for s in self._services.values())

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
                return self._put(instance)
            case InstanceDown(service, instance_id):
                return self._remove(service, instance_id)
            case ServiceForgotten(service):
                return self._forget(service)

    def _put(self, instance: Instance) -> str:
        service = self._services.get(instance.service)
        if service is None:
            service = self._services[instance.service] = Service(instance.listed_as)
        service.instances[instance.id] = instance
        service.last = None
        return instance.service

    def _remove(self, name: str, instance_id: str) -> str | None:
        service = self._services.get(name)
        if service is None or (instance := service.instances.pop(instance_id, None)) is None:
            return None
        if not service.instances:
            service.last = instance
        return name

    def _forget(self, name: str) -> str | None:
        service = self._services.get(name)
        if service is None or service.instances:
            return None
        del self._services[name]
        return name
