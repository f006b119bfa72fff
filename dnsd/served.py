"""A zone as it is served: its names that no change touches, and what is known of it beforehand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dnsd import query
from dnsd.compiler import CompiledAnswer, SoaRecord, compile_soa
from dnsd.reverse import FULL, digits_in, owner_of
from dnsd.shared import CATALOG, TYPES, AtCatalog, AtTypes, owner_labels
from dnsd.zone import (
    BROWSING,
    MAX_ZONE,
    NOT_BROWSING,
    AtApex,
    AtBrowse,
    AtServer,
    AtVersion,
    Fixed,
    Zone,
    to_wire,
)
from registry import names


@dataclass(frozen=True, slots=True)
class ServedZone:
    """A zone with all of it that no change touches.

    Names in `fixed` and `between` are octets before the apex; those in `between` have no records,
    but names below them.  `taken` are services that are not answered, because what their names
    mean is something else.  A reverse zone holds the addresses that begin with `reverse`.
    """

    zone: Zone
    wire: bytes
    labels: int
    soa: SoaRecord
    nxdomain: CompiledAnswer
    nodata: CompiledAnswer
    fixed: dict[bytes, Fixed | AtCatalog | AtTypes]
    between: frozenset[bytes]
    taken: frozenset[str]
    reverse: str = ""

    @classmethod
    def of(cls, zone: Zone, others: Sequence[Zone] = ()) -> "ServedZone":
        """ValueError when the apex leaves no room for names, or nobody serves it."""
        wire = to_wire(zone.apex)
        if len(wire) > MAX_ZONE:
            raise ValueError(f"{zone.apex} has {len(wire)} octets; at most {MAX_ZONE}")
        if not zone.servers:
            raise ValueError(f"{zone.apex} has no name server")
        soa = compile_soa(zone)
        reverse = digits_in(zone.apex) if zone.home else ""
        nested = [other.apex for other in others if other.apex.endswith("." + zone.apex)]
        fixed = dict(_fixed_names(zone, reverse))
        return cls(
            zone,
            wire,
            len(zone.apex.split(".")),
            soa,
            CompiledAnswer(query.NXDOMAIN, True, soa=soa),
            CompiledAnswer(query.NOERROR, True, soa=soa),
            fixed,
            frozenset(_names_above((*fixed, *_bare_names(zone, nested, reverse)))),
            frozenset(_taken(zone, nested)),
            reverse,
        )

    @property
    def own(self) -> Sequence[tuple[bytes, Fixed]]:
        """The fixed names whose records no service has a part in."""
        return [(n, p) for n, p in self.fixed.items() if not isinstance(p, AtCatalog | AtTypes)]


def _fixed_names(zone: Zone, reverse: str) -> Iterator[tuple[bytes, Fixed | AtCatalog | AtTypes]]:
    yield b"", AtApex()
    for base in _bases(zone, reverse):
        for first in BROWSING:
            labels = before_apex((first, "_dns-sd", "_udp")) + base
            yield labels, AtBrowse(labels)
    if reverse:
        return
    for label, _ in zone.servers:
        yield before_apex((label,)), AtServer(label)
    yield before_apex(("dns-version",)), AtVersion()
    for place in (CATALOG, TYPES):
        yield before_apex(owner_labels(place)), place


def _bases(zone: Zone, reverse: str) -> Iterator[bytes]:
    """Where a zone is asked where to browse: below itself, and a reverse zone also below its
    first address, which is what a host asks about its network (RFC 6763, section 11)."""
    yield b""
    if reverse and len(reverse) < FULL[reverse[0]]:
        first = owner_of(reverse.ljust(FULL[reverse[0]], "0"))
        yield to_wire(first.removesuffix(zone.apex))[:-1]


def _bare_names(zone: Zone, nested: Sequence[str], reverse: str) -> Iterator[bytes]:
    """Names without records, the others are above: a zone within is below some."""
    for base in _bases(zone, reverse):
        for first in NOT_BROWSING:
            yield before_apex((first, "_dns-sd", "_udp")) + base
    for apex in nested:
        yield to_wire(apex.removesuffix(zone.apex))[:-1]


def _names_above(found: Sequence[bytes]) -> Iterator[bytes]:
    """*found* and all names above them, but the apex."""
    for name in found:
        while name:
            yield name
            name = name[1 + name[0] :]


def _taken(zone: Zone, nested: Sequence[str]) -> Iterator[str]:
    """Labels that belong to name servers, and to zones within this one."""
    if zone.home:
        return
    yield from (names.fold(label) for label, _ in zone.servers)
    for apex in nested:
        yield names.fold(apex.removesuffix("." + zone.apex).split(".")[-1])


def before_apex(labels: Sequence[str]) -> bytes:
    """*labels* on the wire, without the root."""
    return to_wire(".".join(labels))[:-1]
