"""What is registered: a `Registration` as its owner sent it, an `Instance` as the store holds it.

Both go to JSON and back here, and everything that comes back is checked as if
a stranger had written it: dnsd must survive whatever stands in Redis.
"""

import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from registry import names
from registry.errors import InvalidInstance, MalformedEntry, Problem

FORMAT: Final = "1"
"""Version of a stored entry; one that we do not know is skipped, not guessed at."""

SETTABLE_STATES: Final = ("serving", "draining", "maintenance", "waiting", "unhealthy")
STATES: Final = (*SETTABLE_STATES, "suspect")
"""`suspect`: its lease is over, but so many others' are too that it is kept for a while."""

IN_DNS: Final = frozenset({"serving", "suspect"})

DEFAULT_LEASE_TTL: Final = 60
MIN_LEASE_TTL: Final = 5
MAX_LEASE_TTL: Final = 3600
DEFAULT_RECORD_TTL: Final = 5
MAX_RECORD_TTL: Final = 3600

MAX_PORTS: Final = 16
MAX_ADDRESSES: Final = 16
MAX_TAGS: Final = 16
MAX_METADATA: Final = 64
MAX_METADATA_VALUE: Final = 256
MAX_METADATA_BYTES: Final = 4096
MAX_PATH: Final = 1024
MAX_REASON: Final = 256
MAX_ANSWERS: Final = 1000
"""Of the setting `answers`: what no DNS message over UDP can hold needs no limit of its own."""
MAX_INTEGER: Final = 2**53 - 1
"""Lua's numbers are doubles; a greater generation would compare wrongly."""
MAX_ENTRY_CHARS: Final = 32768
"""An entry longer than any that we would write is not decoded at all.  Ours are below it even
when each of 4096 octets of metadata is a control character, six characters in JSON."""


@dataclass(frozen=True, slots=True)
class Port:
    """A named port of an instance; *protocol* is `tcp` or `udp`."""

    name: str
    number: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Registration:
    """What a service says of one of its instances; names in lower case, else as it spells them.

    `addresses` are IP literals in canonical form; `host` is a name that Callboard looks up.
    `named` tells whether the id came from the service; if not, `caller` is the address it
    registered from, so that heartbeats without an id find their instance.
    `lease_ttl` is in seconds, 0 for one that never expires; `record_ttl` in whole seconds.
    `owner` is who registered it, where registrars tell one from another; whoever registers a
    service's name first owns it until the service is forgotten.
    """

    service: str
    instance: str
    ports: tuple[Port, ...]
    addresses: tuple[str, ...] = ()
    host: str = ""
    priority: int = 0
    weight: int = 100
    version: str = ""
    zone: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    health_endpoint: str = "/health"
    lease_ttl: int = DEFAULT_LEASE_TTL
    record_ttl: int = DEFAULT_RECORD_TTL
    named: bool = True
    caller: str = ""
    owner: str = ""

    @property
    def key(self) -> str:
        """Folded `service/instance`: what identifies this instance everywhere."""
        return f"{names.fold(self.service)}/{names.fold(self.instance)}"

    def to_json(self) -> str:
        """One line; equal registrations give equal bytes, which is how the store compares them."""
        document = {name: getattr(self, name) for name in _FIELDS}
        document["ports"] = [[p.name, p.number, p.protocol] for p in self.ports]
        document["metadata"] = dict(self.metadata)
        if not self.owner:
            del document["owner"]  # as versions that did not know it wrote the same registration
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> "Registration":
        """The registration in *text*, every rule checked; MalformedEntry when it breaks one.

        Unknown fields are left alone: a newer version may have written them.
        """
        try:
            document = json.loads(text)
            known = {name: document[name] for name in _FIELDS if name in document}
            known["ports"] = tuple(Port(*port) for port in known["ports"])
            known["addresses"] = tuple(known.get("addresses", ()))
            known["tags"] = tuple(known.get("tags", ()))
            registration = cls(**known)
            problems = problems_of(registration)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise MalformedEntry(f"not a registration: {error!r}") from error
        if problems:
            raise MalformedEntry(str(InvalidInstance(problems)))
        return registration


_FIELDS = tuple(f.name for f in fields(Registration))


@dataclass(frozen=True, slots=True)
class Instance:
    """A registration with a lease.

    `revision` is the one of its last change; `state` one of `STATES`; `found` the addresses
    that look-ups of its host gave; `listed_as` how the service was first spelled.
    """

    registration: Registration
    revision: int
    lease_id: str
    registered_at_ms: int
    generation: int = 0
    state: str = "serving"
    reason: str = ""
    found: tuple[str, ...] = ()
    listed_as: str = ""

    @property
    def service(self) -> str:
        """Folded name of its service."""
        return names.fold(self.registration.service)

    @property
    def id(self) -> str:
        """Folded id: its label in DNS."""
        return names.fold(self.registration.instance)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Given and found addresses, each once, given ones first."""
        return tuple(dict.fromkeys(self.registration.addresses + self.found))

    @property
    def in_dns(self) -> bool:
        """Whether it may be answered: in a state for it, and with an address to give."""
        return self.state in IN_DNS and bool(self.registration.addresses or self.found)

    @property
    def endpoint(self) -> str:
        """`http://10.0.0.7:8080`: scheme, where it is, default port."""
        port = default_port(self.registration.ports)
        scheme = port.name if port.name in ("http", "https") else port.protocol
        where = self.registration.host or next(iter(self.addresses), "")
        return f"{scheme}://{f'[{where}]' if ':' in where else where}:{port.number}"


def default_port(ports: tuple[Port, ...], protocol: str | None = None) -> Port:
    """`http`, else the only one, else the first by name; ValueError when there is none."""
    mine = [p for p in ports if protocol in (None, p.protocol)]
    return min(mine, key=lambda p: (p.name != "http", p.name))


def default_record_ttl(lease_ttl: int) -> int:
    """The smaller of 5 s and a whole quarter of the lease, at least 1; without a lease 5 s."""
    if lease_ttl == 0:
        return DEFAULT_RECORD_TTL
    return max(1, min(DEFAULT_RECORD_TTL, lease_ttl // 4))


def max_record_ttl(lease_ttl: int) -> int:
    """A quarter of the lease, so that no cache outlives it by much."""
    return MAX_RECORD_TTL if lease_ttl == 0 else max(1, lease_ttl // 4)


# --- the rules -------------------------------------------------------------------------


def problems_of(registration: Registration) -> list[Problem]:
    """Every rule that *registration* breaks, types included; empty when it is good."""
    return list(_problems(registration))


def _problems(r: Registration) -> Iterator[Problem]:
    yield from _text_problems("service_name", r.service, names.problem_of_service)
    yield from _text_problems("instance_id", r.instance, names.problem_of_service)
    yield from _port_problems(r.ports)
    if not r.addresses and not r.host:
        yield Problem("address", "one of endpoint, address or host is required")
    if len(r.addresses) > MAX_ADDRESSES:
        yield Problem("address", f"{len(r.addresses)} addresses; at most {MAX_ADDRESSES}")
    for address in r.addresses:
        if not is_canonical_address(address):
            yield Problem("address", f"{address!r} is not an IPv4 or IPv6 address")
    if r.host != "":
        yield from _text_problems("host", r.host, names.problem_of_host)
    yield from _range_problems("priority", r.priority, 0, 65535)
    yield from _range_problems("weight", r.weight, 0, 65535)
    for name in ("version", "zone"):
        if getattr(r, name) != "":
            yield from _text_problems(name, getattr(r, name), names.problem_of_locality)
    if len(r.tags) > MAX_TAGS:
        yield Problem("tags", f"{len(r.tags)} tags; at most {MAX_TAGS}")
    for tag in r.tags:
        yield from _text_problems("tags", tag, names.problem_of_locality)
    yield from _metadata_problems(r.metadata)
    yield from _path_problems(r.health_endpoint)
    yield from _ttl_problems(r.lease_ttl, r.record_ttl)
    if not isinstance(r.named, bool):
        yield Problem("named", f"{r.named!r} is not true or false")
    if r.caller != "" and not is_canonical_address(r.caller):
        yield Problem("caller", f"{r.caller!r} is not an IP address")
    if r.owner != "":
        yield from _text_problems("owner", r.owner, names.problem_of_locality)


def _text_problems(
    name: str, value: object, problem_of: Callable[[str], str | None]
) -> Iterator[Problem]:
    if not isinstance(value, str):
        yield Problem(name, f"{value!r} is not text")
    elif (problem := problem_of(value)) is not None:
        yield Problem(name, problem)


def _range_problems(name: str, value: object, low: int, high: int) -> Iterator[Problem]:
    if not _is_whole(value) or not low <= value <= high:  # type: ignore[operator]
        yield Problem(name, f"{value!r} is not a whole number in {low}..{high}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _port_problems(ports: tuple[Port, ...]) -> Iterator[Problem]:
    if not 1 <= len(ports) <= MAX_PORTS:
        yield Problem("ports", f"{len(ports)} ports; 1 to {MAX_PORTS} are required")
    if len({p.name for p in ports}) < len(ports):
        yield Problem("ports", "two ports have the same name")
    for port in ports:
        where = f"ports.{port.name}"
        yield from _text_problems(where, port.name, names.problem_of_port_name)
        yield from _range_problems(where, port.number, 1, 65535)
        if port.protocol not in ("tcp", "udp"):
            yield Problem(where, f"protocol {port.protocol!r} is not tcp or udp")


def _metadata_problems(metadata: Mapping[str, str]) -> Iterator[Problem]:
    if len(metadata) > MAX_METADATA:
        yield Problem("metadata", f"{len(metadata)} entries; at most {MAX_METADATA}")
    total = 0
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            yield Problem(f"metadata.{key}", f"{value!r} is not text")
            continue
        if not key or not _is_encodable(key + value):
            yield Problem("metadata", f"{key!r} has an empty key or a lone surrogate")
            continue
        size = len(key.encode()), len(value.encode())
        total += sum(size)
        if max(size) > MAX_METADATA_VALUE:
            yield Problem(
                f"metadata.{key[:40]}", f"{max(size)} bytes; at most {MAX_METADATA_VALUE}"
            )
    if total > MAX_METADATA_BYTES:
        yield Problem("metadata", f"{total} bytes in all; at most {MAX_METADATA_BYTES}")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path_problems(path: object) -> Iterator[Problem]:
    if not isinstance(path, str) or not path.startswith("/") or len(path) > MAX_PATH:
        yield Problem(
            "health_endpoint", f"{path!r} is not a path: '/' first, at most {MAX_PATH} characters"
        )
    elif not path.isascii() or not path.isprintable() or " " in path:
        yield Problem("health_endpoint", f"{path!r} has a character that a URL path cannot have")


def _ttl_problems(lease_ttl: object, record_ttl: object) -> Iterator[Problem]:
    if not isinstance(lease_ttl, int) or isinstance(lease_ttl, bool) or not is_lease_ttl(lease_ttl):
        rule = f"{MIN_LEASE_TTL}..{MAX_LEASE_TTL}, or 0 for no lease"
        yield Problem("lease_ttl", f"{lease_ttl!r} is not a whole number of seconds in {rule}")
        return
    yield from _range_problems("record_ttl", record_ttl, 1, max_record_ttl(lease_ttl))


def is_lease_ttl(seconds: int) -> bool:
    """Whether a lease may last so long; 0 stands for no lease at all."""
    return seconds == 0 or MIN_LEASE_TTL <= seconds <= MAX_LEASE_TTL


def is_canonical_address(text: object) -> bool:
    """Whether *text* is an IP address, written as `ipaddress` writes it (no zone index)."""
    if not isinstance(text, str) or "%" in text:
        return False
    try:
        return str(ipaddress.ip_address(text)) == text
    except ValueError:
        return False


# --- the stored form -------------------------------------------------------------------
#
# Four lines.  Lua reads the first, replaces whole lines and never looks into the JSON:
# cjson turns [] into {} and loses digits.
#
#   1 <revision> <lease_id> <registered_at_ms> <generation> <lease_ms>
#   <state> <reason…>
#   <found addresses, separated by spaces>
#   <registration JSON>


def encode_instance(instance: Instance) -> str:
    """The value stored under `instance.registration.key`."""
    r = instance.registration
    head = (
        f"{FORMAT} {instance.revision} {instance.lease_id} {instance.registered_at_ms}"
        f" {instance.generation} {r.lease_ttl * 1000}"
    )
    state = f"{instance.state} {instance.reason}".rstrip()
    return "\n".join((head, state, " ".join(instance.found), r.to_json()))


def decode_instance(value: str, listed_as: str = "") -> Instance:
    """The instance stored as *value*; MalformedEntry says what does not fit."""
    if len(value) > MAX_ENTRY_CHARS:
        raise MalformedEntry(f"{len(value)} characters; at most {MAX_ENTRY_CHARS}")
    try:
        head, state_line, found_line, text = value.split("\n", 3)
        form, revision, lease_id, registered_at, generation, _lease_ms = head.split(" ")
        if form != FORMAT:
            raise MalformedEntry(f"format {form!r}; this version knows {FORMAT}")
        numbers = int(revision), int(registered_at), int(generation)
    except ValueError as error:
        raise MalformedEntry(f"not an entry: {error}") from error
    state, _, reason = state_line.partition(" ")
    found = tuple(found_line.split())
    registration = Registration.from_json(text)
    _require(state in STATES, f"state {state[:40]!r}")
    _require(len(reason) <= MAX_REASON, "reason too long")
    _require(all(0 <= n <= MAX_INTEGER for n in numbers), f"numbers {numbers}")
    _require(0 < len(lease_id) <= 64, "lease id")
    _require(
        len(found) <= MAX_ADDRESSES and all(map(is_canonical_address, found)), "found addresses"
    )
    if names.fold(listed_as) != names.fold(registration.service):
        listed_as = registration.service
    return Instance(
        registration, numbers[0], lease_id, numbers[1], numbers[2], state, reason, found, listed_as
    )


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise MalformedEntry(f"{what} not as written by us")


def as_document(instance: Instance) -> dict[str, Any]:
    """*instance* as the HTTP API lists it, without the lease times."""
    r = instance.registration
    return {
        "instance_id": r.instance,
        "endpoint": instance.endpoint,
        "addresses": list(instance.addresses),
        "host": r.host or None,
        "ports": {p.name: _port_document(p) for p in r.ports},
        "priority": r.priority,
        "weight": r.weight,
        "version": r.version or None,
        "zone": r.zone or None,
        "tags": list(r.tags),
        "metadata": dict(r.metadata),
        "health_endpoint": r.health_endpoint,
        "state": instance.state,
        "state_reason": instance.reason or None,
        "static": r.lease_ttl == 0,
        "registered_at": instance.registered_at_ms / 1000,
        "revision": str(instance.revision),
    }


def _port_document(port: Port) -> int | dict[str, Any]:
    if port.protocol == "tcp":
        return port.number
    return {"port": port.number, "protocol": port.protocol}
