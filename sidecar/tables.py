"""From tables, as TOML has them, to services: every problem of all of them at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from registry import model, names
from registry.model import Port
from sidecar.health import Policy
from sidecar.registration import (
    AUTO,
    DOCKER_HOST,
    PROBES,
    Service,
    is_address,
    registration_of,
)

MAX_SERVICES = 64
"""Services of one sidecar; as many renewals fit into one request."""

KEYS = (
    "name host port ports health_endpoint probe probe_command docker_container docker_host"
    " health_interval health_timeout rise fall zone version tags weight priority instance_id"
    " metadata lease_ttl record_ttl".split()
)


def services_from(
    tables: Sequence[Mapping[str, Any]], where: Iterable[str], base: Policy
) -> tuple[tuple[Service, ...], list[str]]:
    """A service for each table, and every problem of all of them.

    *where* says for each where it stands, *base* gives what is the same for all.
    """
    problems: list[str] = []
    found = [_service(_Table(t, w, problems), base) for t, w in zip(tables, where, strict=True)]
    services = tuple(service for service in found if service is not None)
    if len(tables) > MAX_SERVICES:
        problems.append(f"[[service]]: {len(tables)} services; at most {MAX_SERVICES} a sidecar")
    keys = [(names.fold(s.name), names.fold(s.id)) for s in services if s.host != AUTO]
    problems.extend(
        f"[[service]]: two tables are the same instance {name}/{instance}; give one an instance_id"
        for name, instance in sorted({key for key in keys if keys.count(key) > 1})
    )
    return services, problems


def _service(table: "_Table", base: Policy) -> Service | None:
    before = len(table.problems)
    table.refuse_unknown()
    name, host = table.required("name").lower(), table.required("host")
    probe = table.probe()
    ports, probe_port = table.ports()
    policy = Policy(
        table.whole("rise", base.rise, 1, 100),
        table.whole("fall", base.fall, 1, 100),
        table.seconds("health_interval", base.interval, 0.1, 3600),
        table.seconds("health_timeout", base.timeout, 0.1, 60),
        base.initial_wait,
        base.register_unhealthy,
    )
    command = table.words("probe_command")
    if len(table.problems) > before:
        return None
    service = Service(
        name,
        host,
        ports,
        probe,
        probe_port,
        table.text("health_endpoint") or "/health",
        command,
        table.text("docker_container") or ("" if is_address(host) or host == AUTO else host),
        table.text("docker_host") or DOCKER_HOST,
        table.text("zone"),
        table.text("version"),
        table.texts("tags"),
        table.whole("weight", 100),
        table.whole("priority", 0),
        table.text("instance_id"),
        table.metadata(),
        table.whole("lease_ttl", 0),
        table.whole("record_ttl", 0),
        policy,
    )
    for problem in _rules_broken(service):
        table.problems.append(f"{table.where}: {problem}")
    return service if len(table.problems) == before else None


def _rules_broken(service: Service) -> Iterator[str]:
    for problem in model.problems_of(registration_of(service)):
        yield f"{problem.field}: {problem.message}"
    if service.probe == "command" and not service.command:
        yield "probe_command: required where probe is command"
    if service.probe == "docker" and not service.container:
        yield "docker_container: required where probe is docker and host is an address"
    if service.probe == "docker" and not service.docker_host.startswith(("unix:///", "tcp://")):
        yield f"docker_host: {service.docker_host!r} is not unix:///PATH or tcp://HOST:PORT"
    port = next(p for p in service.ports if p.number == service.probe_port)
    if service.probe in ("http", "tcp") and port.protocol == "udp":
        yield f"probe: {service.probe} cannot probe port {port.name}, which is UDP"


class _Table:
    """Reads typed values from one table and notes what does not fit."""

    def __init__(self, table: Mapping[str, Any], where: str, problems: list[str]) -> None:
        self._table = table
        self.where = where
        self.problems = problems

    def _note(self, key: str, problem: str) -> None:
        self.problems.append(f"{self.where}: {key}: {problem}")

    def refuse_unknown(self) -> None:
        for key in self._table:
            if key not in KEYS:
                self._note(key, f"unknown; one of {', '.join(KEYS)}")

    def required(self, key: str) -> str:
        value = self.text(key)
        if not value:
            self._note(
                key,
                f"required (--{key}, SERVICE_{key.upper()}, or {key} in a table [[service]])",
            )
        return value

    def probe(self) -> str:
        """The kind given, else the one that something else of the table is for, else http."""
        kind = self.text("probe")
        if kind and kind not in PROBES:
            self._note("probe", f"{kind!r} is not one of {', '.join(PROBES)}")
        implied = {"probe_command": "command", "docker_container": "docker"}
        return kind or next((v for k, v in implied.items() if self._table.get(k)), "http")

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

    def words(self, key: str) -> tuple[str, ...]:
        """A command: a list of words, or a text that falls into words as a shell would have it."""
        value = self._table.get(key, ())
        if not isinstance(value, str):
            return self.texts(key)
        import shlex  # only for whoever probes by a command

        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            self._note(key, f"{value!r}: {error}")
            return ()

    def whole(self, key: str, default: int, low: int | None = None, high: int = 0) -> int:
        if key not in self._table:
            return default
        value = self._table[key]
        if not isinstance(value, int) or isinstance(value, bool):
            self._note(key, f"{value!r} is not a whole number")
            return default
        if low is not None and not low <= value <= high:
            self._note(key, f"{value} is not in {low}..{high}")
        return value

    def seconds(self, key: str, default: float, low: float, high: float) -> float:
        if key not in self._table:
            return default
        value = self._table[key]
        if not isinstance(value, int | float) or isinstance(value, bool):
            self._note(key, f"{value!r} is not a number of seconds")
            return default
        if not low <= value <= high:
            self._note(key, f"{value} is not in {low:g}..{high:g} seconds")
        return float(value)

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
