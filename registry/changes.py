"""What happened to the catalog, as values: an instance came or changed, left, was forgotten,
a service was set otherwise.

Each change carries its revision and the revision before it, so that whoever
folds them notices a gap: stream ids are times and do not show one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.errors import MalformedEntry
from registry.model import MAX_ANSWERS, MAX_INTEGER, Instance, decode_instance


@dataclass(frozen=True, slots=True)
class InstanceUp:
    """*instance* was registered, or something that matters to readers changed in it."""

    instance: Instance
    revision: int
    prev: int


@dataclass(frozen=True, slots=True)
class InstanceDown:
    """The instance left; *reason* is `deregistered` or `evicted`.  Names are folded."""

    service: str
    id: str
    reason: str
    revision: int
    prev: int


@dataclass(frozen=True, slots=True)
class ServiceForgotten:
    """A service without instances was known long enough: from NODATA to NXDOMAIN."""

    service: str
    revision: int
    prev: int


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """A service shall be answered with at most *answers* records (0: all of them)."""

    service: str
    answers: int
    revision: int
    prev: int


@dataclass(frozen=True, slots=True)
class RevisionRaised:
    """The store may have lost writes; its revision is now above all that anyone has seen."""

    revision: int
    prev: int


Change = InstanceUp | InstanceDown | ServiceForgotten | ServiceSettings | RevisionRaised


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All there is at *revision*.

    `gone` holds the last instance of each service that is known and empty; `dead` tells of
    recently departed instances (folded service/id) the revision at which they left; `answers`
    how many records an answer of a service may have, where that was set (folded name).
    """

    revision: int
    instances: tuple[Instance, ...] = ()
    gone: tuple[Instance, ...] = ()
    dead: Mapping[str, int] = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)


def decode_change(fields: Mapping[str, str]) -> Change:
    """The change in the stream entry *fields*, as our scripts write it; else MalformedEntry.

    `r` revision, `p` the one before, `k` kind; `m` folded service/id or service;
    up: `v` stored value, `n` the service as first spelled; down: `w` why; settings: `a` answers.
    """
    try:
        kind, member = fields["k"], fields["m"]
        revision, prev = int(fields["r"]), int(fields["p"])
    except (KeyError, ValueError) as error:
        raise MalformedEntry(f"not a change: {error!r}") from error
    if not 0 <= prev < revision <= MAX_INTEGER:
        raise MalformedEntry(f"revision {revision} after {prev}")
    service, _, instance_id = member.partition("/")
    match kind:
        case "up":
            instance = decode_instance(fields.get("v", ""), fields.get("n", ""))
            if instance.registration.key != member or instance.revision != revision:
                raise MalformedEntry(f"{member[:130]!r} does not hold what it names")
            return InstanceUp(instance, revision, prev)
        case "down":
            return InstanceDown(service, instance_id, fields.get("w", ""), revision, prev)
        case "forgotten":
            return ServiceForgotten(service, revision, prev)
        case "settings":
            return ServiceSettings(service, decode_answers(fields.get("a", "")), revision, prev)
        case "raised":
            return RevisionRaised(revision, prev)
        case _:
            raise MalformedEntry(f"kind {kind[:40]!r} is not known to this version")


def decode_answers(text: str) -> int:
    """The setting `answers` as stored; MalformedEntry when it is not as we write it."""
    if not (text.isascii() and text.isdigit()) or int(text[:5]) > MAX_ANSWERS or len(text) > 4:
        raise MalformedEntry(f"answers {text[:40]!r} is not in 0..{MAX_ANSWERS}")
    return int(text)
