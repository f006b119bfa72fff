"""The shapes of bodies: what pydantic checks, and openapi_shapes.py publishes.

The rules themselves stand in `registry.model`, once, and speak for the whole body after it.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Final

import pydantic.dataclasses
from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from registrar.values import (
    Endpoint,
    addresses_of,
    host_of,
    parse_endpoint,
    port_of,
    scalar,
    shown,
    whole,
)
from registry import names
from registry.errors import InvalidInstance, Problem
from registry.model import (
    MAX_ADDRESSES,
    MAX_ANSWERS,
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
)
from registry.model import MAX_LEASE_TTL as MAX_LEASE

MAX_PROBLEMS = 50
"""Reported of one body; the rest would only repeat them."""

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
PORT_NAME: Final = {
    "type": "string",
    "pattern": "^(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
}
_HOST_PATTERN: Final = (
    r"^([A-Za-z0-9_-]{1,63}\.)*(?!([0-9]+|0[xX][0-9A-Fa-f]*)\.?$)[A-Za-z0-9_-]{1,63}\.?$"
)
"""A name whose last label is no number: resolvers take such ones for addresses."""
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
    PlainValidator(addresses_of),
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
    PlainValidator(host_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _HOST_PATTERN, "maxLength": names.MAX_NAME},
                _ADDRESS_SCHEMA,
            ],
            "description": "A name that Callboard looks up again and again.",
        }
    ),
]
PortValue = Annotated[
    tuple[int, str],
    PlainValidator(port_of),
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
    PlainValidator(scalar),
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
Whole16 = Annotated[int, PlainValidator(whole), WithJsonSchema(_range_schema(0, 65535))]
LeaseTtl = Annotated[
    int,
    PlainValidator(whole),
    WithJsonSchema(
        {
            "anyOf": [{"const": 0}, _range_schema(MIN_LEASE_TTL, MAX_LEASE)],
            "description": "Seconds without renewal that an instance stays; 0: no lease.",
        }
    ),
]
RecordTtl = Annotated[
    int,
    PlainValidator(whole),
    WithJsonSchema(
        {
            **_range_schema(1, MAX_RECORD_TTL),
            "description": "TTL of its DNS records in seconds; at most a quarter of the lease.",
        }
    ),
]
Generation = Annotated[
    int,
    PlainValidator(whole),
    WithJsonSchema(
        {
            **_range_schema(0, MAX_INTEGER),
            "description": "Of two processes with one id, the greater one holds the lease.",
        }
    ),
]
Answers = Annotated[
    int,
    PlainValidator(whole),
    WithJsonSchema(
        {
            **_range_schema(0, MAX_ANSWERS),
            "description": "Records that one answer may have at most; 0: all.",
        }
    ),
]
Locality = Annotated[str, WithJsonSchema(_LOCALITY_SCHEMA)]
_MAP_OF_PORTS: Final = {
    "minProperties": 1,
    "maxProperties": MAX_PORTS,
    "propertyNames": {**PORT_NAME, "maxLength": names.MAX_PORT_NAME},
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
    state: Annotated[str, WithJsonSchema({"enum": list(SETTABLE_STATES)})] | None = None
    state_reason: Annotated[str, Field(json_schema_extra={"maxLength": MAX_REASON})] | None = None


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


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config=_STRICT)
class SettingsBody:
    """PUT /services/{service}/settings."""

    answers: Answers


BODIES: Final[Mapping[type, TypeAdapter[Any]]] = {
    cls: TypeAdapter(cls) for cls in (RegistrationBody, HeartbeatBody, StateBody, SettingsBody)
}
_FIELDS: Final = {cls: tuple(f.name for f in fields(cls)) for cls in BODIES}


# --- from JSON to a shape -------------------------------------------------------------------


def object_of(body: object) -> dict[str, Any]:
    """*body*, if it is an object; InvalidInstance else."""
    if not isinstance(body, dict):
        raise InvalidInstance([Problem("body", f"{shown(body)} is not a JSON object")])
    return body


def shape_of(cls: type, document: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    """*document* in the shape *cls*, and no problems; or None and what is wrong with it."""
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
