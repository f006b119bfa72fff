"""What a request calls a service, and the name that is asked for it.

`payments`, `payments@1.2` (a version), `payments@tag:canary`, `payments@zone:eu-1`, and several of
them with commas: all must hold.  The name in DNS has them as labels before the service:
`1-2.version.eu-1.zone.payments`.
"""

from dataclasses import dataclass
from typing import Final

from registry import names

SELECTORS: Final = ("version", "tag", "zone")
"""In the order in which they stand in a name."""


@dataclass(frozen=True, slots=True)
class Subset:
    """Which instances of a service: those that have all that is said here; all when nothing is."""

    version: str = ""
    tag: str = ""
    zone: str = ""

    def __str__(self) -> str:
        said = ((kind, getattr(self, kind)) for kind in SELECTORS)
        return ",".join(f"{kind}:{value}" for kind, value in said if value)

    def __bool__(self) -> bool:
        return bool(self.version or self.tag or self.zone)

    def and_then(self, other: "Subset") -> "Subset":
        """This one, with what *other* says beside it; *other* wins."""
        return Subset(other.version or self.version, other.tag or self.tag, other.zone or self.zone)


ALL: Final = Subset()


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


def parse_subset(text: str) -> Subset | None:
    """`1.2`, `version:1.2`, `tag:canary,zone:eu-1`; None when it is none of these."""
    chosen: dict[str, str] = {}
    for word in text.split(","):
        kind, colon, value = word.partition(":")
        if not colon:
            kind, value = "version", word
        if kind not in SELECTORS or kind in chosen or not _is_value(value):
            return None
        chosen[kind] = value
    return Subset(**chosen)


def _is_value(text: str) -> bool:
    """Whether *text* can be a version, tag or zone; `..` could be registered, but is no value."""
    return names.problem_of_locality(text) is None and any(c.isalnum() for c in text)


def label(value: str) -> str:
    """A version, tag or zone as one label: `1.2.0` → `1-2-0`, matched as names are."""
    return names.fold(value).replace(".", "-")


def name_of(service: str, subset: Subset = ALL, *, prefer: str = "", port: str = "http") -> str:
    """The name to ask for, below the zone; `_http._tcp.` stands before it unless it says so.

    *prefer* is a zone whose instances come first, unless *subset* names a zone.
    """
    labels = [f"{label(v)}.{kind}." for kind in SELECTORS if (v := getattr(subset, kind))]
    if prefer and not subset.zone:
        labels.append(f"{label(prefer)}.prefer.")
    front = "" if port == "http" else f"_{port}._tcp."
    return front + "".join(labels) + service


def service_in(name: str) -> str:
    """The service that *name*, made by `name_of`, is about."""
    return name.rpartition(".")[2]
