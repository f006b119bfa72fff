"""Bodies of the other calls: heartbeats, one or a list; a state to set; settings of a service."""

from collections.abc import Iterator
from dataclasses import dataclass

from registrar.shapes import HeartbeatBody, SettingsBody, StateBody, object_of, shape_of
from registrar.values import lowered, shown
from registry import names
from registry.errors import InvalidInstance, Problem
from registry.model import MAX_ANSWERS, MAX_REASON, SETTABLE_STATES

MAX_LIST = 1000
"""Heartbeats in one list: what fits into the largest body, written tersely."""

MAX_LEASE_ID = 64


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat: names as the caller spelled them, in lower case; an empty id is none."""

    service: str
    instance: str = ""
    lease_id: str | None = None

    @property
    def key(self) -> str:
        """The key of the instance it names."""
        return f"{names.fold(self.service)}/{names.fold(self.instance)}"


@dataclass(frozen=True, slots=True)
class StateChange:
    """The state an operator sets, and why."""

    state: str
    reason: str


def parse_heartbeats(body: object) -> tuple[list[Beat | InvalidInstance], bool]:
    """The heartbeats in *body*, and whether it is a list.

    Each item of a list stands for itself: a bad one does not cost the others their leases.
    A body that is no list and is bad raises InvalidInstance.
    """
    if not isinstance(body, list):
        return [_beat(body)], False
    if len(body) > MAX_LIST:
        raise InvalidInstance(
            [Problem("body", f"a list of {len(body)} heartbeats; at most {MAX_LIST}")]
        )
    return [_beat_or_problem(item) for item in body], True


def _beat_or_problem(item: object) -> Beat | InvalidInstance:
    try:
        return _beat(item)
    except InvalidInstance as error:
        return error


def _beat(item: object) -> Beat:
    shape, problems = shape_of(HeartbeatBody, object_of(item))
    if shape is not None:
        service, instance = lowered(shape.service_name), shape.instance_id
        problems += _name_problems("service_name", service)
        if instance is not None:
            instance = lowered(instance)
            problems += _name_problems("instance_id", instance)
        if shape.lease_id is not None and not 1 <= len(shape.lease_id) <= MAX_LEASE_ID:
            problems.append(
                Problem("lease_id", f"{len(shape.lease_id)} characters; 1 to {MAX_LEASE_ID}")
            )
        if not problems:
            return Beat(service, instance or "", shape.lease_id)
    raise InvalidInstance(problems)


def _name_problems(field: str, name: str) -> list[Problem]:
    problem = names.problem_of_service(name)
    return [] if problem is None else [Problem(field, problem)]


def parse_state(body: object) -> StateChange:
    """The state to set; InvalidInstance otherwise."""
    shape, problems = shape_of(StateBody, object_of(body))
    if shape is not None:
        reason = shape.reason or ""
        problems += problems_of_state(shape.state, reason, "reason")
        if not problems:
            return StateChange(shape.state, reason)
    raise InvalidInstance(problems)


def problems_of_state(state: str, reason: str, reason_field: str) -> Iterator[Problem]:
    """What is wrong with a state to set, and with the reason for it."""
    if state not in SETTABLE_STATES:
        rule = ", ".join(SETTABLE_STATES)
        yield Problem("state", f"{shown(state)} is not one of {rule}")
    if len(reason) > MAX_REASON or not reason.isprintable() or reason != reason.strip():
        rule = f"one line of at most {MAX_REASON} printable characters, no space at its ends"
        yield Problem(reason_field, f"it is not {rule}")


def parse_settings(body: object) -> int:
    """How many records an answer may have; InvalidInstance otherwise."""
    shape, problems = shape_of(SettingsBody, object_of(body))
    if shape is not None:
        answers: int = shape.answers
        if 0 <= answers <= MAX_ANSWERS:
            return answers
        problems.append(
            Problem("answers", f"{answers} is not a whole number in 0..{MAX_ANSWERS} (0: all)")
        )
    raise InvalidInstance(problems)
