"""Whether a service is healthy: single verdicts, smoothed by rise and fall."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.model import MAX_METADATA_VALUE
from sidecar.actions import SERVING

FIRST_INTERVAL = 1.0
"""Seconds between probes at the start, so that a service is registered soon after it is up."""

DOUBT = 0.8
"""Share of the interval to the next probe when the last one speaks against what is believed.

With it two failures that each take their whole time-out of 2 s come 11 s after the last success
at most, which leaves a second of the 12 s for telling the registrar.
"""

FOUND_KEYS = ("version", "status")
"""Keys of a JSON health answer that become metadata."""

MAX_REASON = 200
"""Characters of a reason that are kept; registrars take 256, our prefix included."""


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
    timeout: float = 2.0
    initial_wait: float = 60.0
    register_unhealthy: bool = False


def verdict_of(status: int, body: bytes) -> Verdict:
    """What an HTTP answer says: 2xx is healthy, anything else is not."""
    if 200 <= status <= 299:
        return Healthy(_metadata_of(body))
    if 300 <= status <= 399:
        return Unhealthy(f"answered {status}; redirects are not followed")
    return Unhealthy(f"answered {status}")


def one_line(text: str) -> str:
    """*text* as a reason may be: printable, on one line, not too long."""
    words = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_REASON]).split()
    return " ".join(words)[:MAX_REASON].strip()


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
        self._failures = 0
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
            self._failures += 1
            if self._in_a_row >= self._policy.fall:
                self.healthy = False
            self.reason = one_line(verdict.reason) or "unhealthy"
        if self.healthy != before[0]:
            self._in_a_row = 0
        return (self.healthy, self.metadata) != before

    def wanted(self, now: float) -> str:
        """The state in which the registrar is to have it; "" while too little is known.

        One that was never healthy is `waiting`, once it has failed as often as makes a healthy
        one unhealthy: a sidecar may be up a moment before its service.
        """
        if self.healthy:
            return SERVING
        if self.was_healthy:
            return "unhealthy"
        if self._policy.register_unhealthy and self._waited_long(now):
            return SERVING
        return "waiting" if self._failures >= self._policy.fall else ""

    def is_overdue(self, now: float) -> bool:
        """True once: when it has not been healthy for the whole initial wait."""
        overdue = not self.was_healthy and not self._said_overdue and self._waited_long(now)
        self._said_overdue = self._said_overdue or overdue
        return overdue

    def interval(self, now: float) -> float:
        """Seconds from the beginning of one probe to the next."""
        if self.was_healthy or self._waited_long(now):
            return self._policy.interval * (DOUBT if self._in_a_row else 1.0)
        return min(FIRST_INTERVAL, self._policy.interval)

    def _waited_long(self, now: float) -> bool:
        return now - self._started >= self._policy.initial_wait
