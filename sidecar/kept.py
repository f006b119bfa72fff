"""One service that is kept registered: its health, its lease, and what was last said of it."""

from collections.abc import Callable, Mapping
from typing import Any

from registry.runtime.logs import Log, Transition
from sidecar.actions import Action, Wait
from sidecar.health import Health
from sidecar.heartbeat import Heartbeat
from sidecar.registration import Service

LONGEST_WAIT = 60.0
"""Seconds after which the loop looks again, whatever it was told to wait."""

UNREGISTERED = "unregistered"


class Kept:
    """What the agent knows of one service; *random* gives numbers in [0, 1)."""

    def __init__(
        self,
        service: Service,
        interval: float | None,
        random: Callable[[], float],
        log: Log,
        now: float,
    ) -> None:
        self.service = service
        self.health = Health(service.policy, now)
        self.heartbeat = Heartbeat(interval, random)
        self.instance = service.id
        self.sent_metadata: Mapping[str, str] = {}
        self.wanted = ""
        self.is_busy = False
        self.not_before = 0.0
        self._lease_story = Transition(log)
        self._health_story = Transition(log)

    def __repr__(self) -> str:
        return f"<Kept {self.service.name}/{self.instance} {self.health!r} {self.heartbeat!r}>"

    @property
    def condition(self) -> str:
        """`unregistered`, or the state in which the registrar holds it."""
        if self.heartbeat.lease is None:
            return UNREGISTERED
        return self.heartbeat.held or "serving"

    @property
    def missing(self) -> str:
        """What it lacks to be of use; "" when it lacks nothing that we could give it."""
        if self.condition not in (UNREGISTERED, "waiting"):
            return ""
        why = "waiting for the registrar" if self.health.healthy else self.health.reason
        return f"{self.service.name}: {self.condition} ({why})"

    def next_action(self, now: float) -> Action:
        """What its heartbeat wants; a wait while something is under way."""
        if self.is_busy or now < self.not_before:
            return Wait(LONGEST_WAIT if self.is_busy else self.not_before - now)
        wanted = self.health.wanted(now)
        return self.heartbeat.next_action(wanted=wanted, reason=self.health.reason, now=now)

    def tell(self, chapter: str, message: str, level: str = "info", **fields: Any) -> None:
        """Log a change in the life of its lease, once."""
        name = {"service": self.service.name, "instance": self.instance}
        self._lease_story.enter(chapter, message, level=level, **name, **fields)

    @property
    def chapter(self) -> str:
        """The last change that was told."""
        return self._lease_story.state

    def tell_health(self) -> None:
        """Log that it has become healthy or unhealthy, once."""
        fields = {"service": self.service.name, "probe": self.service.probed}
        if self.health.healthy:
            self._health_story.enter("healthy", "healthy", **fields)
        else:
            fields["reason"] = self.health.reason
            self._health_story.enter("unhealthy", "unhealthy", level="warning", **fields)
