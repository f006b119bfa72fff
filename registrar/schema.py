"""What callers may say, as types: JSON in, `Registration` and the like out, or every problem.

pydantic checks the shape and publishes it (openapi.py); the rules themselves
stand in `registry.model`, once, and speak for the whole body after it.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, NamedTuple

import pydantic.dataclasses
from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from registrar import endpoints
from registrar.endpoints import Network
from registry import names
from registry.errors import InvalidInstance, Problem
from registry.model import (
    DEFAULT_LEASE_TTL,
    MAX_ADDRESSES,
    MAX_INTEGER,
    MAX_METADATA,
    MAX_METADATA_VALUE,
    MAX_PATH,
    MAX_PORTS,
    MAX_REASON,
    MAX_RECORD_TTL,
    MAX_TAGS,
    MIN_LEASE_TTL,
    SETTABLE_STATES,
    Port,
    Registration,
    default_port,
    default_record_ttl,
    problems_of,
)
from registry.model import MAX_LEASE_TTL as MAX_LEASE

MAX_PROBLEMS = 50
"""Reported of one body; the rest would only repeat them."""

MAX_LIST = 1000
"""Heartbeats in one list: what fits into the largest body, written tersely."""

MAX_LEASE_ID = 64

SCHEME_PORTS: Final = {"http": 80, "https": 443}


# --- what a caller means --------------------------------------------------------------------


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

    `host_field` is the field that its host came in.
    """

    registration: Registration
    generation: int
    host_field: str = "host"


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


# --- single values --------------------------------------------------------------------------


class Endpoint(NamedTuple):
    """What an endpoint URL says; exactly one of *host* and *address* is not empty."""

    scheme: str
    host: str
    address: str
    port: int


def parse_endpoint(value: object) -> Endpoint:
    """`http://vertice-nmap:8047/` in its parts; ValueError says what would be right."""
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not text, such as http://10.0.0.7:8080")
    scheme, colon, rest = value.partition("://")
    scheme = _folded(scheme)
    if not colon or scheme not in SCHEME_PORTS:
        raise ValueError(
            f"{_shown(value)} is not http://HOST:PORT or https://HOST:PORT;"
            " for another protocol give address or host, and ports"
        )
    where = rest.removesuffix("/")
    if where != where.strip() or any(c in where for c in "/?#@\\"):
        raise ValueError(
            f"{_shown(value)} has more than a host and a port;"
            " a health path goes into health_endpoint"
        )
    text, port = _split_port(where, SCHEME_PORTS[scheme])
    host, address = _host_or_address(text)
    return Endpoint(scheme, host, address, port)


def _split_port(where: str, default: int) -> tuple[str, int]:
    if where.startswith("["):
        host, bracket, rest = where[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{_shown(where)} is not [IPV6]:PORT")
        digits = rest[1:] if rest else str(default)
    else:
        host, colon, digits = where.partition(":")
        digits = digits if colon else str(default)
    if not (digits.isascii() and digits.isdigit()) or not 1 <= int(digits[:6]) <= 65535:
        raise ValueError(f"port {_shown(digits)} is not a whole number in 1..65535")
    return host, int(digits[:6])


def _host_or_address(text: str) -> tuple[str, str]:
    """(host, "") or ("", address in canonical form)."""
    address = endpoints.canonical_address(text)
    if address is not None:
        return "", address
    host = _folded(text).removesuffix(".")
    problem = names.problem_of_host(host)
    if problem is not None:
        raise ValueError(problem)
    return host, ""


def _host(value: object) -> tuple[str, str]:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not text")
    return _host_or_address(value)


def _addresses(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    found: list[str] = []
    for item in items:
        address = endpoints.canonical_address(item) if isinstance(item, str) else None
        if address is None:
            raise ValueError(f"{_shown(item)} is not an IPv4 or IPv6 address")
        found.append(address)
    return tuple(dict.fromkeys(found))


def _port(value: object) -> tuple[int, str]:
    if isinstance(value, dict):
        if unknown := sorted(value.keys() - {"port", "protocol"}):
            raise ValueError(f"unknown field {unknown[0][:40]!r}; port and protocol are known")
        protocol = value.get("protocol", "tcp")
        if protocol not in ("tcp", "udp"):
            raise ValueError(f"protocol {_shown(protocol)} is not tcp or udp")
        return _whole(value.get("port")), protocol
    return _whole(value), "tcp"


def _whole(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        # JSON has one kind of number: 60.0 is what some writers make of 60.
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{_shown(value)} is not a whole number")
    return value


def _scalar(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"{_shown(value)} is not text, a number, true or false")


def _folded(text: str) -> str:
    # Only ASCII: the Kelvin sign's lower case is a plain k.
    return text.lower() if text.isascii() else text


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)[:80]


# --- the published shapes -------------------------------------------------------------------

_NAME_SCHEMA: Final = {
    "type": "string",
    "pattern": "^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$",
    "minLength": 1,
    "maxLength": names.MAX_LABEL,
}
_LOCALITY_SCHEMA: Final = {
    "type": "string",
    "pattern": "^[A-Za-z0-9._-]+$",
    "minLength": 1,
    "maxLength": names.MAX_LABEL,
}
_ADDRESS_SCHEMA: Final = {"anyOf": [{"type": "string", "format": f} for f in ("ipv4", "ipv6")]}
_PORT_NUMBER: Final = {"type": "integer", "minimum": 1, "maximum": 65535}


def _range_schema(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


ServiceName = Annotated[
    str, WithJsonSchema({**_NAME_SCHEMA, "description": f"{names.SERVICE_RULE}; not reserved"})
]
InstanceId = Annotated[
    str,
    WithJsonSchema(
        {**_NAME_SCHEMA, "description": "Default: derived from host and port, always the same."}
    ),
]
EndpointUrl = Annotated[
    Endpoint,
    PlainValidator(parse_endpoint),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+/?$",
            "examples": ["http://vertice-nmap:8047", "https://[2001:db8::7]"],
            "description": "Host and port in one; its scheme names the port.",
        }
    ),
]
Addresses = Annotated[
    tuple[str, ...],
    PlainValidator(_addresses),
    WithJsonSchema(
        {
            "anyOf": [
                _ADDRESS_SCHEMA,
                {
                    "type": "array",
                    "items": _ADDRESS_SCHEMA,
                    "minItems": 1,
                    "maxItems": MAX_ADDRESSES,
                },
            ],
            "description": "IPv4 or IPv6 literals.",
        }
    ),
]
HostName = Annotated[
    tuple[str, str],
    PlainValidator(_host),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": names.MAX_NAME,
            "description": "A name that Callboard looks up again and again.",
        }
    ),
]
PortValue = Annotated[
    tuple[int, str],
    PlainValidator(_port),
    WithJsonSchema(
        {
            "anyOf": [
                _PORT_NUMBER,
                {
                    "type": "object",
                    "required": ["port"],
                    "properties": {
                        "port": _PORT_NUMBER,
                        "protocol": {"enum": ["tcp", "udp"], "default": "tcp"},
                    },
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
Scalar = Annotated[
    str,
    PlainValidator(_scalar),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": MAX_METADATA_VALUE},
                {"type": "number"},
                {"type": "boolean"},
            ]
        }
    ),
]
Whole16 = Annotated[int, PlainValidator(_whole), WithJsonSchema(_range_schema(0, 65535))]
LeaseTtl = Annotated[
    int,
    PlainValidator(_whole),
    WithJsonSchema(
        {
            "anyOf": [{"const": 0}, _range_schema(MIN_LEASE_TTL, MAX_LEASE)],
            "description": "Seconds without renewal that an instance stays; 0: no lease.",
        }
    ),
]
RecordTtl = Annotated[
    int,
    PlainValidator(_whole),
    WithJsonSchema(
        {
            **_range_schema(1, MAX_RECORD_TTL),
            "description": "TTL of its DNS records in seconds; at most a quarter of the lease.",
        }
    ),
]
Generation = Annotated[
    int,
    PlainValidator(_whole),
    WithJsonSchema(
        {
            **_range_schema(0, MAX_INTEGER),
            "description": "Of two processes with one id, the greater one holds the lease.",
        }
    ),
]
Locality = Annotated[str, WithJsonSchema(_LOCALITY_SCHEMA)]
_MAP_OF_PORTS: Final = {
    "minProperties": 1,
    "maxProperties": MAX_PORTS,
    "propertyNames": {
        "pattern": "^(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        "maxLength": names.MAX_PORT_NAME,
    },
}
_PATH_SCHEMA: Final = {"type": "string", "pattern": "^/[!-~]*$", "maxLength": MAX_PATH}

_STRICT = ConfigDict(extra="forbid")

_SOMEWHERE: dict[str, Any] = {
    "anyOf": [
        {"required": ["endpoint"], "properties": {"endpoint": {"type": "string"}}},
        *(
            {
                "required": [where, "ports"],
                "properties": {where: {"type": kinds}, "ports": {"type": "object"}},
            }
            for where, kinds in (("address", ["string", "array"]), ("host", ["string"]))
        ),
    ]
}
"""It has to be somewhere, on some port."""


@pydantic.dataclasses.dataclass(
    frozen=True, slots=True, config=ConfigDict(extra="forbid", json_schema_extra=_SOMEWHERE)
)
class RegistrationBody:
    """POST /register.  One of endpoint, address, host is required, and at least one port.

    null stands for a field left out.
    """

    service_name: ServiceName
    endpoint: EndpointUrl | None = None
    instance_id: InstanceId | None = None
    address: Addresses | None = None
    host: HostName | None = None
    ports: Annotated[dict[str, PortValue], Field(json_schema_extra=_MAP_OF_PORTS)] | None = None
    health_endpoint: Annotated[str, WithJsonSchema(_PATH_SCHEMA)] | None = None
    metadata: (
        Annotated[dict[str, Scalar], Field(json_schema_extra={"maxProperties": MAX_METADATA})]
        | None
    ) = None
    priority: Whole16 | None = None
    weight: Whole16 | None = None
    version: Locality | None = None
    zone: Locality | None = None
    tags: Annotated[list[Locality], Field(json_schema_extra={"maxItems": MAX_TAGS})] | None = None
    lease_ttl: LeaseTtl | None = None
    record_ttl: RecordTtl | None = None
    generation: Generation | None = None


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config=_STRICT)
class HeartbeatBody:
    """POST /heartbeat, and each item of its list form."""

    service_name: ServiceName
    instance_id: InstanceId | None = None
    lease_id: Annotated[str, Field(json_schema_extra={"minLength": 1})] | None = None


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config=_STRICT)
class StateBody:
    """PUT /services/{service}/instances/{id}/state."""

    state: Annotated[str, WithJsonSchema({"enum": list(SETTABLE_STATES)})]
    reason: Annotated[str, Field(json_schema_extra={"maxLength": MAX_REASON})] | None = None


BODIES: Final[Mapping[type, TypeAdapter[Any]]] = {
    cls: TypeAdapter(cls) for cls in (RegistrationBody, HeartbeatBody, StateBody)
}
_FIELDS: Final = {cls: tuple(f.name for f in fields(cls)) for cls in BODIES}


# --- bodies ---------------------------------------------------------------------------------


def parse_registration(body: object, rules: Rules, caller: str) -> RegistrationRequest:
    """The registration in the JSON value *body*; InvalidInstance holds every problem of it.

    *caller* is the address it came from.
    """
    document = _object(body)
    shape, problems = _shape(RegistrationBody, document)
    if shape is None:
        # What is well-formed is judged all the same, so that nobody mends one fault at a time.
        shape, _ = _shape(RegistrationBody, _without(document, problems))
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
    return RegistrationRequest(registration, shape.generation or 0, host_field)


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
    shape, problems = _shape(HeartbeatBody, _object(item))
    if shape is not None:
        service, instance = _folded(shape.service_name), shape.instance_id
        problems += _name_problems("service_name", service)
        if instance is not None:
            instance = _folded(instance)
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
    shape, problems = _shape(StateBody, _object(body))
    if shape is not None:
        reason = shape.reason or ""
        if shape.state not in SETTABLE_STATES:
            rule = ", ".join(SETTABLE_STATES)
            problems.append(Problem("state", f"{_shown(shape.state)} is not one of {rule}"))
        if len(reason) > MAX_REASON or not reason.isprintable() or reason != reason.strip():
            rule = f"one line of at most {MAX_REASON} printable characters, no space at its ends"
            problems.append(Problem("reason", f"it is not {rule}"))
        if not problems:
            return StateChange(shape.state, reason)
    raise InvalidInstance(problems)


def _object(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidInstance([Problem("body", f"{_shown(body)} is not a JSON object")])
    return body


def _shape(cls: type, document: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    try:
        return BODIES[cls].validate_python(document), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return None, [_problem(cls, d) for d in details[:MAX_PROBLEMS]]


def _problem(cls: type, detail: Any) -> Problem:
    field = ".".join(str(part)[:80] for part in detail["loc"] if part != "[key]")
    match detail["type"]:
        case "missing":
            return Problem(field, "it is required, and missing")
        case "unexpected_keyword_argument":
            return Problem(field, "unknown field" + _near(field, _FIELDS[cls]))
        case "string_type" | "string_unicode":
            return Problem(field, "it is not text")
        case "dict_type":
            return Problem(field, "it is not an object")
        case "list_type":
            return Problem(field, "it is not a list")
        case _:
            return Problem(field, str(detail["msg"]).removeprefix("Value error, "))


def _near(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


# --- a registration from its parts ----------------------------------------------------------


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
        instance = _folded(body.instance_id)
    registration = Registration(
        service=_folded(body.service_name),
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
    longest = max((len(p.name) + len(p.protocol) + 4 for p in registration.ports), default=0)
    zone = max(map(len, rules.zones))
    names_below = max(longest, len(registration.instance) + 1)
    if names_below + len(registration.service) + 1 + zone - 1 > names.MAX_NAME:
        # RFC 1035, section 2.3.4.
        yield Problem(
            "service_name",
            f"its names in the zone would be longer than {names.MAX_NAME} characters",
        )


def filters_of(query: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """The repeatable filters of GET /services by name; other parameters are not ours."""
    found: dict[str, list[str]] = {"tag": [], "version": [], "zone": [], "state": []}
    for name, value in query:
        if name in found:
            found[name].append(value)
    return found
