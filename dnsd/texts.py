"""What TXT records say: `key=value` strings that a program can read back (RFC 6763, section 6)."""

from collections.abc import Iterator

from registry.catalog import Service
from registry.model import Instance

MAX_STRING = 255
"""Octets of one character-string (RFC 1035, section 3.3)."""

MAX_TEXT = 1300
"""Octets of all strings of a record: what RFC 6763, section 6.2 allows."""

DEFAULT_HEALTH = "/health"

SCHEMA_VERSION = "1.0.0"
"""Of the names that a zone has: the first number rises when one of them goes, the second when
one is added."""

_VERSION = b"txtvers=1"
_NEVER_METADATA = frozenset({"txtvers", "health"})
"""Keys whose absence says something: nobody may fill the place."""


def instance_strings(instance: Instance) -> tuple[bytes, ...]:
    """Who it is, where, how its health is asked for, and its metadata.

    Ours come first, because the first of two equal keys counts; what does not fit, or has a key
    that could not be read back, is left out.  Hosts and ports stand in other records.
    """
    r = instance.registration
    pairs = [("svc", instance.service), ("id", instance.id)]
    pairs += [(k, v) for k, v in (("version", r.version), ("zone", r.zone)) if v]
    pairs += [("tags", ",".join(r.tags))] if r.tags else []
    pairs += [("health", r.health_endpoint)] if r.health_endpoint != DEFAULT_HEALTH else []
    taken = {key for key, _ in pairs} | _NEVER_METADATA
    pairs += _readable(sorted(r.metadata.items()), taken)
    strings = [_VERSION]
    size = len(_VERSION) + 1
    for key, value in pairs:
        string = f"{key}={value}".encode()
        if len(string) <= MAX_STRING and size + len(string) + 1 <= MAX_TEXT:
            strings.append(string)
            size += len(string) + 1
    return tuple(strings)


def _readable(metadata: list[tuple[str, str]], taken: set[str]) -> Iterator[tuple[str, str]]:
    for key, value in metadata:
        folded = key.lower()
        readable = key != "" and key.isascii() and key.isprintable() and "=" not in key
        if readable and folded not in taken:
            taken.add(folded)
            yield key, value


def service_strings(service: Service) -> tuple[bytes, ...]:
    """Which service it is, and how many instances are answered; theirs stand at their names."""
    (first, *_) = serving = service.serving
    return _VERSION, f"svc={first.service}".encode(), f"instances={len(serving)}".encode()


def apex_strings(apex: str) -> tuple[bytes, ...]:
    """Where to go on from the apex."""
    strings = (f"dns-version={SCHEMA_VERSION}", f"catalog=catalog.{apex}")
    return tuple(string.encode() for string in strings)


def catalog_strings(revision: int) -> tuple[bytes, ...]:
    """The revision of the catalog, whole: the serial is its low half."""
    return (f"rev={revision}".encode(),)
