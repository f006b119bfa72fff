"""How much each owner holds: services and instances, kept up to date by whoever hears of changes.

All instances of a service belong to the owner of its name, so that a service's count is enough.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from registrar.errors import LimitReached
from registrar.tokens import Token
from registry.catalog import Catalog, Service


class Holdings:
    """Counts by owner.  Registrations under way count too, so that a burst exceeds no quota."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, int]] = {}
        self._services: Counter[str] = Counter()
        self._instances: Counter[str] = Counter()
        self._coming: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Holdings of {len(self._services)} owners>"

    def of(self, owner: str) -> tuple[int, int]:
        """(services, instances) that *owner* holds."""
        return self._services[owner], self._instances[owner]

    def update(self, name: str, service: Service | None) -> None:
        """The service of the folded *name* is now *service*; None: it is not known."""
        owner, count = self._held.pop(name, ("", 0))
        if owner:
            self._add(owner, -1, -count)
        if service is not None and service.owner:
            self._held[name] = service.owner, len(service.instances)
            self._add(service.owner, 1, len(service.instances))

    def rebuild(self, catalog: Catalog) -> None:
        """Count *catalog* from the beginning."""
        self._held.clear()
        self._services.clear()
        self._instances.clear()
        for name, service in catalog.services():
            self.update(name, service)

    def _add(self, owner: str, services: int, instances: int) -> None:
        self._services[owner] += services
        self._instances[owner] += instances
        if not self._services[owner]:
            del self._services[owner], self._instances[owner]

    @contextmanager
    def room(self, who: Token | None, *, new_service: bool, new_instance: bool) -> Iterator[None]:
        """While a registration of *who* is under way; LimitReached when it has no room for it."""
        if who is None or not new_instance:
            yield
            return
        services, instances = self.of(who.name)
        coming = self._coming[who.name]
        if who.max_instances is not None and instances + coming >= who.max_instances:
            raise LimitReached(
                "token-instances", f"the token {who.name!r} may have {who.max_instances} instances"
            )
        # Each that is coming may be for a service of its own: the quota errs on its safe side.
        most = who.max_services if new_service else None
        if most is not None and services + coming >= most:
            raise LimitReached("token-services", f"the token {who.name!r} may have {most} services")
        self._coming[who.name] += 1
        try:
            yield
        finally:
            self._coming[who.name] -= 1
            if not self._coming[who.name]:
                del self._coming[who.name]
