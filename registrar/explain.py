"""Why DNS answers a name as it does: what it means, and each instance in or out, with the reason.

It judges by the registrar's own catalog, which follows the same feed as dnsd's, and by the
same rules; what dnsd has still in its hands is not looked at.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from registrar.questions import Nothing, OfService, Question, Special
from registry import names
from registry.catalog import Catalog, Service
from registry.model import IN_DNS, Instance

NEGATIVE_TTL: Final = 5
STALE_TTL: Final = 30
"""What dnsd gives to "no such name", and at most to anything while the store is away."""

SUSPECT_PENALTY: Final = 1000
"""By which the priority of a suspect is worse in DNS."""

MAX_NEAR: Final = 3
MAX_COMPARED: Final = 2000
"""Names that are compared for a likely one: some 20 ms."""

AT_SERVICE: Final = ("A", "AAAA", "SRV", "TXT")


@dataclass(frozen=True, slots=True)
class Source:
    """What the answer is made from: whether it is current, else for how long not, and why."""

    current: bool
    age: float
    error: str


@dataclass(frozen=True, slots=True)
class _Verdict:
    instance: Instance
    is_in: bool
    why: str


@dataclass(frozen=True, slots=True)
class _Finding:
    """An outcome with its reason, and what it came from."""

    answer: str
    why: str
    verdicts: tuple[_Verdict, ...] = ()
    ttl: int = NEGATIVE_TTL


def explained(question: Question, catalog: Catalog, source: Source) -> dict[str, Any]:
    """The whole explanation as a document."""
    place = question.place
    service = catalog.service(place.service) if isinstance(place, OfService) else None
    finding = _found(question, service)
    ttl = finding.ttl if source.current else min(finding.ttl, STALE_TTL)
    return {
        "name": question.name,
        "type": question.qtype,
        "answer": finding.answer,
        "why": finding.why,
        "parse": _parse(question),
        "service": None if service is None else service.name,
        "near": _near(place, service, catalog),
        "answers": 0 if service is None else service.answers,
        "ttl": ttl,
        "instances": [
            {
                "instance_id": v.instance.registration.instance,
                "in": v.is_in,
                "why": v.why,
                "state": v.instance.state,
                "addresses": list(v.instance.addresses),
                "priority": priority_of(v.instance),
                "weight": v.instance.registration.weight,
                "revision": str(v.instance.revision),
            }
            for v in finding.verdicts
        ],
        "source": "fresh" if source.current else "stale",
        "age": round(source.age, 3) if source.age != float("inf") else None,
        "error": source.error or None,
        "revision": str(catalog.revision),
    }


def priority_of(instance: Instance) -> int:
    """Its priority in DNS: worse while it is suspect."""
    penalty = SUSPECT_PENALTY if instance.state == "suspect" else 0
    return min(65535, instance.registration.priority + penalty)


def _parse(question: Question) -> dict[str, Any]:
    match question.place:
        case Special(kind, meaning):
            return {"zone": question.zone or None, "kind": kind, "meaning": meaning}
        case Nothing(why):
            return {"zone": question.zone, "kind": "nothing", "meaning": why}
        case OfService() as place:
            return {
                "zone": question.zone,
                "kind": _kind_of(place),
                "meaning": _meaning_of(place),
                "service": place.service,
                "instance": place.instance or None,
                "selectors": [f"{name}={value}" for name, value in place.selectors],
                "prefer": place.prefer or None,
                "port": None if place.port is None else place.port[0],
                "protocol": place.protocol or (place.port[1] if place.port else None),
            }


def _kind_of(place: OfService) -> str:
    if place.is_between:
        return "between"
    if place.port is not None:
        return "port"
    if place.protocol:
        return "default-port"
    return "instance" if place.instance else "service"


def _meaning_of(place: OfService) -> str:
    whom = f"instance {place.instance} of {place.service}" if place.instance else place.service
    for name, value in place.selectors:
        whom += f", {name} {value} only"
    if place.prefer:
        whom += f", zone {place.prefer} first"
    match _kind_of(place):
        case "between":
            return f"no records of its own, but names below it ({whom})"
        case "port":
            assert place.port is not None
            return f"port {place.port[0]} over {place.port[1]} of {whom}"
        case "default-port":
            return f"the default port over {place.protocol} of {whom}"
    return whom


# --- the outcome ------------------------------------------------------------------------------


def _found(question: Question, service: Service | None) -> _Finding:
    place = question.place
    match place:
        case Special("outside"):
            return _Finding("REFUSED", "dnsd has no zone that this name lies in")
        case Special("between"):
            return _Finding("NODATA", "there are names below it, and no records at it")
        case Special(_, meaning):
            return _Finding("NOERROR", f"{meaning}; no instance decides it")
        case Nothing(why):
            return _Finding("NXDOMAIN", why)
    if service is None:
        return _Finding("NXDOMAIN", f"no service {place.service!r} is known")
    verdicts = tuple(_verdicts(place, service, question.qtype))
    problem = _why_no_name(place, service)
    if problem is not None:
        return _Finding("NXDOMAIN", problem, verdicts)
    if place.is_between:
        return _Finding("NODATA", "there are names below it, and no records at it")
    types = ("SRV",) if place.port is not None or place.protocol else AT_SERVICE
    if question.qtype not in (*types, "ANY"):
        return _Finding("NODATA", f"there is no {question.qtype} here, only {', '.join(types)}")
    if not service.instances:
        return _Finding("NODATA", "its last instance has left; its name is still remembered")
    chosen = [v.instance for v in verdicts if v.is_in]
    if not chosen:
        return _Finding("NODATA", f"none of {len(verdicts)} instances may be answered", verdicts)
    why = f"{len(chosen)} of {len(verdicts)} instances"
    if 0 < service.answers < len(chosen):
        why += f", of which an answer holds {service.answers}, drawn by weight"
    ttl = min(i.registration.record_ttl for i in chosen)
    return _Finding("NOERROR", why, verdicts, ttl)


def _why_no_name(place: OfService, service: Service) -> str | None:
    """Why the name does not exist although its service does; None when it exists."""
    if place.instance:
        instance = service.instances.get(place.instance)
        if instance is None:
            return f"{service.name} has no instance {place.instance!r}"
        if not instance.in_dns:
            return f"the instance is not in DNS: {_why_absent(instance)}"
    instances = [*service.instances.values(), *([service.last] if service.last else [])]
    ports = {(p.name, p.protocol) for i in instances for p in i.registration.ports}
    if place.port is not None and place.port not in ports:
        known = ", ".join(sorted(f"_{name}._{protocol}" for name, protocol in ports))
        return f"{service.name} has no port _{place.port[0]}._{place.port[1]}, but {known}"
    if place.protocol and place.protocol not in {protocol for _, protocol in ports}:
        return f"{service.name} has no port over {place.protocol}"
    return None


# --- each instance ----------------------------------------------------------------------------


def _verdicts(place: OfService, service: Service, qtype: str) -> Iterable[_Verdict]:
    asked = [
        instance
        for _, instance in sorted(service.instances.items())
        if place.instance in ("", instance.id)
    ]
    reasons = {i.id: _why_out(place, i, qtype) for i in asked}
    able = [i for i in asked if reasons[i.id] is None]
    local = [i for i in able if _fold_value(i.registration.zone) == place.prefer]
    best = min(map(priority_of, local if place.prefer and local else able), default=0)
    for instance in asked:
        why = reasons[instance.id]
        if why is None and qtype in ("A", "AAAA"):
            why = _why_not_first(place, instance, best, bool(local)) or _why_no_family(
                instance, qtype
            )
        yield _Verdict(instance, why is None, why or _why_in(instance))


def _why_out(place: OfService, instance: Instance, qtype: str) -> str | None:
    """Why *instance* is out whoever else is in; None when it is not."""
    for name, wanted in place.selectors:
        has = _values(instance, name)
        if wanted not in map(_fold_value, has):
            return f"its {name} is {', '.join(has) or 'not given'}, not {wanted}"
    if not instance.in_dns:
        return _why_absent(instance)
    ports = instance.registration.ports
    if place.port is not None and not any((p.name, p.protocol) == place.port for p in ports):
        return f"it has no port {place.port[0]} over {place.port[1]}"
    if place.protocol and not any(p.protocol == place.protocol for p in ports):
        return f"it has no port over {place.protocol}"
    return None


def _why_absent(instance: Instance) -> str:
    if instance.state not in IN_DNS:
        reason = f" ({instance.reason})" if instance.reason else ""
        return f"its state is {instance.state}{reason}"
    return f"it has no address: none was found for its host {instance.registration.host!r}"


def _why_not_first(
    place: OfService, instance: Instance, best: int, is_any_local: bool
) -> str | None:
    if place.prefer and is_any_local and _fold_value(instance.registration.zone) != place.prefer:
        return f"it is not in zone {place.prefer}, and others are"
    if priority_of(instance) != best:
        return f"its priority is {priority_of(instance)}, and {best} is answered"
    return None


def _why_no_family(instance: Instance, qtype: str) -> str | None:
    if any((":" in address) == (qtype == "AAAA") for address in instance.addresses):
        return None
    return f"it has no {'IPv6' if qtype == 'AAAA' else 'IPv4'} address"


def _why_in(instance: Instance) -> str:
    if instance.state == "suspect":
        return "its lease is over, and so are many others': it is kept for a while, as the last"
    return "it is serving"


def _values(instance: Instance, selector: str) -> tuple[str, ...]:
    r = instance.registration
    values: Mapping[str, tuple[str, ...]] = {
        "tag": r.tags,
        "version": (r.version,) if r.version else (),
        "zone": (r.zone,) if r.zone else (),
        "state": (instance.state,),
    }
    return values[selector]


def _fold_value(value: str) -> str:
    """As it stands in a label: `v1.0.1` is asked for as `v1-0-1`."""
    return names.fold(value).replace(".", "-")


def _near(place: object, service: Service | None, catalog: Catalog) -> list[str]:
    """Names of services that may have been meant; none where the name is one's."""
    if not isinstance(place, OfService) or service is not None:
        return []
    wanted = place.service
    likely = (
        name for name, _ in catalog.services() if abs(len(name) - len(wanted)) <= len(wanted) // 2
    )
    found = difflib.get_close_matches(wanted, islice(likely, MAX_COMPARED), n=MAX_NEAR)
    services = (catalog.service(name) for name in found)
    return [s.name for s in services if s is not None]
