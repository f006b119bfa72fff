"""The API as an OpenAPI 3.1 document, made from the same shapes that judge the requests."""

from collections.abc import Iterable
from typing import Any, Final

from registrar import problems
from registrar.consul import STATES as CHECK_STATES
from registrar.openapi_shapes import ref, schemas
from registrar.requests import MAX_LIST
from registrar.shapes import HeartbeatBody, RegistrationBody, SettingsBody, StateBody
from registry.model import MAX_INTEGER, STATES
from registry.names import MAX_NAME

JSON: Final = "application/json"

_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "array", "items": _TEXT}

ALWAYS: Final = (401, 403, 429)
"""Possible at every call: no token, the wrong one, too many of something."""

OF_BODIES: Final = (400, 408, 413, 415, 422, 503)
"""Besides, where a body is read."""

OF_LISTS: Final = (422, 503)
"""Besides, where something is listed."""


def document(version: str) -> dict[str, Any]:
    """The document of this version of the registrar."""
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
        # Which calls want a token, the operator decides; health and metrics never do.
        "security": [{}, {"bearer": []}, {"registryToken": []}],
        "paths": {**_writes(), **_reads(), **_consuls(), **_pages()},
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "registryToken": {"type": "apiKey", "in": "header", "name": "X-Registry-Token"},
            },
        },
    }


# --- parameters ---------------------------------------------------------------------------


def _parameter(name: str, where: str, schema: dict[str, Any], text: str = "") -> dict[str, Any]:
    parameter = {"name": name, "in": where, "required": where == "path", "schema": schema}
    return {**parameter, "description": text} if text else parameter


SERVICE: Final = _parameter("service", "path", {"type": "string", "minLength": 1})
INSTANCE: Final = _parameter("instance", "path", {"type": "string", "minLength": 1})
WAITING: Final = [
    _parameter(
        "index",
        "query",
        {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
        "Wait for something later than this revision (X-Callboard-Index of an earlier answer).",
    ),
    _parameter(
        "wait",
        "query",
        {"type": "string", "pattern": "^([0-9]{1,9}(\\.[0-9]{1,9})?(ms|s|m|h)?)?$"},
        "At most so long: 30s, 500ms, 1m; never longer than 55s.",
    ),
]
CONDITION: Final = _parameter("If-None-Match", "header", _TEXT)
FILTERS: Final = [
    _parameter(name, "query", {"type": "array", "items": items})
    for name, items in (
        ("tag", _TEXT),
        ("version", _TEXT),
        ("zone", _TEXT),
        ("state", {"enum": list(STATES)}),
    )
]


# --- calls --------------------------------------------------------------------------------


def _writes() -> dict[str, Any]:
    lease_id = _parameter("lease_id", "query", {"type": "string", "minLength": 1})
    # An item that is none gets a result of its own (422), and costs the others nothing.
    one = {"description": f"A {HeartbeatBody.__name__}; each is judged by itself."}
    beats = {"type": "array", "items": one, "maxItems": MAX_LIST}
    return {
        "/register": {
            "post": _operation(
                "register",
                "Register an instance, or renew it",
                {201: ref("Registered"), 200: ref("Registered")},
                (409, *OF_BODIES),
                body=ref(RegistrationBody.__name__),
            )
        },
        "/heartbeat": {
            "post": _operation(
                "heartbeat",
                "Renew one lease, or a list of them",
                {200: {"anyOf": [ref("HeartbeatReceived"), ref("HeartbeatResults")]}},
                (404, 409, *OF_BODIES),
                body={"anyOf": [ref(HeartbeatBody.__name__), beats]},
            )
        },
        "/deregister/{service}": {
            "delete": _operation(
                "deregister",
                "Remove every instance of a service",
                {200: ref("Deregistered")},
                (503,),
                parameters=[SERVICE],
            )
        },
        "/services/{service}/instances/{instance}": {
            "delete": _operation(
                "deregisterInstance",
                "Remove one instance",
                {200: ref("Deregistered")},
                (404, 409, 503),
                parameters=[SERVICE, INSTANCE, lease_id],
            )
        },
        "/services/{service}/instances/{instance}/state": {
            "put": _operation(
                "setState",
                "Take an instance out of DNS, or back in",
                {200: ref("StateSet")},
                (404, *OF_BODIES),
                parameters=[SERVICE, INSTANCE],
                body=ref(StateBody.__name__),
            )
        },
        "/guard/{service}/release": {
            "post": _operation(
                "releaseGuard",
                "Evict the instances that a guard keeps as suspect, and let none hold others",
                {200: ref("GuardReleased")},
                (404, 503),
                parameters=[SERVICE],
            )
        },
        "/services/{service}/settings": {
            "put": _operation(
                "setSettings",
                "Say how many records an answer may have",
                {200: ref("SettingsSet")},
                (404, *OF_BODIES),
                parameters=[SERVICE],
                body=ref(SettingsBody.__name__),
            )
        },
    }


def _reads() -> dict[str, Any]:
    detail = _parameter("detail", "query", {"type": "boolean", "default": False})
    services = {"anyOf": [_TEXTS, {"type": "array", "items": ref("Service")}]}
    port = _parameter("port", "query", _TEXT, "The name of the port to scrape.")
    name = _parameter(
        "name",
        "query",
        {"type": "string", "minLength": 1, "maxLength": MAX_NAME + 1},
        "Without a final dot it is taken to be below the zone, unless it lies in it.",
    )
    qtype = _parameter("type", "query", {**_TEXT, "default": "A"}, "A, AAAA, SRV, TXT, …")
    last_id = _parameter("Last-Event-ID", "header", _TEXT, "The last revision that was heard of.")
    return {
        "/services": {
            "get": _listing(
                "list",
                "The names of all services, or with `detail` their documents",
                services,
                OF_LISTS,
                [detail, *FILTERS],
            )
        },
        "/services/{service}": {
            "get": _listing(
                "get", "One service with its instances", ref("Service"), (404, *OF_LISTS), [SERVICE]
            )
        },
        "/sd/prometheus": {
            "get": _listing(
                "prometheus",
                "Instances as targets of Prometheus' HTTP service discovery",
                {"type": "array", "items": ref("TargetGroup")},
                OF_LISTS,
                [port, *FILTERS],
            )
        },
        "/events": {
            "get": _operation(
                "events",
                "Every change as it comes: up, down, forgotten, settings; reset: read anew",
                {},
                (503,),
                parameters=[last_id, _parameter("index", "query", _TEXT, "As the header.")],
            )
        },
        "/explain": {
            "get": _operation(
                "explain",
                "Why DNS answers a name as it does",
                {200: ref("Explanation")},
                OF_LISTS,
                parameters=[{**name, "required": True}, qtype],
            )
        },
    }


def _consuls() -> dict[str, Any]:
    tag = _parameter("tag", "query", {"type": "array", "items": _TEXT})
    passing = _parameter("passing", "query", _TEXT, "Only instances that serve.")
    calls: dict[str, tuple[str, str, dict[str, Any], list[dict[str, Any]]]] = {
        "/v1/agent/self": ("consulAgent", "The datacenter", ref("ConsulAgent"), []),
        "/v1/catalog/services": (
            "consulServices",
            "Services and their tags",
            ref("ConsulServices"),
            WAITING,
        ),
        "/v1/catalog/service/{service}": (
            "consulCatalog",
            "The instances of a service",
            {"type": "array", "items": ref("ConsulCatalogEntry")},
            [SERVICE, tag, *WAITING],
        ),
        "/v1/health/service/{service}": (
            "consulHealth",
            "The instances of a service with their checks",
            {"type": "array", "items": ref("ConsulHealthEntry")},
            [SERVICE, tag, passing, *WAITING],
        ),
    }
    state = _parameter("state", "path", {"enum": list(CHECK_STATES)})
    calls["/v1/health/state/{state}"] = (
        "consulChecks",
        "The checks of all instances",
        {"type": "array", "items": ref("ConsulCheck")},
        [state, *WAITING],
    )
    return {
        path: {
            "servers": [{"url": "/"}],
            "get": _operation(
                name, f"{summary}, as Consul has it", {200: shape}, OF_LISTS, parameters=parameters
            ),
        }
        for path, (name, summary, shape, parameters) in calls.items()
    }


def _pages() -> dict[str, Any]:
    return {
        "/health": {"get": _page("health", "How the registrar is", 503)},
        "/healthz": {"get": _page("healthz", "Whether the process works")},
        "/readyz": {"get": _page("readyz", "Whether it may receive requests", 503)},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus metrics",
                "security": [{}],
                "responses": {"200": {"description": "OK", "content": {"text/plain": {}}}},
            }
        },
        "/openapi.json": {"get": _page("openapi", "This document")},
    }


# --- parts --------------------------------------------------------------------------------


def _listing(
    name: str,
    summary: str,
    schema: dict[str, Any],
    errors: Iterable[int],
    parameters: list[dict[str, Any]],
) -> dict[str, Any]:
    """A read that may wait for a change, and knows ETags."""
    operation = _operation(
        name, summary, {200: schema}, errors, parameters=[*parameters, *WAITING, CONDITION]
    )
    operation["responses"]["200"]["headers"] = {
        "ETag": {"schema": _TEXT, "description": "Changes with membership."},
        "X-Callboard-Index": {"schema": _TEXT, "description": "To be given as `index`."},
    }
    operation["responses"]["304"] = {"description": "Nothing else than under the ETag given"}
    return operation


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
        str(status): _response(JSON, schema) for status, schema in answers.items()
    } or {"200": _response("text/event-stream", _TEXT)}
    for status in (*ALWAYS, *errors):
        responses[str(status)] = _response(problems.CONTENT_TYPE, ref("Problem"))
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": dict(sorted(responses.items())),
    }
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    return operation


def _page(name: str, summary: str, *errors: int) -> dict[str, Any]:
    plain = {JSON: {"schema": {"type": "object"}}}
    statuses = {200: "OK", **dict.fromkeys(errors, "Not so; the body says why")}
    return {
        "operationId": name,
        "summary": summary,
        "security": [{}],
        "responses": {
            str(status): {"description": text, "content": plain}
            for status, text in statuses.items()
        },
    }


def _response(content_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    is_problem = content_type == problems.CONTENT_TYPE
    return {
        "description": "A problem" if is_problem else "OK",
        "content": {content_type: {"schema": schema}},
    }
