"""What `up` was asked for, and the command lines that follow from it."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from callboard.failure import WRONG_USAGE, Failure
from registry.model import DEFAULT_LEASE_TTL, MAX_LEASE_TTL, MIN_LEASE_TTL
from registry.runtime.config import HostPort, integer, zones

LOOPBACK: Final = "127.0.0.1"

DEFAULT_PORTS: Final = {"dns": 1053, "registrar": 8888, "gateway": 8000}

ADMIN_PORTS: Final = {"dnsd": 9153, "gateway": 8001}

LOOPBACK_ENDPOINTS: Final = "127.0.0.0/8,::1/128"
"""What the registrar lets services be at, beside addresses of a network: all here is local."""

OUR_SETTINGS: Final = ("DATA_DIR", "DEMO", "GATEWAY", "READY_FILE", "REGISTRAR")
"""Settings of `up` that no part has: their variables are not handed down, because a part
refuses what it does not know."""

SIDECAR_VARIABLES: Final = (
    "CALLBOARD_",
    "SERVICE_",
    "REGISTRY_",
    "HEARTBEAT_",
    "INITIAL_WAIT_",
    "REGISTER_",
)
"""Beginnings of the variables that a sidecar reads."""

_SIDECAR_SETTINGS: Final = ("LOG_FORMAT", "LOG_LEVEL", "HEALTH_INTERVAL", "HEALTH_TIMEOUT", "FALL")
"""Settings that the demo's sidecars may see: how they look and speak, not what they register."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `callboard up` does; *redis* is empty for the embedded store."""

    zones: tuple[str, ...]
    dns: HostPort
    registrar: HostPort
    gateway: HostPort
    redis: str
    data_dir: Path
    lease_ttl: int
    demo: bool
    ready_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """The options as they were given, each a text or None, and where each came from."""

    texts: Mapping[str, str | None]
    source: Callable[[str], str]


T = TypeVar("T")


class _Reader:
    """Parses texts one by one, and keeps every problem met on the way."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self.problems: list[str] = []

    def value(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self._given.texts.get(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"{self._given.source(name)}: {error}")
            return default


def options_of(given: Given, *, demo: bool, environ: Mapping[str, str]) -> Options:
    """The options that *given* stands for; a Failure with every problem when it does not."""
    read = _Reader(given)
    host = read.value("listen", _host, LOOPBACK)
    places = {
        name: read.value(name, lambda text: _place(text, host), HostPort(host, port))
        for name, port in DEFAULT_PORTS.items()
    }
    options = Options(
        zones=read.value("zone", zones, ("svc.internal.",)),
        dns=places["dns"],
        registrar=places["registrar"],
        gateway=places["gateway"],
        redis=read.value("redis", _redis_url, ""),
        data_dir=read.value("data_dir", Path, default_data_dir(environ)).expanduser().absolute(),
        lease_ttl=read.value("lease_ttl", _lease_ttl, DEFAULT_LEASE_TTL),
        demo=demo,
        ready_file=read.value("ready_file", Path, None),
    )
    if read.problems:
        raise Failure(*read.problems, status=WRONG_USAGE)
    return options


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/callboard`, by default `~/.local/state/callboard`."""
    state = environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored (XDG Base Directory Specification).
    home = Path(state) if state.startswith("/") else Path("~/.local/state")
    return home / "callboard"


def _host(text: str) -> str:
    """An address without a port; brackets around an IPv6 one do not count."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{text!r} is not an address such as 127.0.0.1 or [::]") from None
    return host


def _place(text: str, host: str) -> HostPort:
    """HOST:PORT, or a PORT at *host*."""
    return HostPort.parse(text if ":" in text else f"{HostPort(host, 0)}"[:-1] + text)


def _redis_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(f"{text!r} is not a URL such as redis://HOST:6379/0")
    return text


def _lease_ttl(text: str) -> int:
    return integer(MIN_LEASE_TTL, MAX_LEASE_TTL)(text)


# --- command lines ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part is to listen: with port 0 wherever it likes."""

    listen: HostPort
    admin: HostPort | None = None


def wishes(options: Options) -> dict[str, Place]:
    """Where the parts are to listen at their first start."""
    return {
        "registrar": Place(options.registrar),
        "dnsd": Place(options.dns, _admin("dnsd", options.dns)),
        "gateway": Place(options.gateway, _admin("gateway", options.gateway)),
    }


def _admin(part: str, listen: HostPort) -> HostPort:
    """The admin side's usual port; a free one where the part's own port is not the usual one."""
    usual = listen.port in DEFAULT_PORTS.values()
    return HostPort(LOOPBACK, ADMIN_PORTS[part] if usual else 0)


def registrar_arguments(options: Options, place: Place) -> list[str]:
    """The registrar's options."""
    return [
        *_common(options, place),
        *("--lease-ttl", str(options.lease_ttl)),
        *("--allow-endpoints", LOOPBACK_ENDPOINTS),
    ]


def dnsd_arguments(options: Options, place: Place, own_address: str) -> list[str]:
    """dnsd's options; *own_address* names the server where it listens on every address."""
    ns = ["--ns", f"ns1={own_address}"] if place.listen.is_wildcard and own_address else []
    return [*_common(options, place), *_admin_option(place), *ns]


def gateway_arguments(options: Options, place: Place, dns: HostPort) -> list[str]:
    """The gateway's options."""
    return [
        *("--listen", str(place.listen)),
        *("--zone", options.zones[0]),
        *("--dns", str(reachable(dns))),
        *_admin_option(place),
    ]


def _common(options: Options, place: Place) -> list[str]:
    return [
        *("--listen", str(place.listen)),
        *("--zone", ",".join(options.zones)),
    ]


def _admin_option(place: Place) -> list[str]:
    return [] if place.admin is None else ["--admin", str(place.admin)]


def reachable(address: HostPort) -> HostPort:
    """Where somebody on this machine reaches what listens at *address*.

    What listens at `::` takes IPv4 too, and IPv6 may be switched off.
    """
    return HostPort(LOOPBACK, address.port) if address.is_wildcard else address


def part_environment(environ: Mapping[str, str], redis: str) -> dict[str, str]:
    """*environ* for a part: without the variables that only `up` knows, and with the store's URL.

    The URL may hold a password, and everybody on the machine may read command lines.
    """
    ours = {f"CALLBOARD_{name}" for name in OUR_SETTINGS}
    kept = {
        name: value
        for name, value in environ.items()
        if name not in ours and not name.startswith("CALLBOARD_UP_")
    }
    return {**kept, "CALLBOARD_REDIS": redis}


def without_password(url: str) -> str:
    """*url* as it may be shown."""
    return re.sub(r"(?<=://)[^/@]*@", "***@", url)


def sidecar_environment(environ: Mapping[str, str], registrar: str) -> dict[str, str]:
    """*environ* for a demo's sidecar: what the user's own sidecar would read does not count.

    They say only what is worth a look: who is unhealthy, and who is healthy again.
    """
    seen = {f"CALLBOARD_SIDECAR_{name}" for name in _SIDECAR_SETTINGS} | {"CALLBOARD_LOG_FORMAT"}
    kept = {
        name: value
        for name, value in environ.items()
        if name in seen or not name.startswith(SIDECAR_VARIABLES)
    }
    return {"CALLBOARD_SIDECAR_LOG_LEVEL": "warning", **kept, "REGISTRY_URL": registrar}
