"""The demo: twelve services of a security team, fourteen instances, and who registers them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class DemoService:
    """One instance of a demo service, and where it would like to listen."""

    name: str
    host: str
    port: int
    version: str
    health: str = "/health"


SERVICES: Final = (
    DemoService("maximus_core_service", "127.0.0.11", 8150, "3.2.0"),
    DemoService("maximus_orchestrator_service", "127.0.0.12", 8016, "3.2.0"),
    DemoService("maximus_predict_service", "127.0.0.13", 8040, "1.9.1"),
    DemoService("maximus_eureka_service", "127.0.0.14", 8200, "2.0.4"),
    DemoService("active_immune_core_service", "127.0.0.15", 8200, "0.9.0"),
    DemoService("osint_service", "127.0.0.16", 8049, "1.4.2"),
    DemoService("ip_intel_service", "127.0.0.17", 8034, "1.1.0"),
    DemoService("vault_service", "127.0.0.18", 8200, "1.15.0", "/v1/sys/health"),
    DemoService("hitl_patch_service", "127.0.0.19", 8888, "0.4.0"),
    DemoService("wargaming_crisol_service", "127.0.0.20", 8888, "0.7.3"),
    DemoService("test_service", "127.0.0.21", 8080, "1.0.0"),
    DemoService("nmap_service", "127.0.0.31", 8047, "2.1.0"),
    DemoService("nmap_service", "127.0.0.32", 8047, "2.1.0"),
    DemoService("nmap_service", "127.0.0.33", 8047, "2.2.0"),
)

FALLBACK_HOST: Final = "127.0.0.1"
"""Where a system gives only this loopback address (macOS), all of them listen here."""

STARRED: Final = "nmap_service"
"""The service with several instances, which each have a sidecar of their own."""


@dataclass(frozen=True, slots=True)
class Running:
    """A demo service that listens, and the process that is it."""

    service: DemoService
    host: str
    port: int
    pid: int

    def as_document(self) -> dict[str, Any]:
        """What the ready file says of it."""
        return {
            "service": self.service.name,
            "address": f"{self.host}:{self.port}",
            "pid": self.pid,
        }


def announce(running: Sequence[tuple[str, int, int]]) -> str:
    """The line in which the demo process says where its services are, in the order of SERVICES."""
    return json.dumps(running)


def understand(line: str) -> list[Running]:
    """What `announce` said."""
    places = json.loads(line)
    return [Running(s, *place) for s, place in zip(SERVICES, places, strict=True)]


def shared(running: Sequence[Running]) -> list[Running]:
    """Those that one sidecar serves together."""
    return [r for r in running if r.service.name != STARRED]


def starred(running: Sequence[Running]) -> list[Running]:
    """Those that have a sidecar each."""
    return [r for r in running if r.service.name == STARRED]


def sidecar_file(running: Sequence[Running]) -> str:
    """The configuration (TOML) of the sidecar that serves several services."""
    return "\n".join(_table(r) for r in running)


def _table(running: Running) -> str:
    # JSON's strings and numbers are TOML's too.
    values = {
        "name": running.service.name,
        "host": running.host,
        "port": running.port,
        "health_endpoint": running.service.health,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(["[[service]]", *lines, ""])


def sidecar_environment(running: Running) -> Mapping[str, str]:
    """The variables of a sidecar that serves one service."""
    return {
        "SERVICE_NAME": running.service.name,
        "SERVICE_HOST": running.host,
        "SERVICE_PORT": str(running.port),
        "SERVICE_HEALTH_ENDPOINT": running.service.health,
    }
