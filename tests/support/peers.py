"""Knot and NSD, as secondaries of a dnsd on loopback."""

import functools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from registry.runtime.config import HostPort
from registry.runtime.process import die_with
from tests.support.lab import program
from tests.support.serving import START_SECONDS, Serving, serial_of
from tests.support.store import free_port

KEY, SECRET = "transfer.", "c2VjcmV0LW9mLXRoZS10ZXN0cy1vZi10cmFuc2ZlcnM="

KEYS_FILE = f"""
[[key]]
name = "{KEY}"
secret = "{SECRET}"
"""
"""What dnsd's `--tsig-keys` names."""

KNOT = """
server:
    listen: 127.0.0.1@{port}
    rundir: "{directory}"
log:
  - target: stderr
    any: info
database:
    storage: "{directory}"
key:
  - id: {key}
    algorithm: hmac-sha256
    secret: {secret}
remote:
  - id: dnsd
    address: {host}@{master}
    key: {key}
template:
  - id: default
    storage: "{directory}"
    zonefile-load: none
    zonefile-sync: -1
zone:
  - domain: {zone}
    master: dnsd
"""

NSD = """
server:
    ip-address: 127.0.0.1@{port}
    username: ""
    database: ""
    zonesdir: "{directory}"
    pidfile: ""
    logfile: "{directory}/log"
    xfrdfile: "{directory}/xfrd.state"
    xfrdir: "{directory}"
    zonelistfile: "{directory}/zone.list"
    # The questions of a test all come from one address.
    rrl-ratelimit: 0
remote-control:
    control-enable: no
key:
    name: {key}
    algorithm: hmac-sha256
    secret: "{secret}"
zone:
    name: {zone}
    zonefile: zone
    request-xfr: {host}@{master} {key}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A name server by somebody else: its name, program, configuration and options."""

    name: str
    program: str
    configuration: str
    options: tuple[str, ...]


PEERS = (
    Peer("knot", "knotd", KNOT, ("-c",)),
    Peer("nsd", "nsd", NSD, ("-d", "-c")),
)


@contextmanager
def secondary(peer: Peer, dnsd: Serving, directory: Path) -> Iterator[HostPort]:
    """Where *peer* answers, once it has transferred the zone of *dnsd*."""
    port = free_port()
    configuration = directory / f"{peer.name}.conf"
    configuration.write_text(
        peer.configuration.format(
            port=port,
            directory=directory,
            key=KEY,
            secret=SECRET,
            host=dnsd.address.host,
            master=dnsd.address.port,
            zone=dnsd.zone,
        )
    )
    said = directory / f"{peer.name}.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [program(peer.program), *peer.options, str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=functools.partial(die_with, os.getpid()),
        )
    here = HostPort("127.0.0.1", port)
    try:
        end = time.monotonic() + START_SECONDS
        while serial_of(here, dnsd.zone) != dnsd.serial():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.05)
        yield here
    finally:
        process.terminate()
        process.wait()
