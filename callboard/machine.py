"""What this machine has to give: free ports, an address, directories, whole files."""

import errno
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from callboard.failure import Failure
from callboard.plan import LOOPBACK, Options, Place
from registry.runtime.config import HostPort
from registry.runtime.lifecycle import binding_error


def taken_ports(options: Options) -> list[str]:
    """Why the parts could not listen where they are to, a line each; empty when they can."""
    wanted = (
        ("--dns", options.dns, (socket.SOCK_STREAM, socket.SOCK_DGRAM)),
        ("--registrar", options.registrar, (socket.SOCK_STREAM,)),
        ("--gateway", options.gateway, (socket.SOCK_STREAM,)),
    )
    problems = []
    for option, address, kinds in wanted:
        for kind in kinds:
            error = _bind_error(address, kind)
            if error is not None and not _is_missing_ipv6(address, error):
                problems.append(str(binding_error(error, address, option)))
                break
    return problems


def _bind_error(address: HostPort, kind: socket.SocketKind) -> OSError | None:
    """What binding *address* ends with, tried and undone."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, kind) as sock:
            if kind == socket.SOCK_STREAM:
                # As servers do: connections of one that has just ended do not count.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
    except OSError as error:
        return error
    return None


def _is_missing_ipv6(address: HostPort, error: OSError) -> bool:
    """Whether only IPv6 is not to be had, which the parts do without at `::`."""
    return address.host == "::" and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def with_free_admin(place: Place) -> Place:
    """*place* with its usual admin port, or any when somebody has that one."""
    if place.admin is None or _bind_error(place.admin, socket.SOCK_STREAM) is None:
        return place
    return Place(place.listen, HostPort(place.admin.host, 0))


def address_of_this_machine() -> str:
    """An address under which others reach this machine; loopback when it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # Connecting a datagram socket sends nothing; it only chooses a route (RFC 5737 net).
            sock.connect(("192.0.2.1", 9))
            return str(sock.getsockname()[0])
        except OSError:
            return LOOPBACK


def write_at_one_stroke(file: Path, text: str) -> None:
    """*file* never holds less than a whole text."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(file)


def make_way_for(file: Path) -> None:
    """Remove what an earlier run left there; a Failure when *file* could not be written later."""
    try:
        write_at_one_stroke(file, "")
        file.unlink()
    except OSError as error:
        raise Failure(f"{file} (--ready-file): {error.strerror}") from error


def run_directory(environ: Mapping[str, str]) -> Path:
    """A new private directory for the socket, whose path must be short."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # Under sudo it may be another user's.
    base = runtime if os.access(runtime, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="callboard-", dir=base))
