"""The rules for names, and the DNS names that follow from them.

A service or instance is *matched* by its folded form (lower case, `_` as `-`)
and *listed* as it was first registered.  Names that Callboard gives (targets,
PTR, `names`) are always in the folded form, because Java and Kubernetes refuse
host names with underscores.  Nothing here knows registrations.
"""

import ipaddress
import string

MAX_LABEL = 63
"""Octets in one label (RFC 1035, section 2.3.4)."""

MAX_NAME = 253
"""Characters of a name written without its final dot: 255 octets on the wire."""

RESERVED_SERVICES = frozenset(
    "service tag version zone state prefer catalog ns1 explain dns-version".split()
)
"""Labels with a meaning of their own below the zone (selectors, catalog, name server)."""

MAX_PORT_NAME = 15
"""RFC 6335, section 5.1: so every port name is a DNS-SD type too."""

_LETTERS_DIGITS = frozenset(string.ascii_lowercase + string.digits)
_SERVICE_CHARS = _LETTERS_DIGITS | frozenset("-_")
_PORT_CHARS = _LETTERS_DIGITS | frozenset("-")
_LOCALITY_CHARS = frozenset(string.ascii_letters + string.digits + "._-")

SERVICE_RULE = (
    "1 to 63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit"
    " (no dots; upper case is folded)"
)
PORT_RULE = (
    "1 to 15 of a-z, 0-9 and '-', with at least one letter,"
    " no '-' at either end and no two together (RFC 6335)"
)
LOCALITY_RULE = "1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'"


def fold(name: str) -> str:
    """The form under which *name* is matched: `NMAP_Service` and `nmap-service` are one."""
    return name.lower().replace("_", "-")


def problem_of_service(name: str) -> str | None:
    """Why *name* (already lower case) cannot be a service or instance; None when it can."""
    if not 1 <= len(name) <= MAX_LABEL or not _SERVICE_CHARS.issuperset(name):
        return f"{name[:80]!r} is not {SERVICE_RULE}"
    if name[0] not in _LETTERS_DIGITS or name[-1] not in _LETTERS_DIGITS:
        return f"{name!r} is not {SERVICE_RULE}"
    if fold(name) in RESERVED_SERVICES:
        return f"{name!r} is reserved; not one of {', '.join(sorted(RESERVED_SERVICES))}"
    return None


def problem_of_port_name(name: str) -> str | None:
    """Why *name* cannot name a port; None when it can."""
    fits = (
        1 <= len(name) <= MAX_PORT_NAME
        and _PORT_CHARS.issuperset(name)
        and any(c in string.ascii_lowercase for c in name)
        and not name.startswith("-")
        and not name.endswith("-")
        and "--" not in name
    )
    return None if fits else f"{name[:80]!r} is not {PORT_RULE}"


def problem_of_locality(value: str) -> str | None:
    """Why *value* cannot be a zone, version or tag; None when it can."""
    if 1 <= len(value) <= MAX_LABEL and _LOCALITY_CHARS.issuperset(value):
        return None
    return f"{value[:80]!r} is not {LOCALITY_RULE}"


def problem_of_host(name: str) -> str | None:
    """Why *name* cannot be looked up as a host; None when it can.

    Underscores pass: container names have them (`vertice-maximus_eureka`).
    """
    labels = name.removesuffix(".").split(".")
    allowed = _SERVICE_CHARS | frozenset(string.ascii_uppercase)
    if len(name) <= MAX_NAME and all(
        1 <= len(label) <= MAX_LABEL and allowed.issuperset(label) for label in labels
    ):
        return None
    return (
        f"{name[:80]!r} is not a host name: labels of 1 to 63 letters, digits, '-' and '_',"
        f" at most {MAX_NAME} characters in all"
    )


def normal_zone(name: str) -> str:
    """*name* as a zone apex: lower case with a final dot; ValueError says what is wrong."""
    zone = name.strip().lower().removesuffix(".")
    if problem_of_host(zone) is not None:
        raise ValueError(f"{name!r} is not a zone name, such as svc.internal")
    return zone + "."


def default_instance_id(host: str, port: int) -> str:
    """The id of an instance that was registered without one: the same at every start.

    `10.0.0.7`, 8080 → `10-0-0-7-8080`; `vertice-nmap`, 8047 → `vertice-nmap-8047`.
    A host too long for a label keeps its beginning and gets a digest of the whole.
    """
    try:
        text = ipaddress.ip_address(host).exploded
    except ValueError:
        text = host.lower().removesuffix(".")
    label = "".join(c if c in _SERVICE_CHARS else "-" for c in text).strip("-_") or "host"
    suffix = f"-{port}"
    if len(label) + len(suffix) > MAX_LABEL:
        import hashlib  # here, because it loads libcrypto: 3.5 MB that the sidecar does not need

        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        label = label[: MAX_LABEL - len(suffix) - 11] + "-" + digest
    return label + suffix


def service_owner(service: str, zone: str) -> str:
    """`payments` → `payments.svc.internal.`"""
    return f"{fold(service)}.{zone}"


def srv_owner(port: str, protocol: str, service: str, zone: str) -> str:
    """`http`, `tcp`, `payments` → `_http._tcp.payments.svc.internal.`"""
    return f"_{port}._{protocol}.{fold(service)}.{zone}"


def instance_owner(instance: str, service: str, zone: str) -> str:
    """The name that every SRV target is: `pay-1.payments.svc.internal.`"""
    return f"{fold(instance)}.{fold(service)}.{zone}"
