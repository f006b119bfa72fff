"""Keys that a peer and we share: who may transfer which zone, read from a TOML file.

Secrets are never shown: not in a repr, not in a problem, not in a log.
"""

import base64
import ipaddress
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from dnsd.zone import to_wire
from registry import names
from registry.runtime.config import ConfigError, Network

MAX_KEY_NAME = 64
"""Octets of a key's name on the wire: so that a signature always fits behind an answer."""

MIN_SECRET = 16
"""Octets of a secret.  RFC 8945, section 8, advises as many as the hash has."""

MAX_KEYS = 1000
"""In one file."""


class Algorithm(NamedTuple):
    """A MAC: its name in DNS, in hashlib, and the octets it gives."""

    name: bytes
    hash: str
    size: int


ALGORITHMS = {
    name: Algorithm(to_wire(name + "."), hash_name, size)
    for name, hash_name, size in (
        ("hmac-sha256", "sha256", 32),
        ("hmac-sha384", "sha384", 48),
        ("hmac-sha512", "sha512", 64),
        ("hmac-sha1", "sha1", 20),  # for old peers only (RFC 8945, section 6)
    )
}


@dataclass(frozen=True, slots=True)
class Key:
    """A shared key, by its name on the wire in lower case.

    It allows transfers of `zones` (empty: of all) to `networks` (empty: to anywhere).
    """

    name: bytes
    algorithm: Algorithm
    secret: bytes = field(repr=False)
    zones: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @property
    def tsig_size(self) -> int:
        """Octets of a signature made with it, the largest that we make."""
        return len(self.name) + 10 + len(self.algorithm.name) + 16 + self.algorithm.size + 6

    def allows(self, apex: str, address: bytes) -> bool:
        """Whether who has it may transfer the zone *apex* to *address* (4 or 16 octets)."""
        if self.zones and apex not in self.zones:
            return False
        ip = ipaddress.ip_address(address)
        return not self.networks or any(ip in network for network in self.networks)


Keyring = Mapping[bytes, Key]
"""Keys by their names."""

NO_KEYS: Keyring = MappingProxyType({})


def key_name(text: str) -> bytes:
    """*text* as the name of a key; ValueError when it can be none."""
    wire = to_wire(text.strip().lower().removesuffix(".") + ".")
    if not 1 < len(wire) <= MAX_KEY_NAME:
        raise ValueError(f"{text[:80]!r} has {len(wire)} octets as a name; at most {MAX_KEY_NAME}")
    return wire


def shown(name: bytes) -> str:
    """The name of a key, for people."""
    labels, at = [], 0
    while name[at]:
        labels.append(name[at + 1 : at + 1 + name[at]].decode("latin-1"))
        at += name[at] + 1
    return ".".join(labels) + "."


def read_keys(text: str) -> Keyring:
    """The keys in a file's *text*, a table `[[key]]` each; ConfigError with every problem."""
    found: dict[bytes, Key] = {}
    problems: list[str] = []
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"not TOML: {error}"]) from None
    tables = document.get("key", [])
    if set(document) - {"key"} or not isinstance(tables, list) or not tables:
        problems.append("it must hold one or more tables [[key]], and nothing else")
    elif len(tables) > MAX_KEYS:
        problems.append(f"{len(tables)} keys; at most {MAX_KEYS}")
    else:
        for number, table in enumerate(tables, 1):
            key = _key(table, f"key {number}", problems)
            if key is not None and key.name in found:
                problems.append(f"key {number}: its name is that of another key")
            elif key is not None:
                found[key.name] = key
    if problems:
        raise ConfigError(problems)
    return found


def _network(text: str) -> Network:
    return ipaddress.ip_network(text, strict=False)


_FIELDS = frozenset({"name", "algorithm", "secret", "zones", "addresses"})
_LISTS: Mapping[str, Callable[[str], object]] = {
    "zones": names.normal_zone,
    "addresses": _network,
}


def _key(table: Any, where: str, problems: list[str]) -> Key | None:
    """The key in *table*; None with what is wrong added to *problems*."""
    if not isinstance(table, dict):
        problems.append(f"{where}: not a table")
        return None
    where = f"{where} ({table['name']})" if isinstance(table.get("name"), str) else where
    mine = [f"{where}: {problem}" for problem in _problems(table)]
    problems.extend(mine)
    if mine:
        return None
    return Key(
        key_name(table["name"]),
        ALGORITHMS[_algorithm(table)],
        _secret(table["secret"]),
        frozenset(map(names.normal_zone, table.get("zones", ()))),
        tuple(map(_network, table.get("addresses", ()))),
    )


def _problems(table: dict[str, Any]) -> Iterator[str]:
    if unknown := sorted(set(table) - _FIELDS):
        yield f"unknown field {', '.join(unknown)}; there are {', '.join(sorted(_FIELDS))}"
    try:
        key_name(table.get("name", ""))
    except (ValueError, AttributeError):
        yield f"name: required, a domain name of at most {MAX_KEY_NAME} octets"
    if _algorithm(table) not in ALGORITHMS:
        yield f"algorithm: not one of {', '.join(ALGORITHMS)}"
    yield from _secret_problems(table.get("secret"))
    for name, parse in _LISTS.items():
        value = table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            yield f"{name}: not a list of texts"
            continue
        for item in value:
            try:
                parse(item)
            except ValueError as error:
                yield f"{name}: {error}"


def _algorithm(table: dict[str, Any]) -> str:
    return str(table.get("algorithm", "hmac-sha256")).lower().removesuffix(".")


def _secret(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)


def _secret_problems(text: Any) -> Iterator[str]:
    try:
        size = len(_secret(text))
    except (ValueError, AttributeError):
        yield "secret: required, in base64"
        return
    if size < MIN_SECRET:
        yield f"secret: {size} octets; at least {MIN_SECRET}"
