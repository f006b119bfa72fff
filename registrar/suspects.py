"""How many instances a guard keeps as suspect, kept up to date by whoever hears of changes."""

from registry.catalog import Catalog, Service


class Suspects:
    """Counts by service, so that nobody goes through a hundred thousand instances to be told."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Suspects {self.count} in {len(self._held)} services>"

    @property
    def count(self) -> int:
        """Suspect instances."""
        return sum(self._held.values())

    @property
    def services(self) -> list[str]:
        """Folded names of the services that have some, sorted."""
        return sorted(self._held)

    def update(self, name: str, service: Service | None) -> None:
        """The service of the folded *name* is now *service*; None: it is not known."""
        instances = () if service is None else service.instances.values()
        held = sum(i.state == "suspect" for i in instances)
        if held:
            self._held[name] = held
        else:
            self._held.pop(name, None)

    def rebuild(self, catalog: Catalog) -> None:
        """Count *catalog* from the beginning."""
        self._held.clear()
        for name, service in catalog.services():
            self.update(name, service)
