"""What stands in a query string or a condition: filters, how long to wait for a change, ETags."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from registry.errors import InvalidInstance, Problem
from registry.model import MAX_INTEGER, STATES

Query = Sequence[tuple[str, str]]

MAX_WAIT = 55.0
"""Seconds that one request may wait for a change: less than the 60 after which proxies give up."""

FILTERS: Final = ("tag", "version", "zone", "state")


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait at most *seconds* for anything later than revision *index*."""

    index: int
    seconds: float


def wait_of(query: Query) -> Wait | None:
    """`?index=REVISION&wait=30s`; None when nobody waits, InvalidInstance when it is unreadable.

    A longer wait than MAX_WAIT is cut to it: whoever asks again waits on.
    """
    given = dict(query)
    index, seconds = given.get("index"), seconds_of(given.get("wait", ""))
    if index is None:
        return None
    if not (index.isascii() and index.isdigit()) or len(index) > 16 or int(index) > MAX_INTEGER:
        raise _invalid("index", f"{index[:40]!r} is not a revision")
    return Wait(int(index), seconds)


def seconds_of(text: str) -> float:
    """`30s`, `500ms`, `1m30s`, `30`; MAX_WAIT when it is empty or more."""
    if not text:
        return MAX_WAIT
    if re.fullmatch(_DURATION, text) is None:
        raise _invalid("wait", f"{text[:40]!r} is not a time such as 30s, 500ms or 1m")
    parts = re.findall(_PART, text)
    return min(MAX_WAIT, sum(float(number) * _UNITS[unit] for number, unit in parts))


_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_PART: Final = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|)"
_DURATION: Final = r"[0-9]{1,9}(?:\.[0-9]{1,9})?|(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h)){1,4}"
"""As Go writes durations, since its clients come here too; a bare number is seconds."""


def filters_of(query: Query) -> dict[str, list[str]]:
    """The repeatable filters of a list by name; other parameters are not ours."""
    found: dict[str, list[str]] = {name: [] for name in FILTERS}
    for name, value in query:
        if name in found:
            found[name].append(value)
    for state in found["state"]:
        if state not in STATES:
            raise _invalid("state", f"{state[:40]!r} is not one of {', '.join(STATES)}")
    return found


def flag_of(query: Query, name: str) -> bool:
    """`?name=true`; false when it is not given."""
    value = dict(query).get(name, "false").lower()
    if value not in ("true", "false"):
        raise _invalid(name, f"{value[:40]!r} is not true or false")
    return value == "true"


def _invalid(field: str, message: str) -> InvalidInstance:
    return InvalidInstance([Problem(field, message)])


# --- entity tags (RFC 9110, section 8.8.3) ----------------------------------------------------
#
# Weak ones: they change with membership, not with the lease times shown beside it.


def list_tag(revision: int, unconfirmed: int, current: bool) -> str:
    """The tag of whatever shows the whole catalog at *revision*.

    *unconfirmed* instances leave without a revision of their own; and what is stale says so.
    """
    kept = f".{unconfirmed}" if unconfirmed else ""
    return f'W/"{revision}{kept}{_stale(current)}"'


def service_tag(stamp: tuple[int, int], answers: int, current: bool) -> str:
    """The tag of one service; *stamp* changes whenever its instances do (see `stamp_of`)."""
    newest, count = stamp
    return f'W/"{newest}.{count}.{answers}{_stale(current)}"'


def _stale(current: bool) -> str:
    return "" if current else "-stale"


def is_match(condition: str, tag: str) -> bool:
    """Whether If-None-Match *condition* holds *tag* (weak comparison)."""
    if not condition:
        return False
    if condition.strip() == "*":
        return True
    wanted = tag.removeprefix("W/")
    return any(part.strip().removeprefix("W/") == wanted for part in condition.split(","))
