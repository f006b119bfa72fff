"""What becomes of a wrapped command: decided here on signals, ends and time; run.py obeys.

The order of an ordered stop: out of DNS, a wait, deregister, and only then the signal that
somebody sent to stop it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Drain:
    """Begin to take the services out of DNS, to wait and to deregister."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Deregister at once: nothing answers any more."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Send the command this signal."""

    signum: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End the command and whatever it has begun, without asking."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Read token and certificates again."""


Act = Drain | Leave | Pass | Kill | Reload


class Phase(Enum):
    """How far the end of the command is."""

    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"
    ENDED = "ended"


class Wrapping:
    """One wrapped command, which is killed *stop_timeout* seconds after it was to stop."""

    def __init__(self, stop_timeout: float) -> None:
        self._stop_timeout = stop_timeout
        self._wish = 0
        self.phase = Phase.RUNNING
        self.kill_at: float | None = None

    def __repr__(self) -> str:
        return f"<Wrapping {self.phase.value}>"

    def told_to_stop(self, signum: int, now: float) -> Sequence[Act]:
        """Somebody wants it to end, by the signal *signum*."""
        match self.phase:
            # 1. The first wish to stop: in order.
            # 2. The second: without the wait.
            # 3. The third: without asking.
            case Phase.RUNNING:
                self.phase, self._wish = Phase.DRAINING, signum
                self.kill_at = now + self._stop_timeout
                return [Drain()]
            case Phase.DRAINING:
                return self._stopping(signum)
            case Phase.STOPPING:
                return [Kill()]
        return []

    def told(self, signum: int, *, reloads: bool) -> Sequence[Act]:
        """Another signal came: the command's to understand, and *reloads* the sidecar's too."""
        ours: list[Act] = [Reload()] if reloads else []
        return ours if self.phase is Phase.ENDED else [*ours, Pass(signum)]

    def drained(self) -> Sequence[Act]:
        """The services have left DNS and the registrar, or that took too long."""
        return self._stopping(self._wish) if self.phase is Phase.DRAINING else []

    def ended(self) -> Sequence[Act]:
        """The command has ended, asked or not."""
        self.phase, self.kill_at = Phase.ENDED, None
        return [Leave()]

    def at(self, now: float) -> Sequence[Act]:
        """Nothing has happened until *now*."""
        if self.kill_at is None or now < self.kill_at:
            return []
        self.phase, self.kill_at = Phase.STOPPING, None
        return [Kill()]

    def _stopping(self, signum: int) -> Sequence[Act]:
        self.phase = Phase.STOPPING
        return [Pass(signum)]


def exit_status(status: int) -> int:
    """Ours, for a command that ended with *status* (minus the signal that ended it)."""
    return status if status >= 0 else 128 - status
