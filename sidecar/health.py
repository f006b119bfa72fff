"""Whether a service is healthy: single verdicts, smoothed by rise and fall."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.model import MAX_METADATA_VALUE

FIRST_INTERVAL = 1.0
"""Seconds between probes at the start, so that a service is registered soon after it is up."""

FOUND_KEYS = ("version", "status")
"""Keys of a JSON health answer that become metadata."""


@dataclass(frozen=True, slots=True)
class Healthy:
    """One probe succeeded; *metadata* is what the answer told of the service."""

    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """One probe failed, and why."""

    reason: str


Verdict = Healthy | Unhealthy


@dataclass(frozen=True, slots=True)
class Policy:
    """When verdicts count; see the settings of the same names."""

    rise: int = 1
    fall: int = 2
    interval: float = 5.0
    initial_wait: float = 60.0
    register_unhealthy: bool = False


def verdict_of(status: int, body: bytes) -> Verdict:
    """What an HTTP answer says: 2xx is healthy, anything else is not."""
    if 200 <= status <= 299:
        return Healthy(_metadata_of(body))
    if 300 <= status <= 399:
        return Unhealthy(f"answered {status}; redirects are not followed")
    return Unhealthy(f"answered {status}")


def _metadata_of(body: bytes) -> dict[str, str]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(answer, dict):
        return {}
    found = {key: _text(answer[key]) for key in FOUND_KEYS if key in answer}
    return {key: value for key, value in found.items() if value}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        return ""
    text = str(value)
    fits = text.isprintable() and len(text.encode(errors="replace")) <= MAX_METADATA_VALUE
    return text if fits else ""


class Health:
    """One service's health over time."""

    def __init__(self, policy: Policy, started: float) -> None:
        self._policy = policy
        self._started = started
        self._in_a_row = 0
        self._said_overdue = False
        self.healthy = False
        self.was_healthy = False
        self.reason = "not probed yet"
        self.metadata: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return "<Health healthy>" if self.healthy else f"<Health unhealthy: {self.reason}>"

    def note(self, verdict: Verdict) -> bool:
        """Take one verdict into account; whether `healthy` or `metadata` changed."""
        agrees = isinstance(verdict, Healthy) == self.healthy
        self._in_a_row = 0 if agrees else self._in_a_row + 1
        before = self.healthy, self.metadata
        if isinstance(verdict, Healthy):
            if self._in_a_row >= self._policy.rise:
                self.healthy = self.was_healthy = True
            self.metadata = verdict.metadata
        else:
            if self._in_a_row >= self._policy.fall:
                self.healthy = False
            self.reason = verdict.reason
        if self.healthy != before[0]:
            self._in_a_row = 0
        return (self.healthy, self.metadata) != before

    def is_serving(self, now: float) -> bool:
        """Whether it is to be registered and answered for."""
        if self.healthy or self.was_healthy:
            return self.healthy
        return self._policy.register_unhealthy and self._waited_long(now)

    def is_overdue(self, now: float) -> bool:
        """True once: when it has not been healthy for the whole initial wait."""
        overdue = not self.was_healthy and not self._said_overdue and self._waited_long(now)
        self._said_overdue = self._said_overdue or overdue
        return overdue

    def interval(self, now: float) -> float:
        """Seconds from the beginning of one probe to the next."""
        if self.was_healthy or self._waited_long(now):
            return self._policy.interval
        return min(FIRST_INTERVAL, self._policy.interval)

    def _waited_long(self, now: float) -> bool:
        return now - self._started >= self._policy.initial_wait
