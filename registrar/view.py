"""What the registrar reads from: a catalog that somebody keeps current."""

from collections.abc import Callable
from typing import Protocol

from registry.catalog import Catalog
from registry.changes import Change


class View(Protocol):
    """The part of `registry.follower.Follower` that the registrar uses."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def loaded(self) -> bool:
        """Whether there ever was a catalog."""

    @property
    def current(self) -> bool:
        """Whether it holds everything that the store has."""

    @property
    def error(self) -> str:
        """Why it is not current; empty when it is."""

    def age(self, now: float) -> float:
        """Seconds since it was last known to be current; 0.0 while it is."""

    async def reached(self, revision: int, timeout: float) -> bool:
        """Wait until *revision* is folded in, at most *timeout* seconds; whether it is."""

    def listen(self, heard: Callable[[Change | None], None]) -> None:
        """Have *heard* told of each change once it is folded in; of None for any other."""
