"""The API as an OpenAPI 3.1 document, made from the same shapes that judge the requests."""

from typing import Any

from registrar.consul import STATES as CHECK_STATES
from registrar.openapi_parts import (
    FILTERS,
    INSTANCE,
    OF_BODIES,
    OF_LISTS,
    SERVICE,
    TEXT,
    TEXTS,
    WAITING,
    listing,
    operation,
    page,
    parameter,
)
from registrar.openapi_shapes import ref, schemas
from registrar.requests import MAX_LIST
from registrar.shapes import (
    PORT_NAME,
    HeartbeatBody,
    RegistrationBody,
    SettingsBody,
    StateBody,
)
from registry.names import MAX_PORT_NAME


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


# --- calls --------------------------------------------------------------------------------


def _writes() -> dict[str, Any]:
    lease_id = parameter("lease_id", "query", {"type": "string", "minLength": 1})
    # An item that is none gets a result of its own (422), and costs the others nothing.
    one = {"description": f"A {HeartbeatBody.__name__}; each is judged by itself."}
    beats = {"type": "array", "items": one, "maxItems": MAX_LIST}
    return {
        "/register": {
            "post": operation(
                "register",
                "Register an instance, or renew it",
                {201: ref("Registered"), 200: ref("Registered")},
                (409, *OF_BODIES),
                body=ref(RegistrationBody.__name__),
            )
        },
        "/heartbeat": {
            "post": operation(
                "heartbeat",
                "Renew one lease, or a list of them",
                {200: {"anyOf": [ref("HeartbeatReceived"), ref("HeartbeatResults")]}},
                (404, 409, *OF_BODIES),
                body={"anyOf": [ref(HeartbeatBody.__name__), beats]},
            )
        },
        "/deregister/{service}": {
            "delete": operation(
                "deregister",
                "Remove every instance of a service",
                {200: ref("Deregistered")},
                (503,),
                parameters=[SERVICE],
            )
        },
        "/services/{service}/instances/{instance}": {
            "delete": operation(
                "deregisterInstance",
                "Remove one instance",
                {200: ref("Deregistered")},
                (404, 409, 503),
                parameters=[SERVICE, INSTANCE, lease_id],
            )
        },
        "/services/{service}/instances/{instance}/state": {
            "put": operation(
                "setState",
                "Take an instance out of DNS, or back in",
                {200: ref("StateSet")},
                (404, *OF_BODIES),
                parameters=[SERVICE, INSTANCE],
                body=ref(StateBody.__name__),
            )
        },
        "/guard/{service}/release": {
            "post": operation(
                "releaseGuard",
                "Evict the instances that a guard keeps as suspect, and let none hold others",
                {200: ref("GuardReleased")},
                (404, 503),
                parameters=[SERVICE],
            )
        },
        "/services/{service}/settings": {
            "put": operation(
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
    detail = parameter("detail", "query", {"type": "boolean", "default": False})
    services = {"anyOf": [TEXTS, {"type": "array", "items": ref("Service")}]}
    port_name = {**PORT_NAME, "maxLength": MAX_PORT_NAME}
    port = parameter("port", "query", port_name, "The name of the port to scrape.")
    name = parameter(
        "name",
        "query",
        {"type": "string", "pattern": "^[^.]{1,63}(\\.[^.]{1,63})*\\.?$"},
        "Without a final dot it is taken to be below the zone, unless it lies in it.",
    )
    qtype = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9-]{0,15}$", "default": "A"}
    qtype = parameter("type", "query", qtype, "A, AAAA, SRV, TXT, …")
    last_id = parameter("Last-Event-ID", "header", TEXT, "The last revision that was heard of.")
    return {
        "/services": {
            "get": listing(
                "list",
                "The names of all services, or with `detail` their documents",
                services,
                OF_LISTS,
                [detail, *FILTERS],
            )
        },
        "/services/{service}": {
            "get": listing(
                "get", "One service with its instances", ref("Service"), (404, *OF_LISTS), [SERVICE]
            )
        },
        "/sd/prometheus": {
            "get": listing(
                "prometheus",
                "Instances as targets of Prometheus' HTTP service discovery",
                {"type": "array", "items": ref("TargetGroup")},
                OF_LISTS,
                [port, *FILTERS],
            )
        },
        "/events": {
            "get": operation(
                "events",
                "Every change as it comes: up, down, forgotten, settings; reset: read anew",
                {},
                (503,),
                parameters=[last_id, parameter("index", "query", TEXT, "As the header.")],
            )
        },
        "/explain": {
            "get": operation(
                "explain",
                "Why DNS answers a name as it does",
                {200: ref("Explanation")},
                OF_LISTS,
                parameters=[{**name, "required": True}, qtype],
            )
        },
    }


def _consuls() -> dict[str, Any]:
    tag = parameter("tag", "query", {"type": "array", "items": TEXT})
    passing = parameter("passing", "query", TEXT, "Only instances that serve.")
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
    state = parameter("state", "path", {"enum": list(CHECK_STATES)})
    calls["/v1/health/state/{state}"] = (
        "consulChecks",
        "The checks of all instances",
        {"type": "array", "items": ref("ConsulCheck")},
        [state, *WAITING],
    )
    return {
        path: {
            "servers": [{"url": "/"}],
            "get": operation(
                name, f"{summary}, as Consul has it", {200: shape}, OF_LISTS, parameters=parameters
            ),
        }
        for path, (name, summary, shape, parameters) in calls.items()
    }


def _pages() -> dict[str, Any]:
    return {
        "/health": {"get": page("health", "How the registrar is", 503)},
        "/healthz": {"get": page("healthz", "Whether the process works")},
        "/readyz": {"get": page("readyz", "Whether it may receive requests", 503)},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus metrics",
                "security": [{}],
                "responses": {"200": {"description": "OK", "content": {"text/plain": {}}}},
            }
        },
        "/openapi.json": {"get": page("openapi", "This document")},
    }
