"""`SERVICE_*` variables as users of Registrator know them, read into tables.

`SERVICE_<port>_NAME` and the like make another service of that port.  Variables that merely begin
with `SERVICE_` are not published, as Registrator does: there may be secrets among them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from registry.runtime.config import boolean, integer, words

PREFIX = "SERVICE_"

_OF_PORT = re.compile(r"SERVICE_([1-9][0-9]{0,4})_([A-Z_]+)", re.ASCII)

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", re.ASCII)


class Convention(NamedTuple):
    """What one variable says: the key of a table, how its value is read, the probe it implies."""

    key: str
    read: Callable[[str], Any]
    probe: str = ""


def duration(value: str) -> float:
    """`15s`, `1.5m`, `500ms`; a number alone is seconds."""
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError(f"{value[:40]!r} is not a time such as 15s or 500ms")
    return float(found[1]) * _SECONDS[found[2] or "s"]


def pairs(value: str) -> Mapping[str, str]:
    """`team=payments,tier=1`."""
    found = {}
    for word in words(value):
        key, equals, content = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{word!r} is not KEY=VALUE")
        found[key] = content
    return found


OF_PORT: Mapping[str, Convention] = {
    "NAME": Convention("name", str),
    "ID": Convention("instance_id", str),
    "TAGS": Convention("tags", words),
    "METADATA": Convention("metadata", pairs),
    "VERSION": Convention("version", str),
    "ZONE": Convention("zone", str),
    "WEIGHT": Convention("weight", integer(0, 65535)),
    "PRIORITY": Convention("priority", integer(0, 65535)),
    "HEALTH_ENDPOINT": Convention("health_endpoint", str),
    "PROBE": Convention("probe", str),
    "IGNORE": Convention("ignore", boolean),
    "CHECK_HTTP": Convention("health_endpoint", str, "http"),
    "CHECK_TCP": Convention("", boolean, "tcp"),
    "CHECK_CMD": Convention("probe_command", str, "command"),
    "CHECK_SCRIPT": Convention("probe_command", str, "command"),
    "CHECK_INTERVAL": Convention("health_interval", duration),
    "CHECK_TIMEOUT": Convention("health_timeout", duration),
}


def of_ports(environ: Mapping[str, str], problems: list[str]) -> dict[int, dict[str, Any]]:
    """Port → what `SERVICE_<port>_*` say of it, in the order of ports."""
    given: dict[int, dict[str, str]] = {}
    for name, value in environ.items():
        if (found := _OF_PORT.fullmatch(name)) is not None:
            given.setdefault(int(found[1]), {})[found[2]] = value
    return {port: _table(given[port], f"{PREFIX}{port}_", problems) for port in sorted(given)}


def services(
    port: int, default: Mapping[str, Any], by_port: Mapping[int, Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each service is told of, and its table.

    *default* is what the settings say; it is the service at *port* unless it has no name and a
    port has one.  A port without a name of its own is called `<name>-<port>`.
    """
    name = default.get("name", "")
    if name or port in by_port or not by_port:
        table = {**default, **by_port.get(port, {})}
        if not table.pop("ignore", False):
            yield "service", table
    shared = {k: v for k, v in default.items() if k not in ("port", "ports", "instance_id")}
    for number, said in by_port.items():
        if number == port:
            continue
        called = {"name": f"{name}-{number}"} if name else {}
        table = {**shared, **called, "port": number, **said}
        if not table.pop("ignore", False):
            yield f"{PREFIX}{number}_*", table


def _table(given: Mapping[str, str], prefix: str, problems: list[str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    # PROBE last: it wins over what a check implies.
    for name in sorted(given, key=lambda name: (name == "PROBE", name)):
        convention = OF_PORT.get(name)
        if convention is None:
            problems.append(
                f"environment {prefix}{name}: unknown; one of {', '.join(OF_PORT)};"
                f" further facts go into {prefix}METADATA=KEY=VALUE"
            )
            continue
        try:
            value = convention.read(given[name])
        except ValueError as error:
            problems.append(f"environment {prefix}{name}: {error}")
            continue
        if convention.key and value:
            table[convention.key] = value
        if convention.probe and value:
            table["probe"] = convention.probe
    return table
