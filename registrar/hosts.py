"""What look-ups of host names gave, when the next is due, and what is believed of them.

A failure is no proof: addresses once found stay until the name is said twice
not to exist.
"""

from collections.abc import Iterable
from dataclasses import dataclass

INTERVAL = 8.0
"""Seconds between look-ups of one host, so that none is older than 10."""

MISSES = 2
"""Answers in a row saying that there is no such name, before its addresses go."""


@dataclass(frozen=True, slots=True)
class Found:
    """The name has these addresses, of which those in *refused* may not be registered."""

    addresses: tuple[str, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """The name does not exist, or has no address."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nobody could say; *reason* is why."""

    reason: str


Answer = Found | Missing | Failed


@dataclass(slots=True)
class _Host:
    due_at: float
    addresses: tuple[str, ...] | None = None
    misses: int = 0


class HostBook:
    """Every host that is registered, and what is believed of it.  Times are monotonic."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def __repr__(self) -> str:
        return f"<HostBook {len(self._hosts)} hosts>"

    def __contains__(self, host: str) -> bool:
        return host in self._hosts

    def due(self, hosts: Iterable[str], now: float) -> list[str]:
        """Those of *hosts* to look up now; they are not due again for an INTERVAL.

        All others are forgotten.
        """
        self._hosts = {host: self._hosts.get(host) or _Host(due_at=now) for host in hosts}
        due = [host for host, known in self._hosts.items() if known.due_at <= now]
        for host in due:
            self._hosts[host].due_at = now + INTERVAL
        return due

    def told(self, host: str, answer: Answer) -> None:
        """Take note of what a look-up gave; nothing for a host that is not registered."""
        known = self._hosts.get(host)
        if known is None:
            return
        match answer:
            case Found(addresses):
                known.addresses, known.misses = addresses, 0
            case Missing():
                known.misses += 1
                if known.misses >= MISSES:
                    known.addresses = ()
            case Failed():
                pass  # says nothing, either way

    def addresses(self, host: str) -> tuple[str, ...] | None:
        """What *host* has; None while nothing is known, and then what is stored stays."""
        known = self._hosts.get(host)
        return None if known is None else known.addresses
