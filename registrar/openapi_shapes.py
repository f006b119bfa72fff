"""The shapes of the published description: what requests must be, and what answers are."""

from collections.abc import Iterable
from typing import Any, Final

from registrar import problems
from registrar.shapes import BODIES
from registry.model import MAX_ANSWERS, SETTABLE_STATES, STATES

_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_SECONDS: Final = {"type": "number", "description": "Seconds since 1970."}
_TEXT_OR_NULL: Final = {"type": ["string", "null"]}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_TEXT_BY_NAME: Final = {"type": "object", "additionalProperties": _TEXT}


def schemas() -> dict[str, Any]:
    """Every shape by its name under `components`."""
    return {
        **{cls.__name__: BODIES[cls].json_schema() for cls in BODIES},
        "Registered": _registered(),
        "HeartbeatReceived": _heartbeat_received(),
        "HeartbeatResults": _object({"results": {"type": "array", "items": _heartbeat_result()}}),
        "Service": _service(),
        "Instance": _instance(),
        "Deregistered": _object(
            {
                "message": _TEXT,
                "service_name": _TEXT,
                "instance_id": _TEXT,
                "revision": _TEXT,
            },
            optional=("instance_id", "revision"),
        ),
        "StateSet": _object(
            {
                "message": _TEXT,
                "service_name": _TEXT,
                "instance_id": _TEXT,
                "state": {"enum": list(SETTABLE_STATES)},
                "reason": _TEXT_OR_NULL,
                "revision": _TEXT,
            }
        ),
        "SettingsSet": _object(
            {
                "message": _TEXT,
                "service_name": _TEXT,
                "answers": {**_WHOLE, "minimum": 0, "maximum": MAX_ANSWERS},
                "revision": _TEXT,
            }
        ),
        "GuardReleased": _object(
            {
                "message": _TEXT,
                "service_name": _TEXT,
                "evicted": {**_WHOLE, "minimum": 0},
                "revision": _TEXT,
            }
        ),
        "TargetGroup": _object({"targets": _TEXTS, "labels": _TEXT_BY_NAME}),
        "Explanation": _explanation(),
        "ConsulServices": {"type": "object", "additionalProperties": _TEXTS},
        "ConsulAgent": _object({"Config": {"type": "object"}, "Member": {"type": "object"}}),
        "ConsulCatalogEntry": _consul_catalog_entry(),
        "ConsulHealthEntry": _consul_health_entry(),
        "ConsulCheck": _consul_check(),
        "Problem": _problem(),
    }


def _object(properties: dict[str, Any], optional: Iterable[str] = ()) -> dict[str, Any]:
    left_out = set(optional)
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in left_out],
    }


def _registered() -> dict[str, Any]:
    return _object(
        {
            "message": _TEXT,
            "service_name": _TEXT,
            "instance_id": _TEXT,
            "lease_id": {**_TEXT, "description": "Only its holder may renew; see heartbeat."},
            "lease_ttl": {**_WHOLE, "minimum": 0},
            "heartbeat_interval": {**_WHOLE, "minimum": 1},
            "revision": {**_TEXT, "pattern": "^[0-9]+$"},
            "names": _object({"service": _TEXT, "srv": _TEXTS, "instance": _TEXT}),
        }
    )


def _heartbeat_received() -> dict[str, Any]:
    return _object(
        {
            "message": _TEXT,
            "service_name": _TEXT,
            "instance_id": _TEXT,
            "ttl_remaining": {**_WHOLE, "minimum": 0},
        }
    )


def _heartbeat_result() -> dict[str, Any]:
    return {
        **_object({"status": {**_WHOLE, "enum": [200, 404, 409, 422, 503]}}),
        "description": "As the single form, with its status; other than 200: a problem.",
    }


def _instance() -> dict[str, Any]:
    port = {"anyOf": [_WHOLE, _object({"port": _WHOLE, "protocol": {"enum": ["tcp", "udp"]}})]}
    return _object(
        {
            "instance_id": _TEXT,
            "endpoint": _TEXT,
            "addresses": _TEXTS,
            "host": _TEXT_OR_NULL,
            "ports": {"type": "object", "additionalProperties": port},
            "priority": _WHOLE,
            "weight": _WHOLE,
            "version": _TEXT_OR_NULL,
            "zone": _TEXT_OR_NULL,
            "tags": _TEXTS,
            "metadata": _TEXT_BY_NAME,
            "health_endpoint": _TEXT,
            "state": {"enum": list(STATES)},
            "state_reason": _TEXT_OR_NULL,
            "static": {"type": "boolean", "description": "Without a lease."},
            "registered_at": _SECONDS,
            "last_heartbeat": _SECONDS,
            "ttl_remaining": {**_WHOLE, "minimum": 0},
            "revision": _TEXT,
        }
    )


def _service() -> dict[str, Any]:
    return {
        **_object(
            {
                "service_name": _TEXT,
                "endpoint": _TEXT,
                "health_endpoint": _TEXT,
                "metadata": _TEXT_BY_NAME,
                "registered_at": _SECONDS,
                "last_heartbeat": _SECONDS,
                "ttl_remaining": {**_WHOLE, "minimum": 0},
                "stale": {"const": True, "description": "Shown from memory, Redis is away."},
                "instances": {"type": "array", "items": ref("Instance"), "minItems": 1},
            },
            optional=("stale",),
        ),
        "description": "The fields beside `instances` are those of one of them, drawn as by DNS.",
    }


def _consul_check() -> dict[str, Any]:
    return _object(
        {
            **dict.fromkeys(("Node", "CheckID", "ServiceID", "ServiceName"), _TEXT),
            "Status": {"enum": ["passing", "warning", "critical"]},
        }
    )


def _explanation() -> dict[str, Any]:
    instance = _object(
        {
            "instance_id": _TEXT,
            "in": {"type": "boolean"},
            "why": _TEXT,
            "state": {"enum": list(STATES)},
            "addresses": _TEXTS,
            "priority": _WHOLE,
            "weight": _WHOLE,
            "revision": _TEXT,
        }
    )
    parse = _object(
        {
            "zone": _TEXT_OR_NULL,
            "kind": _TEXT,
            "meaning": _TEXT,
            "service": _TEXT,
            "instance": _TEXT_OR_NULL,
            "selectors": _TEXTS,
            "prefer": _TEXT_OR_NULL,
            "port": _TEXT_OR_NULL,
            "protocol": _TEXT_OR_NULL,
        },
        optional=("service", "instance", "selectors", "prefer", "port", "protocol"),
    )
    return _object(
        {
            "name": _TEXT,
            "type": _TEXT,
            "answer": {"enum": ["NOERROR", "NODATA", "NXDOMAIN", "REFUSED"]},
            "why": _TEXT,
            "parse": parse,
            "service": {**_TEXT_OR_NULL, "description": "As it is listed; null when unknown."},
            "near": {**_TEXTS, "description": "Services that may have been meant."},
            "answers": {**_WHOLE, "description": "Records an answer may have; 0: all."},
            "ttl": _WHOLE,
            "instances": {"type": "array", "items": instance},
            "source": {"enum": ["fresh", "stale"]},
            "age": {"type": ["number", "null"]},
            "error": _TEXT_OR_NULL,
            "revision": _TEXT,
        }
    )


def _consul_catalog_entry() -> dict[str, Any]:
    texts = "ID Node Address Datacenter ServiceID ServiceName ServiceAddress".split()
    return _object(
        {
            **dict.fromkeys(texts, _TEXT),
            "ServicePort": _WHOLE,
            "ServiceTags": _TEXTS,
            "ServiceMeta": _TEXT_BY_NAME,
            "CreateIndex": _WHOLE,
            "ModifyIndex": _WHOLE,
        }
    )


def _consul_health_entry() -> dict[str, Any]:
    node = _object(dict.fromkeys(("ID", "Node", "Address", "Datacenter"), _TEXT))
    service = _object(
        {
            **dict.fromkeys(("ID", "Service", "Address"), _TEXT),
            "Port": _WHOLE,
            "Tags": _TEXTS,
            "Meta": _TEXT_BY_NAME,
            "ModifyIndex": _WHOLE,
        }
    )
    checks = {"type": "array", "items": ref("ConsulCheck"), "minItems": 1}
    return _object({"Node": node, "Service": service, "Checks": checks})


def _problem() -> dict[str, Any]:
    return _object(
        {
            "type": {**_TEXT, "format": "uri", "examples": [problems.TYPE_PREFIX + "invalid"]},
            "title": _TEXT,
            "status": _WHOLE,
            "detail": _TEXT,
            "errors": {
                "type": "array",
                "items": _object({"field": _TEXT, "message": _TEXT}),
            },
        },
        optional=("errors",),
    )


def ref(name: str) -> dict[str, str]:
    """A reference to the shape *name*."""
    return {"$ref": f"#/components/schemas/{name}"}
