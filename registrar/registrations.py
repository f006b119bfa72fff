"""A body of POST /register: to a registration that keeps every rule, or to all its problems."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from registrar import endpoints
from registrar.endpoints import Network
from registrar.requests import problems_of_state
from registrar.shapes import MAX_PROBLEMS, RegistrationBody, object_of, shape_of
from registrar.values import lowered
from registry import names
from registry.errors import InvalidInstance, Problem
from registry.model import (
    DEFAULT_LEASE_TTL,
    MAX_INTEGER,
    Port,
    Registration,
    default_port,
    default_record_ttl,
    problems_of,
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What this registrar adds to the rules.  *zones* are ours, the canonical one first; *allowed*
    are networks in which any address may be registered.
    """

    zones: tuple[str, ...]
    lease_ttl: int = DEFAULT_LEASE_TTL
    allowed: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """A registration that keeps every rule, and the generation of who sent it (0: none).

    `host_field` is the field that its host came in; `state` the one in which it is to begin.
    """

    registration: Registration
    generation: int
    host_field: str = "host"
    state: str = "serving"
    reason: str = ""


def parse_registration(body: object, rules: Rules, caller: str) -> RegistrationRequest:
    """The registration in the JSON value *body*; InvalidInstance holds every problem of it.

    *caller* is the address it came from.
    """
    document = object_of(body)
    shape, problems = shape_of(RegistrationBody, document)
    if shape is None:
        # What is well-formed is judged all the same, so that nobody mends one fault at a time.
        shape, _ = shape_of(RegistrationBody, _without(document, problems))
        if shape is None:  # more problems than are reported
            raise InvalidInstance(problems)
    registration, further = _registration(shape, rules, caller)
    broken = {p.field for p in problems} | {p.field.partition(".")[0] for p in problems}
    for together in ({"endpoint", "address", "host"}, {"endpoint", "ports"}):
        if broken & together:
            broken |= together  # what one of them would have given is not missed
    problems += [p for p in further if p.field not in broken]
    if problems:
        raise InvalidInstance(problems[:MAX_PROBLEMS])
    host_field = "host" if shape.host is not None else "endpoint"
    state, reason = shape.state or "serving", shape.state_reason or ""
    return RegistrationRequest(registration, shape.generation or 0, host_field, state, reason)


def _without(document: Mapping[str, Any], problems: Iterable[Problem]) -> dict[str, Any]:
    """*document* without the fields, and entries of maps, that are named in *problems*."""
    rest = {"service_name": "unknown", **document}
    for field in dict.fromkeys(p.field for p in problems):
        top, _, entry = field.partition(".")
        inner = rest.get(top)
        if entry and isinstance(inner, dict):
            rest[top] = {k: v for k, v in inner.items() if k[:80] != entry}
        elif field == "service_name":
            rest[field] = "unknown"
        else:
            rest = {k: v for k, v in rest.items() if k[:80] != field}
    return rest


# --- from its parts ---------------------------------------------------------------------------


def _registration(
    body: RegistrationBody, rules: Rules, caller: str
) -> tuple[Registration, list[Problem]]:
    host, addresses, problems = _location(body, rules)
    ports = _ports(body, problems)
    lease_ttl = rules.lease_ttl if body.lease_ttl is None else body.lease_ttl
    if body.instance_id is None:
        where = host or next(iter(addresses), "")
        instance = names.default_instance_id(where, default_port(ports).number if ports else 0)
    else:
        instance = lowered(body.instance_id)
    registration = Registration(
        service=lowered(body.service_name),
        instance=instance,
        ports=ports,
        addresses=addresses,
        host=host,
        priority=body.priority or 0,
        weight=100 if body.weight is None else body.weight,
        version=body.version or "",
        zone=body.zone or "",
        tags=tuple(dict.fromkeys(body.tags or ())),
        metadata=body.metadata or {},
        health_endpoint="/health" if body.health_endpoint is None else body.health_endpoint,
        lease_ttl=lease_ttl,
        record_ttl=default_record_ttl(lease_ttl) if body.record_ttl is None else body.record_ttl,
        named=body.instance_id is not None,
        caller="" if body.instance_id is not None else caller,
    )
    problems += problems_of(registration)
    problems += _other_problems(body, registration, rules)
    return registration, problems


def _location(body: RegistrationBody, rules: Rules) -> tuple[str, tuple[str, ...], list[Problem]]:
    """Host, addresses, and what is wrong with them, each problem under the field it came in."""
    sources = [("address", "", address) for address in body.address or ()]
    if body.endpoint is not None:
        sources.append(("endpoint", body.endpoint.host, body.endpoint.address))
    if body.host is not None:
        sources.append(("host", *body.host))
    addresses = dict.fromkeys(address for _, _, address in sources if address)
    # Beside an address, a host in our own zone does no harm: it is not looked up.
    zones = () if addresses else rules.zones
    problems: list[Problem] = []
    for field, host, address in sources:
        problem = (
            endpoints.problem_of_host(host, zones, rules.allowed)
            if host
            else endpoints.problem_of_address(address, rules.allowed)
        )
        if problem is not None:
            problems.append(Problem(field, problem))
    hosts = list(dict.fromkeys(host for _, host, _ in sources if host))
    if len(hosts) > 1:
        problems.append(Problem("host", f"{hosts[1]!r}, and endpoint says {hosts[0]!r}: give one"))
    return (hosts[0] if hosts else ""), tuple(addresses), problems


def _ports(body: RegistrationBody, problems: list[Problem]) -> tuple[Port, ...]:
    ports = {name: Port(name, *value) for name, value in (body.ports or {}).items()}
    if body.endpoint is not None:
        port = Port(body.endpoint.scheme, body.endpoint.port)
        if ports.setdefault(port.name, port) != port:
            problems.append(
                Problem(f"ports.{port.name}", f"it differs from the port {port.number} of endpoint")
            )
    return tuple(ports.values())


def _other_problems(
    body: RegistrationBody, registration: Registration, rules: Rules
) -> Iterable[Problem]:
    """Rules of this API or of its zone, which the model cannot know."""
    # The model takes "" for "none", as the store writes it; a caller leaves the field out.
    for field in ("version", "zone"):
        if getattr(body, field) == "":
            yield Problem(field, f"it is empty; leave it out, or give {names.LOCALITY_RULE}")
    if body.generation is not None and not 0 <= body.generation <= MAX_INTEGER:
        rule = f"a whole number in 0..{MAX_INTEGER}"
        yield Problem("generation", f"{body.generation} is not {rule}")
    state = "serving" if body.state is None else body.state
    yield from problems_of_state(state, body.state_reason or "", "state_reason")
    longest = max((len(p.name) + len(p.protocol) + 4 for p in registration.ports), default=0)
    zone = max(map(len, rules.zones))
    names_below = max(longest, len(registration.instance) + 1)
    if names_below + len(registration.service) + 1 + zone - 1 > names.MAX_NAME:
        # RFC 1035, section 2.3.4.
        yield Problem(
            "service_name",
            f"its names in the zone would be longer than {names.MAX_NAME} characters",
        )
