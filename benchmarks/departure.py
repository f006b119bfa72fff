"""How long an instance that ended is still answered: stopped, killed, and killed with its sidecar.

python -m benchmarks.departure [--lease-ttl 60]

Starts the demo on free ports and does one thing to each of the three instances of
nmap_service, which have a sidecar each:

- its sidecar gets SIGTERM: it deregisters;
- the service gets SIGKILL: the sidecar finds it dead and takes it out;
- both get SIGKILL: nobody says anything, and the lease runs out.
"""

import argparse
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dnslib import DNSRecord

from benchmarks import stack
from benchmarks.asking import Asker, label, question

SERVICE = "nmap-service"
INSTANCES = 3

BEFORE = 12.0
"""Seconds of quiet before the first: each sidecar has then probed its service a few times."""

ASK_EVERY = 0.01
"""Seconds between two questions; the resolution of what is measured."""

GRACE = 30.0
"""Seconds beyond the lease after which an instance that is still answered counts as stuck."""


@dataclass(frozen=True, slots=True)
class Victim:
    """An instance: its label in DNS, and the processes that are it and its sidecar."""

    label: str
    service: int
    sidecar: int


@dataclass(frozen=True, slots=True)
class Case:
    """What is done to an instance."""

    what: str
    to_service: int | None
    to_sidecar: int | None


CASES = (
    Case("sidecar stopped (SIGTERM)", None, signal.SIGTERM),
    Case("service killed, sidecar alive", signal.SIGKILL, None),
    Case("service and sidecar killed", signal.SIGKILL, signal.SIGKILL),
)


def main() -> int:
    """Run it; exit status 1 when an instance does not leave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lease-ttl", type=int, default=60, metavar="SECONDS")
    options = parser.parse_args()
    lease = str(options.lease_ttl)
    try:
        with (
            stack.started("--demo", "--lease-ttl", lease) as running,
            Asker(running.dns) as asker,
        ):
            owner = f"_http._tcp.{SERVICE}.{running.zone}"
            time.sleep(BEFORE)
            victims = [victim(running, *place) for place in places(asker, owner)]
            if len(victims) != INSTANCES:
                raise stack.NotReady(f"{SERVICE} has {len(victims)} instances, not {INSTANCES}")
            print(f"lease {lease} s; until the instance is no longer in the answer for {owner}")
            for case, instance in zip(CASES, victims, strict=True):
                strike(case, instance)
                seconds = until_gone(asker, owner, instance, options.lease_ttl + GRACE)
                print(f"{case.what:32} {seconds:8.2f} s", flush=True)
    except (stack.NotReady, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def places(asker: Asker, owner: str) -> list[tuple[str, str, int]]:
    """Label, address and port of each instance in the SRV answer, by label."""
    reply = DNSRecord.parse(asker.ask(question(owner, "SRV")))
    addresses = {str(rr.rname): str(rr.rdata) for rr in reply.ar}
    found = [(str(rr.rdata.target), int(rr.rdata.port)) for rr in reply.rr]
    return sorted((t.split(".")[0], addresses[t], port) for t, port in found)


def victim(running: stack.Stack, name: str, address: str, port: int) -> Victim:
    """The processes behind an instance; NotReady when one is not found."""
    below = stack.descendants(running.up)
    # A socket that was forked with belongs to parent and child; the youngest serves it.
    listening = [pid for pid in below if listener(address, port) & sockets_of(pid)]
    sidecars = [pid for pid in running.pids["sidecar"] if serves(pid, address, port)]
    if not listening or not sidecars:
        raise stack.NotReady(f"no process of {name} at {address}:{port}, or none of its sidecar")
    return Victim(name, listening[-1], sidecars[0])


def listener(address: str, port: int) -> set[str]:
    """The inode of the TCP socket that listens there (IPv4)."""
    # The kernel writes the address as one number in its own byte order, in hexadecimal.
    number = struct.unpack("=I", socket.inet_aton(address))[0]
    local = f"{number:08X}:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {words[9] for words in rows if words[1] == local and words[3] == "0A"}


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that *pid* has open."""
    found: set[str] = set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found |= set(re.findall(r"^socket:\[(\d+)\]$", os.readlink(entry.path)))
    return found


def serves(pid: int, address: str, port: int) -> bool:
    """Whether *pid* is the sidecar of the service there, by its environment."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    wanted: Sequence[str] = (f"SERVICE_HOST={address}", f"SERVICE_PORT={port}")
    return all(entry.encode() in environment for entry in wanted)


def strike(case: Case, instance: Victim) -> None:
    """Do to an instance what the case says, the sidecar first: it must not see the service die."""
    if case.to_sidecar is not None:
        os.kill(instance.sidecar, case.to_sidecar)
    if case.to_service is not None:
        os.kill(instance.service, case.to_service)


def until_gone(asker: Asker, owner: str, instance: Victim, seconds: float) -> float:
    """Seconds until the answer is without the instance; NotReady when that takes too long."""
    began, target, packet = time.monotonic(), label(instance.label), question(owner, "SRV")
    while target in asker.ask(packet):
        if time.monotonic() - began > seconds:
            raise stack.NotReady(f"{instance.label} is still answered after {seconds:g} s")
        time.sleep(ASK_EVERY)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
