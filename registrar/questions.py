"""What a DNS name asks for, read from the right as dnsd reads it; nothing is looked up here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from registrar.values import lowered
from registry import names
from registry.errors import InvalidInstance, Problem

SELECTORS: Final = ("tag", "version", "zone", "state")
"""`<value>.<selector>.<service>`: only the instances of which it is true; several hold together."""

PREFER: Final = "prefer"
"""`<zone>.prefer.<service>`: the instances of that locality first."""

PROTOCOLS: Final = ("_tcp", "_udp")


@dataclass(frozen=True, slots=True)
class OfService:
    """A service, or some of it; names and values are folded.

    `instance` names one, `port` is (name, protocol), `protocol` asks for the default port of it.
    `is_between` when there are records below the name only (RFC 8020).
    """

    service: str
    instance: str = ""
    selectors: tuple[tuple[str, str], ...] = ()
    prefer: str = ""
    port: tuple[str, str] | None = None
    protocol: str = ""
    is_between: bool = False


@dataclass(frozen=True, slots=True)
class Special:
    """A name with a meaning of its own, which no service's instances decide."""

    kind: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """No name of ours could look so."""

    why: str


Place = OfService | Special | Nothing


@dataclass(frozen=True, slots=True)
class Question:
    """A name with its final dot, the type asked, our zone it lies in (empty: in none)."""

    name: str
    qtype: str
    zone: str
    place: Place


def parse_question(name: str, qtype: str, zones: Sequence[str]) -> Question:
    """What *name* and *qtype* ask; InvalidInstance when they can be in no question.

    A name without a final dot that lies in none of *zones* is taken to be below the first.
    """
    qtype = qtype.upper()
    problems = []
    if re.fullmatch("[A-Z][A-Z0-9-]{0,15}", qtype) is None:
        problems.append(Problem("type", f"{qtype[:40]!r} is not a type such as A, AAAA or SRV"))
    full = _full_name(lowered(name), zones)
    labels = full.removesuffix(".").split(".")
    if not all(1 <= len(label) <= names.MAX_LABEL for label in labels):
        rule = f"labels of 1 to {names.MAX_LABEL} characters, with dots between them"
        problems.append(Problem("name", f"{name[:80]!r} is not a name: {rule}"))
    if problems:
        raise InvalidInstance(problems)
    if len(full) > names.MAX_NAME + 1:
        return Question(full, qtype, "", Special("outside", "no DNS message has room for the name"))
    within = [zone for zone in zones if full == zone or full.endswith("." + zone)]
    if not within:
        return Question(full, qtype, "", Special("outside", "the name lies in no zone of ours"))
    zone = max(within, key=len)  # the deepest of nested ones
    below = full.removesuffix(zone).removesuffix(".")
    return Question(full, qtype, zone, place_of(below.split(".") if below else [], qtype))


def _full_name(name: str, zones: Sequence[str]) -> str:
    if name.endswith("."):
        return name
    full = name + "."
    if any(full == zone or full.endswith("." + zone) for zone in zones):
        return full
    return f"{name}.{zones[0]}"


def place_of(labels: Sequence[str], qtype: str) -> Place:
    """What *labels*, in lower case and without those of the zone, mean."""
    match labels:
        case []:
            return Special("apex", "SOA and NS of the zone")
        case ["ns1"]:
            return Special("name-server", "the address of a name server of the zone")
        case ["catalog"]:
            return Special("catalog", "PTR to every service, TXT with the revision")
        case ["dns-version"]:
            return Special("version", "TXT with the version of dnsd")
        case [*_, "_dns-sd", "_udp"] | [*_, "_sub", _, "_tcp" | "_udp"]:
            return Special("browsing", "DNS-SD (RFC 6763): PTR to what may be browsed")
        case [service, "_tcp" | "_udp" as protocol]:
            return _at_protocol(service, protocol, qtype)
        case ["_tcp" | "_udp"]:
            return Special("between", "no records of its own, but names below it")
        case [_, type_, "_tcp" | "_udp"] if type_.startswith("_"):
            return Special("browsing", "DNS-SD (RFC 6763): SRV and TXT of one instance")
    labels = labels[:-1] if labels[-1] == "service" and len(labels) > 1 else labels
    problem = names.problem_of_service(labels[-1])
    if problem is not None:
        return Nothing(f"its last label before the zone names no service: {problem}")
    return _below(OfService(names.fold(labels[-1])), list(labels[:-1]))


def _at_protocol(service: str, protocol: str, qtype: str) -> Place:
    if not service.startswith("_"):
        return Nothing(f"{service!r} before {protocol} has to begin with an underscore")
    if qtype == "PTR":
        return Special("browsing", "DNS-SD (RFC 6763): PTR to the instances with that port")
    return OfService(names.fold(service[1:]), protocol=protocol[1:])


def _below(place: OfService, labels: list[str]) -> Place:
    """*place* and what the *labels* before it add, the last of them first."""
    while labels:
        label = labels.pop()
        if label in PROTOCOLS:
            return _with_port(place, labels, label[1:])
        if place.instance:
            return Nothing(f"nothing stands before an instance but _port._protocol, not {label!r}")
        if label in (*SELECTORS, PREFER):
            if not labels:
                return replace(place, is_between=True)
            value = names.fold(labels.pop())
            if label == PREFER:
                place = replace(place, prefer=value)
            else:
                place = replace(place, selectors=(*place.selectors, (label, value)))
        elif names.problem_of_service(label) is None and not (place.selectors or place.prefer):
            place = replace(place, instance=names.fold(label))
        else:
            return Nothing(
                f"{label!r} is no instance, no selector ({', '.join((*SELECTORS, PREFER))})"
                " and no protocol"
            )
    return place


def _with_port(place: OfService, labels: list[str], protocol: str) -> Place:
    match labels:
        case []:
            return replace(place, protocol=protocol, is_between=True)
        case [port] if port.startswith("_"):
            return replace(place, port=(port[1:], protocol))
    return Nothing(f"before _{protocol} stands one label, _ and the name of a port")
