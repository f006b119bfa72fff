"""Which service a path names, and what of it the upstream gets.

The rule for paths: `/v2/{service}/{path}`, the service read as it stands (no decoding), the rest
handed on byte for byte, unless it would climb out of `/v2/{service}/` under any reading that an
upstream may have: percent-decoded once or again, `\\` as `/`, `..;x` as `..`, `//` as `/`.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from registry import names

MAX_DECODINGS: Final = 4
"""Rounds of percent-decoding that are looked through; a path with more layers is refused."""

MAX_REMEMBERED: Final = 1024
"""Service segments kept with their folded name; forgotten all at once when there are more."""

PREFIX: Final = b"/v2/"
STATUS_PATH: Final = b"/gateway/status"
HEALTH_PREFIX: Final = b"/gateway/health-check/"


@dataclass(frozen=True, slots=True)
class ToService:
    """To *service* (folded), with *target* as what it is asked for; *prefix* was cut off."""

    service: str
    target: bytes
    prefix: bytes


@dataclass(frozen=True, slots=True)
class StatusPage:
    """`GET /gateway/status`."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """`GET /gateway/health-check/{service}`."""

    service: str
    listed: str


@dataclass(frozen=True, slots=True)
class NoRoute:
    """Nothing is there: 404, with the *cause* and what would be right."""

    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Climbs:
    """The path would leave its service: 400."""


Route = ToService | StatusPage | HealthCheck | NoRoute | Climbs


class Router:
    """Finds routes; remembers the service segments it has seen."""

    def __init__(self) -> None:
        self._services: dict[bytes, str] = {}

    def known(self, target: bytes) -> tuple[str, bytes, bytes] | None:
        """Service, target and prefix for most requests: a service seen before, and no octet that
        the rule for paths is about.  None says nothing: `service_for` knows."""
        slash = target.find(b"/", 4)
        service = self._services.get(target[4:slash])
        if service is None or slash < 0 or target[:4] != PREFIX:
            return None
        rest = target[slash:]
        if b"." in rest or b"%" in rest:
            return None
        return service, rest, target[:slash]

    def service_for(self, target: bytes) -> Route:
        """The route of a request's target in origin form.  Total."""
        path, question, query = target.partition(b"?")
        if not path.startswith(PREFIX):
            return self._own_page(path)
        segment, _, rest = path[4:].partition(b"/")
        service = self._services.get(segment)
        if service is None:
            found = self._read(segment)
            if isinstance(found, NoRoute):
                return found
            service = found
        if (b"." in rest or b"%" in rest) and climbs(rest):
            return Climbs()
        upstream_target = b"/%b?%b" % (rest, query) if question else b"/" + rest
        return ToService(service, upstream_target, PREFIX + segment)

    def _read(self, segment: bytes) -> str | NoRoute:
        text = segment.decode("latin-1")
        service = service_of(text)
        if service is None:
            return NoRoute("unknown-service", f"{text[:80]!r} is no name of a service")
        if len(self._services) >= MAX_REMEMBERED:
            self._services.clear()
        self._services[segment] = service
        return service

    def _own_page(self, path: bytes) -> Route:
        if path == STATUS_PATH:
            return StatusPage()
        if path.startswith(HEALTH_PREFIX):
            text = path.removeprefix(HEALTH_PREFIX).removesuffix(b"/").decode("latin-1")
            service = service_of(text)
            if service is None:
                return NoRoute("unknown-service", f"{text[:80]!r} is no name of a service")
            return HealthCheck(service, text)
        return NoRoute(
            "no-route",
            "there are /v2/{service}/{path}, /gateway/status and /gateway/health-check/{service}",
        )


def service_of(text: str) -> str | None:
    """The folded service that *text* names, be it the service or its environment variable.

    `nmap_service`, `NMAP_SERVICE` and `NMAP_SERVICE_URL` are one; None when it is no name.
    """
    if text.isupper() and text.endswith("_URL"):
        text = text.removesuffix("_URL")
    lowered = text.lower()
    if not text.isascii() or names.problem_of_service(lowered) is not None:
        return None
    return names.fold(lowered)


def climbs(rest: bytes) -> bool:
    """Whether *rest* (after `/v2/{service}/`) leaves its root under any reading of it."""
    readings = [rest]
    while b"%" in readings[-1]:
        decoded = _decoded(readings[-1])
        if decoded == readings[-1]:
            break
        if len(readings) > MAX_DECODINGS:
            return True
        readings.append(decoded)
    if b".." not in readings[-1]:
        return False
    return any(
        _climbs_as_read(reading.replace(b"\\", b"/") if backslash else reading)
        for reading in readings
        for backslash in (False, True)
    )


def _decoded(text: bytes) -> bytes:
    """One round of percent-decoding; the overlong `%c0%ae` and `%c0%af` are `.` and `/` to some."""
    decoded = unquote_to_bytes(text)
    return decoded.replace(b"\xc0\xae", b".").replace(b"\xc0\xaf", b"/")


def _climbs_as_read(path: bytes) -> bool:
    depth = 0
    for segment in path.split(b"/"):
        name = _plain(segment)
        if name == b"..":
            depth -= 1
        elif name not in (b"", b"."):
            depth += 1
        if depth < 0:
            return True
    return False


def _plain(segment: bytes) -> bytes:
    """A segment as the most eager reader would see it: decoded, without its parameters."""
    for _ in range(MAX_DECODINGS):
        decoded = _decoded(segment)
        if decoded == segment:
            break
        segment = decoded
    return segment.partition(b";")[0].strip(b"\x00 \t")
