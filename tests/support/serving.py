"""A dnsd process on loopback, over a real store that holds what a test gave it."""

import asyncio
import functools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
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
        return serial_of(self.address, self.zone)


def serial_of(server: HostPort, zone: str) -> int:
    """The serial of *zone* at *server*; -1 while it does not answer for it."""
    question = dns.message.make_query(zone, dns.rdatatype.SOA)
    try:
        answer = dns.query.udp(question, server.host, 0.5, server.port)
    except (OSError, dns.exception.Timeout):
        return -1
    return int(answer.answer[0][0].serial) if answer.answer else -1


@contextmanager
def serving(
    directory: Path,
    zone: str,
    registrations: Iterable[Registration],
    *options: str,
    draining: Iterable[Registration] = (),
    gone: Iterable[Registration] = (),
) -> Iterator[Serving]:
    """A dnsd that answers from *registrations*, with its store.

    Those *draining* are registered too, and those that are *gone* have left again.
    """
    with StoreServer() as store, ExitStack() as stack:
        revision = asyncio.run(_fill(store.url, zone, registrations, draining, gone))
        stack.enter_context(_sweeping(store.url, zone))
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


async def _fill(
    url: str,
    zone: str,
    registrations: Iterable[Registration],
    draining: Iterable[Registration],
    gone: Iterable[Registration],
) -> int:
    """Register them all; the revision of the last, which is one that stays."""
    store = RedisStore(url, zone)
    try:
        for registration in gone:
            await store.register(registration, lease_id="l")
            await store.deregister(registration.key)
        for registration in draining:
            await store.register(registration, lease_id="l")
            await store.set_state(registration.key, "draining", "", expected=None)
        granted = [await store.register(r, lease_id="l") for r in registrations]
        return granted[-1].instance.revision
    finally:
        await store.close()


@contextmanager
def _sweeping(url: str, zone: str) -> Iterator[None]:
    """Do each second what a registrar does, so that dnsd knows its store to be current."""
    ended = threading.Event()

    async def sweep() -> None:
        store = RedisStore(url, zone)
        try:
            while not await asyncio.to_thread(ended.wait, 1.0):
                await store.sweep()
        finally:
            await store.close()

    thread = threading.Thread(target=lambda: asyncio.run(sweep()))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _is_here(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
