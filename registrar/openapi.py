"""The API as an OpenAPI 3.1 document, made from the same shapes that judge the requests."""

from collections.abc import Iterable
from typing import Any, Final

from registrar import problems
from registrar.schema import BODIES, MAX_LIST, HeartbeatBody, RegistrationBody, StateBody
from registry.model import SETTABLE_STATES, STATES

_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_SECONDS: Final = {"type": "number", "description": "Seconds since 1970."}
_TEXT_OR_NULL: Final = {"type": ["string", "null"]}
_TEXTS: Final = {"type": "array", "items": _TEXT}


def document(version: str) -> dict[str, Any]:
    """The document of this version of the registrar."""
    paths = _paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Callboard registrar",
            "version": version,
            "description": (
                "Services register here, renew their leases, and are listed;"
                " DNS answers where they are. Errors are RFC 9457 problems."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}, {"url": "/v1"}],
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


# --- shapes -----------------------------------------------------------------------------


def _schemas() -> dict[str, Any]:
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
            "metadata": {"type": "object", "additionalProperties": _TEXT},
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
                "metadata": {"type": "object", "additionalProperties": _TEXT},
                "registered_at": _SECONDS,
                "last_heartbeat": _SECONDS,
                "ttl_remaining": {**_WHOLE, "minimum": 0},
                "stale": {"const": True, "description": "Shown from memory, Redis is away."},
                "instances": {"type": "array", "items": _ref("Instance"), "minItems": 1},
            },
            optional=("stale",),
        ),
        "description": "The fields beside `instances` are those of one of them, drawn as by DNS.",
    }


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


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


# --- calls ------------------------------------------------------------------------------


def _paths() -> dict[str, Any]:
    service = _parameter("service", "path", {"type": "string", "minLength": 1})
    instance = _parameter("instance", "path", {"type": "string", "minLength": 1})
    filters = [
        _parameter(name, "query", {"type": "array", "items": items})
        for name, items in (
            ("tag", _TEXT),
            ("version", _TEXT),
            ("zone", _TEXT),
            ("state", {"enum": list(STATES)}),
        )
    ]
    detail = _parameter("detail", "query", {"type": "boolean", "default": False})
    lease_id = _parameter("lease_id", "query", {"type": "string", "minLength": 1})
    # An item that is none gets a result of its own (422), and costs the others nothing.
    one = {"description": f"A {HeartbeatBody.__name__}; each is judged by itself."}
    beats = {"type": "array", "items": one, "maxItems": MAX_LIST}
    body_errors = (400, 408, 413, 415, 422, 503)
    return {
        "/register": {
            "post": _operation(
                "register",
                "Register an instance, or renew it",
                {201: _ref("Registered"), 200: _ref("Registered")},
                (409, 429, *body_errors),
                body=_ref(RegistrationBody.__name__),
            )
        },
        "/heartbeat": {
            "post": _operation(
                "heartbeat",
                "Renew one lease, or a list of them",
                {200: {"anyOf": [_ref("HeartbeatReceived"), _ref("HeartbeatResults")]}},
                (404, 409, *body_errors),
                body={"anyOf": [_ref(HeartbeatBody.__name__), beats]},
            )
        },
        "/deregister/{service}": {
            "delete": _operation(
                "deregister",
                "Remove every instance of a service",
                {200: _ref("Deregistered")},
                (503,),
                parameters=[service],
            )
        },
        "/services": {
            "get": _operation(
                "list",
                "The names of all services, or with `detail` their documents",
                {200: {"anyOf": [_TEXTS, {"type": "array", "items": _ref("Service")}]}},
                (422, 503),
                parameters=[detail, *filters],
            )
        },
        "/services/{service}": {
            "get": _operation(
                "get",
                "One service with its instances",
                {200: _ref("Service")},
                (404, 503),
                parameters=[service],
            )
        },
        "/services/{service}/instances/{instance}": {
            "delete": _operation(
                "deregisterInstance",
                "Remove one instance",
                {200: _ref("Deregistered")},
                (404, 409, 503),
                parameters=[service, instance, lease_id],
            )
        },
        "/services/{service}/instances/{instance}/state": {
            "put": _operation(
                "setState",
                "Take an instance out of DNS, or back in",
                {200: _ref("StateSet")},
                (404, *body_errors),
                parameters=[service, instance],
                body=_ref(StateBody.__name__),
            )
        },
        "/health": {"get": _page("health", "How the registrar is", 503)},
        "/healthz": {"get": _page("healthz", "Whether the process works")},
        "/readyz": {"get": _page("readyz", "Whether it may receive requests", 503)},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus metrics",
                "responses": {"200": {"description": "OK", "content": {"text/plain": {}}}},
            }
        },
        "/openapi.json": {"get": _page("openapi", "This document")},
    }


def _operation(
    name: str,
    summary: str,
    answers: dict[int, dict[str, Any]],
    errors: Iterable[int],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): _response("application/json", schema) for status, schema in answers.items()
    }
    for status in errors:
        responses[str(status)] = _response(problems.CONTENT_TYPE, _ref("Problem"))
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": dict(sorted(responses.items())),
    }
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return operation


def _page(name: str, summary: str, *errors: int) -> dict[str, Any]:
    plain = {"application/json": {"schema": {"type": "object"}}}
    statuses = {200: "OK", **dict.fromkeys(errors, "Not so; the body says why")}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            str(status): {"description": text, "content": plain}
            for status, text in statuses.items()
        },
    }


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _response(content_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": "OK" if content_type == "application/json" else "A problem",
        "content": {content_type: {"schema": schema}},
    }
