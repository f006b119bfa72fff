"""A dnsd on a real store as the primary of real secondaries: Knot, NSD and BIND."""

import asyncio
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.zone

from registry.keys import keys_of
from registry.model import Registration
from registry.runtime.config import HostPort
from registry.runtime.process import die_with
from registry.store import RedisStore
from tests.support.primary import KEY_NAME, KEYS, SECRET, Record, Ring, keyring, signed_query
from tests.support.store import StoreServer

ZONE = "svc.internal."
START_SECONDS = 20.0
"""Bound of a start, also on a busy machine."""

KNOT = """
server:
    rundir: "{dir}"
    user: {user}
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{dir}"
log:
  - target: stderr
    any: info
key:
  - id: {key}
    algorithm: hmac-sha256
    secret: {secret}
remote:
  - id: primary
    address: 127.0.0.1@{primary}
    key: {key}
acl:
  - id: told
    address: 127.0.0.1
    key: {key}
    action: notify
  - id: read
    address: 127.0.0.1
    action: transfer
zone:
  - domain: {zone}
    storage: "{dir}"
    zonefile-sync: -1
    master: primary
    acl: [told, read]
"""

NSD = """
server:
    server-count: 1
    ip-address: 127.0.0.1
    port: {port}
    do-ip6: no
    username: ""
    chroot: ""
    zonesdir: "{dir}"
    database: ""
    pidfile: "{dir}/nsd.pid"
    xfrdfile: "{dir}/xfrd.state"
    xfrdir: "{dir}"
    zonelistfile: "{dir}/zone.list"
    verbosity: 1
    rrl-ratelimit: 0
remote-control:
    control-enable: no
key:
    name: "{key}"
    algorithm: hmac-sha256
    secret: "{secret}"
zone:
    name: {zone}
    zonefile: zone
    request-xfr: 127.0.0.1@{primary} {key}
    allow-notify: 127.0.0.1 {key}
    provide-xfr: 127.0.0.1 NOKEY
"""

BIND = """
key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};
options {{
    directory "{dir}";
    pid-file none;
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    notify no;
    session-keyfile "{dir}/session.key";
}};
controls {{ }};
zone "{zone}" {{
    type secondary;
    primaries port {primary} {{ 127.0.0.1 key "{key}"; }};
    allow-notify {{ key "{key}"; }};
    allow-transfer {{ any; }};
    file "zone";
}};
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a secondary is configured and started."""

    name: str
    program: str
    config: str
    options: tuple[str, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> str | None:
        """On PATH, or where Debian puts servers; None where it is not installed."""
        path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"
        return shutil.which(self.program, path=path)


KINDS = (
    Kind("Knot", "knotd", KNOT, ("-c",)),
    Kind("NSD", "nsd", NSD, ("-d", "-c")),
    Kind("BIND", "named", BIND, ("-f", "-n", "1", "-c")),
)


def free_port() -> int:
    """A port that was free for UDP and TCP a moment ago."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                return port


def wait_for(what: Callable[[], object], seconds: float = START_SECONDS, why: str = "") -> None:
    """Return once *what* gives something true; AssertionError after *seconds*."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds:g} s: {why}"
        time.sleep(0.02)


class Process:
    """A server with a directory of its own; its output goes to a file there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._running: subprocess.Popen[bytes] | None = None

    def run(self, *command: str) -> None:
        with self.output.open("ab") as output:
            self._running = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                preexec_fn=functools.partial(die_with, os.getpid()),
            )

    @property
    def output(self) -> Path:
        return self.directory / "output"

    @property
    def said(self) -> str:
        """What it wrote, for a failed test."""
        return self.output.read_text(errors="replace")[-3000:]

    def signal(self, signum: int) -> None:
        assert self._running is not None
        self._running.send_signal(signum)

    def stop(self) -> None:
        if self._running is not None:
            self._running.terminate()
            try:
                self._running.wait(10)
            except subprocess.TimeoutExpired:
                self._running.kill()
                self._running.wait()
            self._running = None


@dataclass(slots=True)
class SecondaryServer:
    """A server that carries the zone of `primary`."""

    kind: Kind
    process: Process
    address: HostPort
    primary: HostPort
    secret: str = SECRET

    def start(self) -> None:
        directory = self.process.directory
        config = directory / "config"
        config.write_text(
            self.kind.config.format(
                dir=directory,
                port=self.address.port,
                primary=self.primary.port,
                zone=ZONE,
                key=KEY_NAME,
                secret=self.secret,
                user="root:root" if os.geteuid() == 0 else str(os.geteuid()),
            )
        )
        self.process.run(self.kind.path or self.kind.program, *self.kind.options, str(config))
        wait_for(lambda: self.ask("SOA") is not None, why=f"{self.kind}: {self.process.said}")

    def ask(self, rtype: str, name: str = ZONE) -> dns.message.Message | None:
        """Its answer; None while it gives none."""
        query = dns.message.make_query(name, rtype)
        with contextlib.suppress(dns.exception.DNSException, OSError):
            return dns.query.udp(query, self.address.host, 1.0, self.address.port)
        return None

    @property
    def serial(self) -> int | None:
        """Of the zone as it has it; None while it has none."""
        reply = self.ask("SOA")
        if reply is None or reply.rcode() != dns.rcode.NOERROR or not reply.answer:
            return None
        serial: int = reply.answer[0][0].serial
        return serial

    def wait_for_serial(self, serial: int, seconds: float) -> None:
        """Until it has the zone as it is at *serial*."""
        end = time.monotonic() + seconds
        while (found := self.serial) != serial:
            late = time.monotonic() > end
            assert not late, f"{self.kind} at {found}, not {serial}: {self.process.said}"
            time.sleep(0.02)


@dataclass(slots=True)
class Yard:
    """A store, a dnsd of two workers, and what follows it."""

    store: StoreServer
    directory: Path
    dnsd: Process
    address: HostPort
    admin: HostPort
    secondaries: list[SecondaryServer] = field(default_factory=list)
    reads: int = 0
    """Transfers that the test itself took of dnsd."""

    def start_dnsd(self) -> None:
        notify = ",".join(f"{s.address}={KEY_NAME}" for s in self.secondaries)
        keys = self.directory / "keys.toml"
        if not keys.exists():
            keys.write_text(KEYS)
        self.dnsd.run(
            *(sys.executable, "-m", "dnsd", "--redis", self.store.url, "--zone", ZONE),
            *("--listen", str(self.address), "--admin", str(self.admin), "--workers", "2"),
            *("--tsig-keys", str(keys), "--notify", notify),
        )
        wait_for(self._is_ready, why=self.dnsd.said)

    def _is_ready(self) -> bool:
        """Both workers: each answers some of several questions."""
        with contextlib.suppress(dns.exception.DNSException, OSError):
            return all(self.serial is not None for _ in range(20))
        return False

    @property
    def revision(self) -> int:
        """Of the store."""
        return int(self.store.command("HGET", keys_of(ZONE).meta, "revision") or 0)

    @property
    def serial(self) -> int | None:
        """What dnsd answers now."""
        query = signed_query(ZONE)
        reply = dns.query.udp(query, self.address.host, 1.0, self.address.port)
        if reply.rcode() != dns.rcode.NOERROR:
            return None
        serial: int = reply.answer[0][0].serial
        return serial

    def register(self, registrations: Iterable[Registration], per_second: float = 0) -> None:
        """One change after the other; with *per_second*, no more of them in a second."""

        async def all_of_them() -> None:
            store = RedisStore(self.store.url, ZONE)
            began = time.monotonic()
            try:
                for n, registration in enumerate(registrations):
                    await store.register(registration, lease_id="test")
                    if per_second:
                        await asyncio.sleep(max(0.0, began + n / per_second - time.monotonic()))
            finally:
                await store.close()

        asyncio.run(all_of_them())

    def deregister(self, key: str) -> None:
        async def one() -> None:
            store = RedisStore(self.store.url, ZONE)
            try:
                await store.deregister(key)
            finally:
                await store.close()

        asyncio.run(one())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over the series that have *labels*."""
        with urlopen(f"http://{self.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.partition("{")[0].partition(" ")[0] == name and all(w in line for w in wanted)
        )

    @property
    def whole_zones(self) -> float:
        """How often a secondary took the zone and not a difference."""
        kinds = ("axfr", "ixfr-whole")
        return sum(self.metric("dnsd_transfers_total", kind=k) for k in kinds) - self.reads

    def wait_until_equal(self, seconds: float = START_SECONDS) -> None:
        """Every secondary has what the store is at, record for record."""
        serial = self.revision % (1 << 32)
        for secondary in self.secondaries:
            secondary.wait_for_serial(serial, seconds)
        wait_for(lambda: self.serial == serial)
        self.reads += 1
        expected = zone_at(self.address, keyring())
        for secondary in self.secondaries:
            assert zone_at(secondary.address) == expected, secondary.kind

    def stop(self) -> None:
        for secondary in self.secondaries:
            secondary.process.stop()
        self.dnsd.stop()


def zone_at(address: HostPort, ring: Ring | None = None) -> tuple[int, set[Record]]:
    """The whole zone as *address* gives it: serial, and every other record."""
    zone = dns.zone.Zone(ZONE, relativize=False)
    query = dns.message.make_query(ZONE, "AXFR")
    if ring is not None:
        query.use_tsig(ring)
    dns.query.inbound_xfr(address.host, zone, query, port=address.port, timeout=10.0)
    soa = zone.get_rdataset(ZONE, "SOA")
    assert soa is not None
    return soa[0].serial, {
        (str(name), int(rdataset.ttl), dns.rdatatype.to_text(rdataset.rdtype), rdata.to_text())
        for name, rdataset in zone.iterate_rdatasets()
        if rdataset.rdtype != dns.rdatatype.SOA
        for rdata in rdataset
    }


async def begin_at(server: StoreServer, revision: int) -> None:
    """Have the store count from *revision* on."""
    store = RedisStore(server.url, ZONE)
    try:
        await store.begin_epoch(0)
    finally:
        await store.close()
    server.command("HSET", keys_of(ZONE).meta, "revision", revision)


@contextlib.contextmanager
def a_yard(directory: Path, registrations: Iterable[Registration], revision: int) -> Iterator[Yard]:
    """All that runs, once every secondary that is installed has the zone."""
    with StoreServer() as store:
        address = HostPort("127.0.0.1", free_port())
        admin = HostPort("127.0.0.1", free_port())
        yard = Yard(store, directory, Process(directory / "dnsd"), address, admin)
        for kind in KINDS:
            if kind.path is not None:
                own = HostPort("127.0.0.1", free_port())
                process = Process(directory / kind.name)
                yard.secondaries.append(SecondaryServer(kind, process, own, address))
        asyncio.run(begin_at(store, revision))
        try:
            yard.register(registrations)
            yard.start_dnsd()
            for secondary in yard.secondaries:
                secondary.start()
            yard.wait_until_equal()
            yield yard
        finally:
            yard.stop()
