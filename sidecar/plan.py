"""Which services one sidecar keeps: those of the tables of a file, or of settings and variables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from registry.runtime.config import boolean
from sidecar import conventions
from sidecar.config import Settings
from sidecar.health import Policy
from sidecar.registration import AUTO, Service
from sidecar.tables import services_from


def services_of(
    settings: Settings,
    tables: Sequence[Mapping[str, Any]],
    file: str,
    environ: Mapping[str, str],
    *,
    is_wrapping: bool = False,
) -> tuple[tuple[Service, ...], list[str]]:
    """The services to keep, and every problem: those of *tables*, or of settings and *environ*.

    *is_wrapping*: the sidecar runs the service itself, on this machine.
    """
    problems: list[str] = []
    defaults = _defaults(settings, _checks_tcp(environ, problems), is_wrapping=is_wrapping)
    by_port = conventions.of_ports(environ, problems)
    if tables:
        where = [
            f"file {file}: [[service]] {n} {t.get('name', '')}" for n, t in enumerate(tables, 1)
        ]
        described: list[Mapping[str, Any]] = [{**defaults, **table} for table in tables]
        if settings.name or settings.instance_id or by_port:
            problems.append(
                f"name, instance_id, SERVICE_<port>_*: the services stand in {file}; leave these"
                " to its tables"
            )
    else:
        pairs = list(conventions.services(settings.port or 8080, defaults, by_port))
        where, described = [place for place, _ in pairs], [table for _, table in pairs]
        if not pairs:
            problems.append("service: nothing to register: every port is to be ignored")
    base = Policy(
        settings.rise,
        settings.fall,
        settings.health_interval,
        settings.health_timeout,
        settings.initial_wait_timeout,
        settings.register_unhealthy,
    )
    services, further = services_from(described, where, base)
    return services, problems + further


def _checks_tcp(environ: Mapping[str, str], problems: list[str]) -> bool:
    value = environ.get("SERVICE_CHECK_TCP", "false")
    try:
        return boolean(value)
    except ValueError as error:
        problems.append(f"environment SERVICE_CHECK_TCP: {error}")
        return False


def _defaults(settings: Settings, checks_tcp: bool, *, is_wrapping: bool) -> dict[str, Any]:
    implied = settings.health_endpoint or settings.probe_command or settings.docker_container
    by_tcp = checks_tcp or (is_wrapping and not implied)
    table = {
        "name": settings.name,
        "host": settings.host or (AUTO if is_wrapping else ""),
        "port": settings.port,
        "ports": settings.ports,
        "probe": settings.probe or ("tcp" if by_tcp else ""),
        "health_endpoint": settings.health_endpoint,
        "probe_command": settings.probe_command,
        "docker_container": settings.docker_container,
        "docker_host": settings.docker_host,
        "zone": settings.service_zone,
        "version": settings.service_version,
        "tags": settings.tags,
        "weight": settings.weight,
        "priority": settings.priority,
        "instance_id": settings.instance_id,
        "metadata": settings.metadata or {},
        "lease_ttl": settings.lease_ttl,
        "record_ttl": settings.record_ttl,
    }
    return {key: value for key, value in table.items() if value not in ("", (), {})}


def config_file(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """The file that `--config` or its variables name; "" when there is none."""
    found = environ.get("CALLBOARD_SIDECAR_CONFIG", environ.get("CALLBOARD_CONFIG", ""))
    words_left = iter(argv)
    for word in words_left:
        name, equals, value = word.partition("=")
        if name == "--config":
            found = value if equals else next(words_left, "")
    return found


def tables_of(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The `[[service]]` tables of a TOML file."""
    found = document.get("service", ())
    if isinstance(found, list):
        yield from (table for table in found if isinstance(table, dict))
