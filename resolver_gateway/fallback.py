"""Where a service is by the environment, for when discovery has no instance to offer.

`{SERVICE}_URL`, `{SERVICE}_SERVICE_URL`, `{SERVICE}_ENDPOINT`, the first that is set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit


class Policy(StrEnum):
    """When the environment is asked."""

    PREFER_DNS = "prefer-dns"
    """When discovery has no instance, be the service unknown, empty or discovery away."""
    ONLY_IF_ERROR = "only-if-error"
    """When discovery failed; a service that it says is not there is not there."""
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Place:
    """What a fallback variable says: host (a name or address), port, and what precedes paths."""

    host: str
    port: int
    secure: bool
    base: bytes


def variables(service: str) -> tuple[str, str, str]:
    """The variables that may hold the URL of *service*, in the order they are tried."""
    name = service.upper().replace("-", "_")
    return f"{name}_URL", f"{name}_SERVICE_URL", f"{name}_ENDPOINT"


def place_of(service: str, environ: Mapping[str, str]) -> Place | None:
    """Where the environment says *service* is; None when it says nothing that can be used."""
    for variable in variables(service):
        value = environ.get(variable, "")
        if value and (place := parse_url(value)) is not None:
            return place
    return None


def parse_url(value: str) -> Place | None:
    """`http://host:8080/base` as a place; `host:8080` is taken for http.  None when it is none."""
    try:
        parts = urlsplit(value if "://" in value else "http://" + value)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    base = parts.path.rstrip("/").encode("ascii", "replace")
    if not base.isascii() or any(octet <= 0x20 or octet == 0x7F for octet in base):
        return None
    secure = parts.scheme == "https"
    return Place(parts.hostname, port or (443 if secure else 80), secure, base)
