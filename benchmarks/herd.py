"""Ten thousand sidecars that come back at once when the registrars do.

python -m benchmarks.herd [--sidecars 10000] [--outage 75] [--at-once]

Each has one instance and obeys the sidecar's own heartbeat core; a request is a connection of its
own, as the sidecar makes it.  The registrars are away for longer than a lease.  With --at-once
every sidecar tries in the very moment they are back: all had been restarted, say.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.chaos.world import ZONE, World
from benchmarks.loading import Answer, ask_once, post
from benchmarks.stack import percentile
from sidecar.actions import Register, Renew, Wait
from sidecar.heartbeat import Heartbeat
from tests.support.waiting import until

LEASE = 60
BACK_WITHIN = 90.0
TIMEOUT = 5.0
"""Seconds that a sidecar gives one registrar."""

REGISTERING = 50.0
"""Seconds over which they register at first: that is not what is measured."""


@dataclass(slots=True)
class Back:
    """What happened since the registrars came back."""

    since: float = float("inf")
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    no_retry_after: int = 0
    unanswered: int = 0


class Sidecar:
    """One of them: its heartbeat core, and the loop that obeys it."""

    def __init__(self, number: int, ports: list[int], back: Back) -> None:
        self._name = {"service_name": f"s{number // 5}", "instance_id": f"i{number}"}
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        self._registration = post(
            "/register",
            {**self._name, "address": address, "ports": {"http": 8080}, "generation": 1},
        )
        self._rng = random.Random(number)
        self._ports = ports
        self._back = back
        self._heartbeat = Heartbeat(None, self._rng.random)
        self._woken = asyncio.Event()
        self.answered_at = 0.0

    def wake(self) -> None:
        """Try now."""
        self._woken.set()

    async def live(self, delay: float) -> None:
        await asyncio.sleep(delay)
        clock = asyncio.get_running_loop().time
        while True:
            match self._heartbeat.next_action(wanted="serving", now=clock()):
                case Wait(seconds):
                    try:
                        await asyncio.wait_for(self._woken.wait(), seconds)
                        self._woken.clear()
                        if (lease := self._heartbeat.lease) is not None:
                            await self._send(Renew(lease.lease_id, lease.timeout), clock())
                    except TimeoutError:
                        pass
                case Register() as action:
                    await self._send(action, clock())
                case Renew() as action:
                    await self._send(action, clock())
                case _:
                    # It was there before: whether an operator has hidden it is not asked here.
                    self._heartbeat.state_learned("serving", "")

    async def _send(self, action: Register | Renew, sent_at: float) -> None:
        clock = asyncio.get_running_loop().time
        request = self._registration
        if isinstance(action, Renew):
            request = post("/heartbeat", {**self._name, "lease_id": action.lease_id})
        began = time.monotonic()
        try:
            answer = await ask_once(self._rng.choice(self._ports), request, TIMEOUT)
        except (OSError, TimeoutError):
            if began >= self._back.since:
                self._back.unanswered += 1
            self._heartbeat.failed(clock())
            return
        if began >= self._back.since:
            self._count(answer, time.monotonic() - began)
        match answer.status:
            case 200 | 201 if isinstance(action, Register):
                document = json.loads(answer.body)
                self._heartbeat.lease_granted(
                    document["lease_id"],
                    ttl=document["lease_ttl"],
                    interval=document["heartbeat_interval"],
                    sent_at=sent_at,
                )
            case 200:
                self._heartbeat.renewed(sent_at)
            case 404 | 409:
                self._heartbeat.lease_lost(clock())
                return
            case _:
                self._heartbeat.failed(clock(), answer.retry_after)
                return
        self.answered_at = time.monotonic()

    def _count(self, answer: Answer, seconds: float) -> None:
        self._back.statuses[answer.status] += 1
        if answer.status in (200, 201):
            self._back.seconds.append(seconds)
        elif answer.status in (429, 503) and answer.retry_after is None:
            self._back.no_retry_after += 1


def main() -> int:
    """Run it; exit status 1 when somebody was evicted, or not back in time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sidecars", type=int, default=10_000, metavar="N")
    parser.add_argument("--outage", type=float, default=75.0, metavar="SECONDS")
    parser.add_argument("--at-once", action="store_true", help="all try in the same moment")
    options = parser.parse_args()
    return asyncio.run(run(options.sidecars, options.outage, options.at_once))


async def run(count: int, outage: float, at_once: bool) -> int:
    back = Back()
    async with World(lease=LEASE, registrars=2, fsync="everysec", relayed=False) as world:
        ports = [registrar.port for registrar in world.registrars]
        herd = [Sidecar(n, ports, back) for n in range(count)]
        rng = random.Random(1)
        tasks = [asyncio.create_task(s.live(rng.uniform(0, REGISTERING))) for s in herd]
        try:
            await until(lambda: all(s.answered_at for s in herd), seconds=3 * REGISTERING)
            print(f"{count} sidecars registered; registrars away for {outage:.0f} s", flush=True)
            world.kill_registrars()
            await asyncio.sleep(outage)
            await world.start_registrars()
            return await returned(world, herd, back, at_once)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def returned(world: World, herd: list[Sidecar], back: Back, at_once: bool) -> int:
    """Watch them come back; the exit status."""
    back.since = since = time.monotonic()
    if at_once:
        for sidecar in herd:
            sidecar.wake()
    fewest = len(herd)
    while (away := sum(s.answered_at < since for s in herd)) and (
        time.monotonic() - since < BACK_WITHIN + 30
    ):
        held = world.store.command("HLEN", f"sd:{{{ZONE}}}:instances")
        fewest = min(fewest, held)
        await asyncio.sleep(0.25)
    took = time.monotonic() - since
    missing = f", {away} not back" if away else ""
    print(f"all back {took:.1f} s after the registrars{missing}; {len(herd) - fewest} evicted")
    print(f"statuses {dict(back.statuses)}, {back.unanswered} unanswered", end="; ")
    print(f"{back.no_retry_after} refusals without Retry-After")
    if back.seconds:
        p50, p99 = (percentile(back.seconds, share) * 1e3 for share in (0.5, 0.99))
        print(f"accepted requests, connecting included: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    good = not away and took <= BACK_WITHIN and fewest == len(herd) and not back.no_retry_after
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
