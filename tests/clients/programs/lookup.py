"""Looks up a name in Python: `lookup.py socket|dnspython|c-ares NAME [TYPE]`; prints one a line.

`socket` asks the C library, for addresses alone; `c-ares` is the library that curl, Envoy and
gRPC use, with its own defaults.
"""

import importlib
import socket
import sys
import threading
from typing import Any

import dns.exception
import dns.resolver


def by_c_library(name: str, rtype: str) -> list[str]:
    """Addresses, by getaddrinfo."""
    assert rtype == "A", rtype
    return [str(where[0]) for *_, where in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


def by_dnspython(name: str, rtype: str) -> list[str]:
    """Records, by a resolver that is Python throughout."""
    return [rdata.to_text() for rdata in dns.resolver.resolve(name, rtype)]


def by_c_ares(name: str, rtype: str) -> list[str]:
    """Records, by c-ares."""
    pycares: Any = importlib.import_module("pycares")
    done = threading.Event()
    found: list[Any] = []

    def keep(result: Any, error: int | None) -> None:
        found.extend((result, error))
        done.set()

    channel = pycares.Channel()
    channel.query(name, getattr(pycares, f"QUERY_TYPE_{rtype}"), callback=keep)
    if not done.wait(15):
        raise OSError("no answer")
    result, error = found
    if error is not None:
        raise OSError(pycares.errno.strerror(error))
    return [text_of(record.data) for record in result.answer]


def text_of(data: Any) -> str:
    """An A or SRV record of pycares as others print it."""
    if hasattr(data, "addr"):
        return str(data.addr)
    return f"{data.priority} {data.weight} {data.port} {data.target}"


def main(how: str, name: str, rtype: str = "A") -> str:
    """What to print."""
    look_up = {"socket": by_c_library, "dnspython": by_dnspython, "c-ares": by_c_ares}[how]
    try:
        return "\n".join(look_up(name, rtype)) + "\n"
    except (OSError, dns.exception.DNSException) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.stdout.write(main(*sys.argv[1:]))
