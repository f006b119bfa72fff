"""Every call of the API: method, path, who answers it, the right it takes, its name in metrics."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from registrar.beats import Heartbeats
from registrar.calls import Call, Reply, Stream
from registrar.consul_reads import ConsulReads
from registrar.lists import Lists
from registrar.releasing import Releasing
from registrar.writes import Writes

Handle = Callable[[Call], Awaitable[Reply | Stream]]

EVERYWHERE = ("", "/v1")
"""Our own calls are served under their path, and under /v1 and their path."""

CONSULS = ("/v1",)


@dataclass(frozen=True, slots=True)
class Route:
    """One call of the API; *operation* is its name in the metrics, if it has one there."""

    method: str
    path: str
    handle: Handle
    right: str
    operation: str | None = None
    has_body: bool = False
    is_stream: bool = False
    prefixes: tuple[str, ...] = EVERYWHERE


@dataclass(frozen=True, slots=True)
class Handlers:
    """Whoever answers calls."""

    writes: Writes
    releasing: Releasing
    heartbeats: Heartbeats
    lists: Lists
    consul: ConsulReads


def api_routes(to: Handlers) -> tuple[Route, ...]:
    """The calls of the API."""
    service = "/services/{service}"
    instance = "/services/{service}/instances/{instance}"
    return (
        Route("POST", "/register", to.writes.register, "register", "register", has_body=True),
        Route(
            "POST", "/heartbeat", to.heartbeats.heartbeat, "register", "heartbeat", has_body=True
        ),
        Route("DELETE", "/deregister/{service}", to.writes.deregister, "deregister", "deregister"),
        Route("DELETE", instance, to.writes.deregister_instance, "deregister", "deregister"),
        Route("PUT", instance + "/state", to.writes.set_state, "state", has_body=True),
        Route("PUT", service + "/settings", to.writes.set_settings, "settings", has_body=True),
        Route("POST", "/guard/{service}/release", to.releasing.release, "guard"),
        Route("GET", "/services", to.lists.list_services, "read", "list"),
        Route("GET", service, to.lists.get_service, "read", "get"),
        Route("GET", "/events", to.lists.events, "read", is_stream=True),
        Route("GET", "/sd/prometheus", to.lists.prometheus, "read"),
        Route("GET", "/explain", to.lists.explain, "read"),
        Route("GET", "/agent/self", to.consul.agent_self, "read", prefixes=CONSULS),
        Route("GET", "/catalog/services", to.consul.services, "read", prefixes=CONSULS),
        Route(
            "GET", "/catalog/service/{service}", to.consul.catalog_service, "read", prefixes=CONSULS
        ),
        Route(
            "GET", "/health/service/{service}", to.consul.health_service, "read", prefixes=CONSULS
        ),
        Route("GET", "/health/state/{state}", to.consul.health_state, "read", prefixes=CONSULS),
    )
