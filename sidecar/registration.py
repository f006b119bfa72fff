"""A service as its sidecar sees it, and as the registrar is told of it.

Where it is, how it is probed, what is said of it; from there to the document that registers it.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry import model, names
from registry.model import Port
from sidecar.actions import AS_SERVING, SERVING, Register
from sidecar.health import Policy

PROBES = ("http", "tcp", "command", "docker", "none")

AUTO = "auto"
"""As host: the address from which this machine reaches the registrar."""

DOCKER_HOST = "unix:///var/run/docker.sock"
"""Where Docker listens unless somebody has moved it."""

STATE_FIELDS = frozenset({"state", "state_reason"})
"""In which state a new instance begins: never left out, because it would begin in DNS."""

OPTIONAL = STATE_FIELDS | frozenset(
    "instance_id health_endpoint metadata priority weight version zone tags lease_ttl record_ttl"
    " generation".split()
)
"""Fields of a registration that an older registrar may not know."""


@dataclass(frozen=True, slots=True)
class Service:
    """One instance to keep registered.  `lease_ttl`, `record_ttl` 0: the registrar's defaults."""

    name: str
    host: str
    ports: tuple[Port, ...]
    probe: str = "http"
    probe_port: int = 8080
    health_endpoint: str = "/health"
    command: tuple[str, ...] = ()
    container: str = ""
    docker_host: str = DOCKER_HOST
    zone: str = ""
    version: str = ""
    tags: tuple[str, ...] = ()
    weight: int = 100
    priority: int = 0
    instance_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    lease_ttl: int = 0
    record_ttl: int = 0
    policy: Policy = field(default_factory=Policy)

    @property
    def id(self) -> str:
        """The given id, or the one derived from host and port: the same at every start."""
        return self.instance_id or names.default_instance_id(self.host, self.ports[0].number)

    @property
    def has_address(self) -> bool:
        """Whether the host is an IP address; if not, it is a name for the registrar to look up."""
        return is_address(self.host)

    @property
    def probed(self) -> str:
        """What tells of its health, for people to read."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        match self.probe:
            case "http":
                return f"http://{host}:{self.probe_port}{self.health_endpoint}"
            case "tcp":
                return f"tcp://{host}:{self.probe_port}"
            case "command":
                return " ".join(self.command)
            case "docker":
                return f"HEALTHCHECK of {self.container}"
        return "none"

    @property
    def lame_duck(self) -> float:
        """Seconds for which caches may answer for it after it has left DNS: its record TTL."""
        lease_ttl = self.lease_ttl or model.DEFAULT_LEASE_TTL
        return float(self.record_ttl or model.default_record_ttl(lease_ttl))


def is_address(host: str) -> bool:
    """Whether *host* is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def document_of(
    service: Service,
    found: Mapping[str, str],
    generation: int | None,
    asked: Register = AS_SERVING,
) -> dict[str, Any]:
    """The body of `POST /register`; *found* is metadata from its health answer.

    What was configured wins over what was found, and defaults are left out, so that an older
    registrar has as little as possible to stumble over.
    """
    document: dict[str, Any] = {
        "service_name": service.name,
        "instance_id": service.id,
        "address" if service.has_address else "host": service.host,
        "ports": {port.name: _port_document(port) for port in service.ports},
        "health_endpoint": service.health_endpoint,
    }
    optional: dict[str, Any] = {
        "metadata": {**found, **service.metadata},
        "zone": service.zone,
        "version": service.version,
        "tags": list(service.tags),
        "priority": service.priority,
        "lease_ttl": service.lease_ttl,
        "record_ttl": service.record_ttl,
        "generation": generation,
    }
    if asked.state != SERVING:
        optional |= {"state": asked.state, "state_reason": asked.reason}
    document.update((key, value) for key, value in optional.items() if value)
    if service.weight != 100:
        document["weight"] = service.weight
    return document


def _port_document(port: Port) -> int | dict[str, Any]:
    if port.protocol == "tcp":
        return port.number
    return {"port": port.number, "protocol": port.protocol}


def registration_of(service: Service) -> model.Registration:
    """The registration as the registrar will see it, for its rules."""
    lease_ttl = service.lease_ttl or model.DEFAULT_LEASE_TTL
    return model.Registration(
        service=service.name,
        instance=service.id.lower(),
        ports=service.ports,
        addresses=(str(ipaddress.ip_address(service.host)),) if service.has_address else (),
        host="" if service.has_address else service.host,
        priority=service.priority,
        weight=service.weight,
        version=service.version,
        zone=service.zone,
        tags=service.tags,
        metadata=service.metadata,
        health_endpoint=service.health_endpoint,
        lease_ttl=lease_ttl,
        record_ttl=service.record_ttl or model.default_record_ttl(lease_ttl),
    )
