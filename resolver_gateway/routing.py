"""Which service a request names, which of its instances, and what of the path they get.

The rule for paths: `/v2/{service}/{path}`, the service read as it stands (no decoding), the rest
handed on byte for byte, unless it would climb out of `/v2/{service}/` under any reading that an
upstream may have: percent-decoded once or again, `\\` as `/`, `..;x` as `..`, `//` as `/`.
With a host suffix, `{service}.suffix` names the service, and the whole path is the rest.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from resolver_gateway import naming
from resolver_gateway.naming import ALL, Subset, service_of
from resolver_gateway.request import RequestHead
from resolver_gateway.rules import Rule, Rules

_WIDE: Final = re.compile(rb"%u00([0-9A-Fa-f]{2})")

MAX_DECODINGS: Final = 4
"""Rounds of percent-decoding that are looked through; a path with more layers is refused."""

MAX_REMEMBERED: Final = 4096
"""Service segments kept with what they name, as many as the cache keeps names; forgotten all at
once when there are more."""

PREFIX: Final = b"/v2/"
STATUS_PATH: Final = b"/gateway/status"
HEALTH_PREFIX: Final = b"/gateway/health-check/"


@dataclass(frozen=True, slots=True)
class Named:
    """A service as a request names it."""

    service: str
    """Folded."""
    name: str
    """What DNS is asked for: the service, with what chooses among its instances before it."""
    prefix: bytes
    """What was cut off the target; empty when the host named the service."""
    rule: Rule
    subset: Subset = ALL
    explicit: bool = False
    """Whether the client chose the subset: then no other instance will do."""
    split: "tuple[tuple[Named, int], ...]" = ()
    """Versions that share the requests, with their shares; empty when nothing is shared out."""
    plain: bool = True
    """Whether nothing is to be done beyond what is done for every request."""

    def __str__(self) -> str:
        return f"{self.service} ({self.subset})" if self.subset else self.service


@dataclass(frozen=True, slots=True)
class ToService:
    """To a service, with *target* as what it is asked for."""

    named: Named
    target: bytes


@dataclass(frozen=True, slots=True)
class StatusPage:
    """`GET /gateway/status`."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """`GET /gateway/health-check/{service}`."""

    named: Named
    listed: str


@dataclass(frozen=True, slots=True)
class NoRoute:
    """Nothing is there: 404, with the *cause* and what would be right."""

    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Climbs:
    """The path would leave its service: 400."""


@dataclass(frozen=True, slots=True)
class BadVersion:
    """The header that chooses a version holds none: 400."""

    value: str


Route = ToService | StatusPage | HealthCheck | NoRoute | Climbs | BadVersion


class Router:
    """Finds routes; remembers the service segments it has seen."""

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        host_suffix: str = "",
        version_header: str = "",
        prefer_zone: str = "",
    ) -> None:
        self._rules = rules or Rules(Rule())
        self._suffix = f".{host_suffix.lower()}".encode() if host_suffix else b""
        self._header = version_header.lower().encode()
        self._prefer_zone = prefer_zone
        self._seen: dict[bytes, Named] = {}
        self.by_path_alone = not self._suffix and not self._header
        """Whether `known` may decide: neither Host nor another field has a say."""

    def __repr__(self) -> str:
        return f"<Router {len(self._seen)} names remembered, {self._rules!r}>"

    def known(self, target: bytes) -> tuple[Named, bytes] | None:
        """Service and rest for most requests: a service seen before, and no octet that the rule
        for paths is about.  None says nothing: `route` knows."""
        slash = target.find(b"/", 4)
        named = self._seen.get(target[4:slash])
        if named is None or slash < 0 or target[:4] != PREFIX:
            return None
        rest = target[slash:]
        if b"." in rest or b"%" in rest:
            return None
        return named, rest

    def route(self, head: RequestHead) -> Route:
        """The route of a request whose target is in origin form.  Total."""
        route = self._by_host(head) or self._by_path(head.target)
        if self._header and isinstance(route, ToService) and not route.named.explicit:
            return self._by_header(route, head)
        return route

    def named(self, service: str, subset: Subset = ALL, prefix: bytes = b"") -> Named:
        """*service* (folded), with those of its instances that *subset* leaves."""
        rule = self._rules.of(service)
        split: tuple[tuple[Named, int], ...] = ()
        if rule.versions and not subset:
            split = tuple(
                (self._one(service, rule, Subset(version=version), prefix), share)
                for version, share in rule.versions
                if share
            )
        return self._one(service, rule, subset, prefix, explicit=bool(subset), split=split)

    def _one(
        self,
        service: str,
        rule: Rule,
        subset: Subset,
        prefix: bytes,
        *,
        explicit: bool = False,
        split: tuple[tuple[Named, int], ...] = (),
    ) -> Named:
        whole = rule.subset.and_then(subset)
        name = naming.name_of(service, whole, prefer=self._prefer_zone, port=rule.srv_port)
        plain = rule.is_plain and not split
        return Named(service, name, prefix, rule, whole, explicit, split, plain)

    # --- by path

    def _by_path(self, target: bytes) -> Route:
        path, question, query = target.partition(b"?")
        if not path.startswith(PREFIX):
            return self._own_page(path)
        segment, _, rest = path[4:].partition(b"/")
        named = self._seen.get(segment)
        if named is None:
            found = self._read(segment)
            if isinstance(found, NoRoute):
                return found
            named = found
        if (b"." in rest or b"%" in rest) and climbs(rest):
            return Climbs()
        return ToService(named, b"/%b?%b" % (rest, query) if question else b"/" + rest)

    def _read(self, segment: bytes) -> Named | NoRoute:
        named = self._parse(segment.decode("latin-1"), PREFIX + segment)
        if isinstance(named, Named):
            if len(self._seen) >= MAX_REMEMBERED:
                self._seen.clear()
            self._seen[segment] = named
        return named

    def _parse(self, text: str, prefix: bytes) -> Named | NoRoute:
        """`payments`, `payments@1.2`, `payments@tag:canary`."""
        name, at, chosen = text.partition("@")
        service = service_of(name)
        if service is None:
            return NoRoute("unknown-service", f"{name[:80]!r} is no name of a service")
        if not at:
            return self.named(service, prefix=prefix)
        subset = naming.parse_subset(chosen)
        if subset is None:
            return NoRoute(
                "unknown-service",
                f"{chosen[:80]!r} is no VERSION, tag:TAG or zone:ZONE, nor several with commas",
            )
        return self.named(service, subset, prefix)

    def _own_page(self, path: bytes) -> Route:
        if path == STATUS_PATH:
            return StatusPage()
        if path.startswith(HEALTH_PREFIX):
            text = path.removeprefix(HEALTH_PREFIX).removesuffix(b"/").decode("latin-1")
            named = self._parse(text, b"")
            return named if isinstance(named, NoRoute) else HealthCheck(named, text)
        return NoRoute(
            "no-route",
            "there are /v2/{service}/{path}, /gateway/status and /gateway/health-check/{service}",
        )

    # --- by host, by header

    def _by_host(self, head: RequestHead) -> Route | None:
        """The service that the host names; None when it is not below the suffix."""
        if not self._suffix:
            return None
        host = head.host.lower().partition(b":")[0].removesuffix(b".")
        if not host.endswith(self._suffix):
            return None
        found = self._parse(host.removesuffix(self._suffix).decode("latin-1"), b"")
        if isinstance(found, NoRoute):
            return found
        path = head.target.partition(b"?")[0]
        if (b"." in path or b"%" in path) and climbs(path[1:]):
            return Climbs()
        return ToService(found, head.target)

    def _by_header(self, route: ToService, head: RequestHead) -> Route:
        value = head.value(self._header)
        if value is None:
            return route
        text = value.decode("latin-1")
        subset = naming.parse_subset(text)
        if subset is None:
            return BadVersion(text)
        return ToService(self.named(route.named.service, subset, route.named.prefix), route.target)


def draw(left: "tuple[tuple[Named, int], ...]", drawn: float) -> Named:
    """One of *left* (at least one), the versions that may still be drawn, by their shares.

    *drawn* is in [0, 1): chance, or a hash of who asks, so that the same one gets the same
    version.
    """
    point = drawn * sum(share for _, share in left)
    for version, share in left:
        if point < share:
            return version
        point -= share
    return left[-1][0]


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
    """One round of percent-decoding, as eager as any reader's: `%u002e` is IIS's, the overlong
    `%c0%ae` and `%c0%af` are `.` and `/` to decoders of UTF-8 that do not check."""
    decoded = unquote_to_bytes(_WIDE.sub(rb"%\1", text))
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
