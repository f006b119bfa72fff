"""A dnsd process on loopback, over a real store that holds what a test gave it."""

import asyncio
import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from registry.model import Registration
from registry.runtime.config import HostPort
from registry.runtime.process import die_with
from registry.store import RedisStore
from tests.support.store import StoreServer, free_port

START_SECONDS = 20.0
"""Bound of a start on a machine with all its cores taken."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Where it is: the same port at an IPv4 and, where this machine has it, an IPv6 address."""

    addresses: tuple[HostPort, ...]
    store: str
    zone: str

    @property
    def address(self) -> HostPort:
        return self.addresses[0]

    def serial(self) -> int:
        """The zone's serial; -1 while it does not answer."""
        question = dns.message.make_query(self.zone, dns.rdatatype.SOA)
        try:
            answer = dns.query.udp(question, self.address.host, 0.5, self.address.port)
        except (OSError, dns.exception.Timeout):
            return -1
        return int(answer.answer[0][0].serial) if answer.answer else -1


@contextmanager
def serving(
    directory: Path, zone: str, registrations: Iterable[Registration], *options: str
) -> Iterator[Serving]:
    """A dnsd that answers from *registrations*, with its store."""
    with StoreServer() as store:
        revision = asyncio.run(_fill(store.url, zone, registrations))
        port = free_port()
        addresses = tuple(HostPort(host, port) for host in ("127.0.0.1", "::1") if _is_here(host))
        with (directory / "dnsd.log").open("w+b") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "dnsd", "--redis", store.url, "--zone", zone),
                    *("--listen", ",".join(map(str, addresses)), "--admin", "127.0.0.1:0"),
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=functools.partial(die_with, os.getpid()),
            )
        try:
            found = Serving(addresses, store.url, zone)
            end = time.monotonic() + START_SECONDS
            while found.serial() != revision & 0xFFFFFFFF:
                said = (directory / "dnsd.log").read_text(errors="replace")
                assert process.poll() is None, said
                assert time.monotonic() < end, said
                time.sleep(0.02)
            yield found
        finally:
            process.terminate()
            process.wait()


async def _fill(url: str, zone: str, registrations: Iterable[Registration]) -> int:
    """Register them all; the revision of the last."""
    store = RedisStore(url, zone)
    try:
        granted = [
            await store.register(registration, lease_id="l") for registration in registrations
        ]
        return granted[-1].instance.revision
    finally:
        await store.close()


def _is_here(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
