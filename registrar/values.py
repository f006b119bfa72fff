"""Single values of a request: from JSON to what we keep, or ValueError with what would be right."""

from typing import Final, NamedTuple

from registrar import endpoints
from registry import names

SCHEME_PORTS: Final = {"http": 80, "https": 443}


class Endpoint(NamedTuple):
    """What an endpoint URL says; exactly one of *host* and *address* is not empty."""

    scheme: str
    host: str
    address: str
    port: int


def parse_endpoint(value: object) -> Endpoint:
    """`http://vertice-nmap:8047/` in its parts; ValueError says what would be right."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text, such as http://10.0.0.7:8080")
    scheme, colon, rest = value.partition("://")
    scheme = lowered(scheme)
    if not colon or scheme not in SCHEME_PORTS:
        raise ValueError(
            f"{shown(value)} is not http://HOST:PORT or https://HOST:PORT;"
            " for another protocol give address or host, and ports"
        )
    where = rest.removesuffix("/")
    if where != where.strip() or any(c in where for c in "/?#@\\"):
        raise ValueError(
            f"{shown(value)} has more than a host and a port;"
            " a health path goes into health_endpoint"
        )
    text, port = _split_port(where, SCHEME_PORTS[scheme])
    host, address = _host_or_address(text)
    return Endpoint(scheme, host, address, port)


def _split_port(where: str, default: int) -> tuple[str, int]:
    if where.startswith("["):
        host, bracket, rest = where[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{shown(where)} is not [IPV6]:PORT")
        digits = rest[1:] if rest else str(default)
    else:
        host, colon, digits = where.partition(":")
        digits = digits if colon else str(default)
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= 5
    if not is_number or not 1 <= int(digits) <= 65535:
        raise ValueError(f"port {shown(digits)} is not a whole number in 1..65535")
    return host, int(digits)


def _host_or_address(text: str) -> tuple[str, str]:
    """(host, "") or ("", address in canonical form)."""
    address = endpoints.canonical_address(text)
    if address is not None:
        return "", address
    host = lowered(text).removesuffix(".")
    problem = names.problem_of_host(host)
    if problem is not None:
        raise ValueError(problem)
    return host, ""


def host_of(value: object) -> tuple[str, str]:
    """A host name as (name, ""), or an address that came in its place as ("", address)."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text")
    return _host_or_address(value)


def addresses_of(value: object) -> tuple[str, ...]:
    """One address or a list of them, in canonical form, each once."""
    items = value if isinstance(value, list) else [value]
    found: list[str] = []
    for item in items:
        address = endpoints.canonical_address(item) if isinstance(item, str) else None
        if address is None:
            raise ValueError(f"{shown(item)} is not an IPv4 or IPv6 address")
        found.append(address)
    return tuple(dict.fromkeys(found))


def port_of(value: object) -> tuple[int, str]:
    """(number, protocol) of `8080` or `{"port": 4000, "protocol": "udp"}`."""
    if isinstance(value, dict):
        if unknown := sorted(value.keys() - {"port", "protocol"}):
            raise ValueError(f"unknown field {unknown[0][:40]!r}; port and protocol are known")
        protocol = value.get("protocol", "tcp")
        if protocol not in ("tcp", "udp"):
            raise ValueError(f"protocol {shown(protocol)} is not tcp or udp")
        return whole(value.get("port")), protocol
    return whole(value), "tcp"


def whole(value: object) -> int:
    """A whole number, in whichever way JSON spells it; not text, and not true or false."""
    if isinstance(value, float) and value.is_integer():
        # JSON has one kind of number: 60.0 is what some writers make of 60.
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{shown(value)} is not a whole number")
    return value


def scalar(value: object) -> str:
    """The text of metadata: numbers and booleans become text as JSON writes them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"{shown(value)} is not text, a number, true or false")


def lowered(text: str) -> str:
    """*text* in lower case if it is ASCII, else as it is (and no name then)."""
    # Only ASCII: the Kelvin sign's lower case is a plain k.
    return text.lower() if text.isascii() else text


def shown(value: object) -> str:
    """*value* as a message names it: short, and on one line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)[:80]
