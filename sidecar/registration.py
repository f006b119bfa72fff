"""A service as its sidecar sees it: where it is, how it is probed, what is said of it.

From settings and `[[service]]` tables to `Service`, with every problem at once, and from
`Service` to the document that the registrar gets.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry import model, names
from registry.model import Port

PROBES = ("http", "tcp", "none")

AUTO = "auto"
"""As host: the address from which this machine reaches the registrar."""

OPTIONAL = frozenset(
    "instance_id health_endpoint metadata priority weight version zone tags lease_ttl record_ttl"
    " generation".split()
)
"""Fields of a registration that may be left out for a registrar that does not know them."""

MAX_SERVICES = 64
"""Services of one sidecar; as many renewals fit into one request."""


@dataclass(frozen=True, slots=True)
class Service:
    """One instance to keep registered.  `lease_ttl`, `record_ttl` 0: the registrar's defaults."""

    name: str
    host: str
    ports: tuple[Port, ...]
    probe: str = "http"
    probe_port: int = 8080
    health_endpoint: str = "/health"
    zone: str = ""
    version: str = ""
    tags: tuple[str, ...] = ()
    weight: int = 100
    priority: int = 0
    instance_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    lease_ttl: int = 0
    record_ttl: int = 0

    @property
    def id(self) -> str:
        """The given id, or the one derived from host and port: the same at every start."""
        return self.instance_id or names.default_instance_id(self.host, self.ports[0].number)

    @property
    def has_address(self) -> bool:
        """Whether the host is an IP address; if not, it is a name for the registrar to look up."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def probe_url(self) -> str:
        """What is asked for its health, for people to read."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        match self.probe:
            case "http":
                return f"http://{host}:{self.probe_port}{self.health_endpoint}"
            case "tcp":
                return f"tcp://{host}:{self.probe_port}"
        return "none"

    @property
    def lame_duck(self) -> float:
        """Seconds for which caches may answer for it after it has left DNS: its record TTL."""
        lease_ttl = self.lease_ttl or model.DEFAULT_LEASE_TTL
        return float(self.record_ttl or model.default_record_ttl(lease_ttl))


def document_of(
    service: Service, found: Mapping[str, str], generation: int | None
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
    document.update((key, value) for key, value in optional.items() if value)
    if service.weight != 100:
        document["weight"] = service.weight
    return document


def _port_document(port: Port) -> int | dict[str, Any]:
    if port.protocol == "tcp":
        return port.number
    return {"port": port.number, "protocol": port.protocol}


# --- from settings and tables ------------------------------------------------------------------


class Problem(Exception):
    """One thing wrong with a table; the argument says what and what would be right."""


TABLE_KEYS = (
    "name host port ports health_endpoint probe zone version tags weight priority instance_id"
    " metadata lease_ttl record_ttl".split()
)


def service_from(table: Mapping[str, Any], where: str, problems: list[str]) -> Service | None:
    """The service that *table* describes; None, and *problems* longer, when it breaks a rule."""
    before = len(problems)
    problems.extend(
        f"{where}: {key}: unknown; one of {', '.join(TABLE_KEYS)}"
        for key in table
        if key not in TABLE_KEYS
    )
    reader = _Table(table, where, problems)
    name, host = reader.text("name").lower(), reader.text("host")
    for key, value in (("name", name), ("host", host)):
        if not value:
            problems.append(
                f"{where}: {key}: required"
                f" (--{key}, SERVICE_{key.upper()}, or {key} in a table [[service]])"
            )
    probe = reader.text("probe") or "http"
    if probe not in PROBES:
        problems.append(f"{where}: probe: {probe!r} is not one of {', '.join(PROBES)}")
    ports, probe_port = reader.ports()
    if len(problems) > before:
        return None
    service = Service(
        name,
        host,
        ports,
        probe,
        probe_port,
        reader.text("health_endpoint") or "/health",
        reader.text("zone"),
        reader.text("version"),
        reader.texts("tags"),
        reader.whole("weight", 100),
        reader.whole("priority", 0),
        reader.text("instance_id"),
        reader.metadata(),
        reader.whole("lease_ttl", 0),
        reader.whole("record_ttl", 0),
    )
    problems.extend(f"{where}: {problem}" for problem in _rules_broken(service))
    return service if len(problems) == before else None


def services_from(
    tables: Sequence[Mapping[str, Any]], where: Iterable[str]
) -> tuple[tuple[Service, ...], list[str]]:
    """A service for each table, and every problem of all of them."""
    problems: list[str] = []
    found = [service_from(t, w, problems) for t, w in zip(tables, where, strict=True)]
    services = tuple(service for service in found if service is not None)
    if len(tables) > MAX_SERVICES:
        problems.append(f"[[service]]: {len(tables)} services; at most {MAX_SERVICES} a sidecar")
    keys = [(names.fold(s.name), names.fold(s.id)) for s in services if s.host != AUTO]
    problems.extend(
        f"[[service]]: two tables are the same instance {name}/{instance}; give one an instance_id"
        for name, instance in sorted({key for key in keys if keys.count(key) > 1})
    )
    return services, problems


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


def _rules_broken(service: Service) -> Iterator[str]:
    for problem in model.problems_of(registration_of(service)):
        yield f"{problem.field}: {problem.message}"


class _Table:
    """Reads typed values from one table and notes what does not fit."""

    def __init__(self, table: Mapping[str, Any], where: str, problems: list[str]) -> None:
        self._table = table
        self._where = where
        self._problems = problems

    def _note(self, key: str, problem: str) -> None:
        self._problems.append(f"{self._where}: {key}: {problem}")

    def text(self, key: str) -> str:
        value = self._table.get(key, "")
        if isinstance(value, str):
            return value
        self._note(key, f"{value!r} is not text")
        return ""

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._table.get(key, ())
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return tuple(value)
        self._note(key, f"{value!r} is not a list of texts")
        return ()

    def whole(self, key: str, default: int) -> int:
        value = self._table.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self._note(key, f"{value!r} is not a whole number")
        return default

    def metadata(self) -> dict[str, str]:
        value = self._table.get("metadata", {})
        if isinstance(value, Mapping):
            return {str(key): _as_text(entry) for key, entry in value.items()}
        self._note("metadata", f"{value!r} is not a table")
        return {}

    def ports(self) -> tuple[tuple[Port, ...], int]:
        """The ports, and the one that is probed: `port`, else `http`, else the first.

        `port` is the port `http`, 8080 when no port at all is given.
        """
        given = self._table.get("ports", {})
        if isinstance(given, Mapping):
            ports = [p for p in (self._port(k, v) for k, v in given.items()) if p is not None]
        else:
            ports = list(given)
        port = self.whole("port", 0)
        if port or not ports:
            http = Port("http", port or 8080)
            if any(p.name == "http" and p != http for p in ports):
                self._note("ports.http", f"it differs from port, which is {http.number}")
            ports = [http, *(p for p in ports if p.name != "http")]
        probed = next((p for p in ports if p.name == "http"), ports[0])
        return tuple(ports), probed.number

    def _port(self, name: str, value: object) -> Port | None:
        if isinstance(value, int) and not isinstance(value, bool):
            return Port(name, value)
        if isinstance(value, Mapping) and set(value) <= {"port", "protocol"} and "port" in value:
            return Port(name, value["port"], value.get("protocol", "tcp"))
        self._note(
            f"ports.{name}", f'{value!r} is neither a number nor {{port = 4000, protocol = "udp"}}'
        )
        return None


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
