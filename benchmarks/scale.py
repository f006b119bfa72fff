"""A hundred thousand instances: held by two registrars, and served again after a cold start.

python -m benchmarks.scale [--instances 100000] [--seconds 30]

Services of five instances each.  Heartbeats come at the pace of a 30 s interval, in lists of ten
(as sidecars with several services send them) and one by one.  Then store, registrars and dnsd are
killed, all are started at once, and DNS is asked until every service of a sample is whole.
"""

import argparse
import asyncio
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dnslib import QTYPE, DNSRecord

from benchmarks.asking import question
from benchmarks.chaos.world import ZONE, Part, World
from benchmarks.loading import pace, post, shuffled
from registry.leases import Renewal
from registry.model import Port, Registration
from registry.runtime import http
from registry.store import RedisStore

A_SERVICE, A_LIST = 5, 10
INTERVAL, LEASE = 30, 72
"""Seconds between heartbeats, and the lease of which that is 5/12."""

GOAL_P99, GOAL_COLD = 0.010, 10.0
WRITERS = 16
SAMPLE = 500


def main() -> int:
    """Run it; exit status 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=100_000, metavar="N")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S")
    options = parser.parse_args()
    return asyncio.run(run(options.instances, options.seconds))


async def run(instances: int, seconds: float) -> int:
    async with World(lease=LEASE, registrars=2, fsync="everysec", relayed=False) as world:
        began = time.monotonic()
        await fill(world, instances)
        print(f"{instances} registered in {time.monotonic() - began:.1f} s", flush=True)
        ports = [registrar.port for registrar in world.registrars]
        good = True
        beats = [{"service_name": s, "instance_id": i} for s, i in names(instances)]
        lists = [post("/heartbeat", beats[n : n + A_LIST]) for n in range(0, len(beats), A_LIST)]
        single = [post("/heartbeat", beat) for beat in beats]
        rate = instances / INTERVAL
        for kind, requests, pace_of in (
            (f"lists of {A_LIST}", lists, rate / A_LIST),
            ("one by one", single, rate),
        ):
            figures = await pace(ports, shuffled(requests), pace_of, seconds)
            good &= figures.statuses.keys() == {200}
            good &= sorted(figures.seconds)[int(len(figures.seconds) * 0.99)] <= GOAL_P99
            print(f"{rate:.0f} heartbeats/s, {kind}: {figures}", flush=True)
        print(memory(world), flush=True)
        good &= await cold(world, instances)
    return 0 if good else 1


def names(instances: int) -> Iterator[tuple[str, str]]:
    return ((f"s{n // A_SERVICE}", f"i{n}") for n in range(instances))


async def fill(world: World, instances: int) -> None:
    """Register them in the store itself: that is not what is measured."""
    store = RedisStore(world.store.url, ZONE)
    todo = iter(list(enumerate(names(instances))))

    async def write() -> None:
        for n, (service, instance) in todo:
            address = f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
            registration = Registration(
                service, instance, (Port("http", 8080),), (address,), lease_ttl=LEASE, record_ttl=5
            )
            await store.register(registration, lease_id=f"l{n}")

    renewing = asyncio.create_task(renew_for_ever(store, instances))
    await asyncio.gather(*(write() for _ in range(WRITERS)))
    await until_listed(world, instances)
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    await store.close()


async def renew_for_ever(store: RedisStore, instances: int) -> None:
    """Whoever came first must still be there when the last has come."""
    wishes = [Renewal(f"{service}/{instance}") for service, instance in names(instances)]
    while True:
        await asyncio.sleep(LEASE / 4)
        await store.renew(wishes)


async def until_listed(world: World, instances: int) -> None:
    """Wait until registrars have it all, and nobody is busy with it any more."""
    for url in world.urls:
        while True:
            answer = await http.request("GET", url + "/health", timeout=10.0)
            if answer.json()["instances"] == instances:
                break
            await asyncio.sleep(0.2)
    await asyncio.sleep(3.0)


def memory(world: World) -> str:
    """PSS of each, in MB."""
    parts = {"store": world.store.pid, "dnsd": world.dnsd.pid}
    parts |= {f"registrar {n}": r.pid for n, r in enumerate(world.registrars)}
    shown = ", ".join(f"{name} {pss(pid):.0f} MB" for name, pid in parts.items())
    return f"memory (PSS, dnsd's supervisor and worker together): {shown}"


def pss(pid: int) -> float:
    """MB of *pid* and its children."""
    family = [pid]
    for one in family:
        for task in Path(f"/proc/{one}/task").iterdir():
            family += [int(child) for child in (task / "children").read_text().split()]
    total = 0
    for one in family:
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


async def cold(world: World, instances: int) -> bool:
    """Kill everything, start everything; whether all is served in time."""
    for part in (*world.registrars, world.dnsd):
        part.kill()
    world.store.kill()
    ready: dict[str, float] = {}

    async def start(part: Part, name: str) -> None:
        await asyncio.to_thread(part.start)
        ready[name] = time.monotonic()

    starting = [
        asyncio.create_task(start(part, name))
        for name, part in (
            ("registrar 0", world.registrars[0]),
            ("registrar 1", world.registrars[1]),
            ("dnsd", world.dnsd),
        )
    ]
    began = time.monotonic()
    await asyncio.to_thread(world.store.start)
    up = time.monotonic()
    await asyncio.gather(*starting)
    whole = await asyncio.to_thread(until_whole, world.dnsd.port, instances)
    took = whole - up
    print(
        f"cold start: store up after {up - began:.1f} s; all {instances} served {took:.1f} s"
        f" after that (processes listened at {max(ready.values()) - up:+.1f} s)",
        flush=True,
    )
    return took <= GOAL_COLD


def until_whole(port: int, instances: int) -> float:
    """When a sample of services, the last ones among them, was answered in full."""
    services = instances // A_SERVICE
    sample: Sequence[int] = sorted({*range(0, services, max(1, services // SAMPLE)), services - 1})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.1", port))
        asker.settimeout(0.5)
        todo = list(sample)
        while todo:
            asker.send(question(f"_http._tcp.s{todo[-1]}.{ZONE}", "SRV"))
            try:
                reply = DNSRecord.parse(asker.recv(65535))
            except (TimeoutError, OSError):
                continue
            if sum(rr.rtype == QTYPE.SRV for rr in reply.rr) == A_SERVICE:
                todo.pop()
            else:
                time.sleep(0.05)
    return time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
