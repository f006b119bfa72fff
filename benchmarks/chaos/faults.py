"""Each fault, the promise that must hold through it, and what was measured.

A fault is a coroutine that takes a `Scale` and gives a `Verdict`.  The program runs `ALL` of them;
those that are over soon run among the tests too, with few instances and short leases.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.chaos.fleet import Fleet, Instance, Prober
from benchmarks.chaos.world import CONTINUE, STOP, ZONE, World
from registry.lease import GRACE_MS, OUTAGE_HOLD_MS
from tests.support.store import StoreServer
from tests.support.waiting import until

GRACE = GRACE_MS / 1000
OUTAGE_HOLD = OUTAGE_HOLD_MS / 1000

SLACK = 6.0
"""Seconds beyond max(lease, 70 s) until the dead have left after an outage: grace and a sweep."""

SWEEP = 1.0
"""Seconds between two sweeps."""

PROBING = 0.5
"""Seconds by which what the prober sees is late: it asks for the dead ten times a second."""

READ = "(read)"
"""Stands for a list among the names of writes."""

RELIEF = 2.0
"""Seconds after which writes are taken again once the store has room."""

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""Debian's libfaketime, where it is installed."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of it: instances, their lease, how long an outage lasts, how many die in it."""

    instances: int = 100
    lease: int = 60
    outage: float = 90.0
    deaths: int = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out; `kept` tells whether the promise was."""

    fault: str
    promise: str
    measured: str
    kept: bool


class Skipped(Exception):
    """The fault cannot be injected here; the argument says why."""


Fault = Callable[[Scale], Awaitable[Verdict]]


@contextlib.asynccontextmanager
async def living(scale: Scale, **options: Any) -> AsyncIterator[tuple[World, Fleet]]:
    """A world with a registered fleet in it, and a prober that asks all the while."""
    async with (
        World(lease=scale.lease, **options) as world,
        Fleet(world.urls, scale.instances, scale.lease) as fleet,
    ):
        await fleet.registered()
        await caught_up(world, fleet)
        async with Prober(fleet, world.dnsd.port):
            await asyncio.sleep(1.0)
            yield world, fleet


async def caught_up(world: World, fleet: Fleet) -> None:
    """Wait until the registrars list every instance: dnsd is told by the same feed."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        for url in world.urls:
            while True:
                async with session.get(url + "/health") as answer:
                    if (await answer.json())["instances"] >= len(fleet.instances):
                        break
                await asyncio.sleep(0.1)


def nobody_left(fleet: Fleet, fault: str, more: str = "", *, kept: bool = True) -> Verdict:
    """0 living instances missing from any answer, 0 empty answers."""
    seen = fleet.seen
    measured = (
        f"{len(seen.missing)} of {len(fleet.instances)} missed, {len(seen.empty)} empty answers"
        f" among {seen.asked}{more}"
    )
    return Verdict(
        fault,
        "no living instance leaves DNS",
        measured,
        kept and not seen.missing and not seen.empty,
    )


async def gone(dead: list[Instance], within: float) -> None:
    """Wait until the prober misses them all, at most *within* seconds."""
    with contextlib.suppress(AssertionError):
        await until(lambda: all(i.gone_at for i in dead), seconds=max(0.0, within))


async def dead_leave(dead: list[Instance], since: float, bound: float) -> tuple[str, bool]:
    """When the last of them left, counted from *since*; and whether that is within *bound*."""
    await gone(dead, since + bound + 10 - time.monotonic())
    stayed = [i for i in dead if not i.gone_at]
    if stayed:
        return f"; {len(stayed)} dead still answered", False
    last = max((i.gone_at for i in dead), default=since) - since
    return f"; the dead left {last:.1f} s after it (bound {bound:.0f} s)", last <= bound + PROBING


def bound_after_outage(lease: int) -> float:
    return max(lease, OUTAGE_HOLD) + SLACK


# --- the ordinary end ----------------------------------------------------------------------------


async def crash(scale: Scale) -> Verdict:
    """Instances end without a word while nothing else is wrong."""
    async with living(scale) as (_, fleet):
        await asyncio.sleep(SWEEP)
        dead = fleet.die(scale.deaths)
        await gone(dead, scale.lease + GRACE + SWEEP + 10)
        late = [i.gone_at - (i.acked_at + scale.lease + GRACE) for i in dead if i.gone_at]
        kept = len(late) == len(dead) and min(late) >= -PROBING and max(late) <= SWEEP + PROBING
        measured = (
            f"left {min(late):+.2f} to {max(late):+.2f} s after it"
            if late
            else f"{len(dead)} still answered"
        )
        verdict = nobody_left(fleet, "instances killed")
        return Verdict(
            verdict.fault,
            f"leaves at last renewal + lease + {GRACE:.0f} s, at most {SWEEP:.0f} s later",
            f"{measured}; {verdict.measured}",
            kept and verdict.kept,
        )


# --- registrars ----------------------------------------------------------------------------------


async def registrar_killed(scale: Scale) -> Verdict:
    async with living(scale) as (world, fleet):
        world.registrars[0].kill()
        await asyncio.sleep(min(scale.outage, scale.lease + GRACE + 2))
        return nobody_left(fleet, "kill -9 of one of two registrars")


async def registrars_away(scale: Scale) -> Verdict:
    async with living(scale) as (world, fleet):
        world.kill_registrars()
        dead = fleet.die(scale.deaths)
        await asyncio.sleep(scale.outage)
        await world.start_registrars()
        since = time.monotonic()
        await asyncio.sleep(min(scale.lease, 10.0))
        more, kept = await maybe_dead_leave(scale, dead, since)
        return nobody_left(fleet, f"all registrars away {scale.outage:.0f} s", more, kept=kept)


async def maybe_dead_leave(scale: Scale, dead: list[Instance], since: float) -> tuple[str, bool]:
    """For who has the time: with no deaths asked for there is nothing to wait for."""
    if not dead:
        return "", True
    return await dead_leave(dead, since, bound_after_outage(scale.lease))


async def registrars_paused(scale: Scale) -> Verdict:
    async with living(scale) as (world, fleet):
        world.signal_registrars(STOP)
        await asyncio.sleep(scale.outage)
        world.signal_registrars(CONTINUE)
        await asyncio.sleep(min(scale.lease, 10.0))
        return nobody_left(fleet, f"SIGSTOP of all registrars, {scale.outage:.0f} s")


async def cut_off(scale: Scale) -> Verdict:
    """The registrars are cut off from the store; dnsd is not, and hears nothing."""
    async with living(scale) as (world, fleet):
        world.relay.cut()
        await asyncio.sleep(scale.outage)
        world.relay.lead_to(world.store.socket_path)
        await asyncio.sleep(min(scale.lease, 10.0))
        return nobody_left(fleet, f"registrars cut off from the store {scale.outage:.0f} s")


async def clock_off(scale: Scale) -> Verdict:
    """One registrar's clock is an hour ahead: only the store's counts."""
    if FAKETIME is None:
        raise Skipped("libfaketime is not installed (apt install faketime)")
    faked = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+3600s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    async with living(scale, environments=[faked]) as (_, fleet):
        dead = fleet.die(scale.deaths)
        await asyncio.sleep(min(scale.outage, scale.lease + GRACE + 2))
        since = max((i.acked_at for i in dead), default=time.monotonic())
        more, kept = await dead_leave(dead, since, scale.lease + GRACE + SWEEP)
        return nobody_left(fleet, "a registrar's clock an hour ahead", more, kept=kept)


# --- the store -----------------------------------------------------------------------------------


async def store_paused(scale: Scale) -> Verdict:
    async with living(scale) as (world, fleet):
        dead = fleet.die(scale.deaths)
        world.store.pause()
        await asyncio.sleep(scale.outage)
        world.store.resume()
        since = time.monotonic()
        await asyncio.sleep(min(scale.lease, 10.0))
        more, kept = await maybe_dead_leave(scale, dead, since)
        return nobody_left(fleet, f"store paused {scale.outage:.0f} s", more, kept=kept)


async def store_killed(scale: Scale) -> Verdict:
    """kill -9, and started again over what it had: nobody needs to register again."""
    async with living(scale) as (world, fleet):
        world.store.kill()
        await asyncio.sleep(min(scale.outage, 10.0))
        await asyncio.to_thread(world.store.start)
        await asyncio.sleep(min(scale.lease, 10.0))
        held = world.store.command("HLEN", f"sd:{{{ZONE}}}:instances")
        return nobody_left(
            fleet,
            "kill -9 of the store, back with its data",
            f"; {held} of {len(fleet.instances)} still stored",
            kept=held == len(fleet.instances),
        )


async def store_emptied(scale: Scale) -> Verdict:
    """It starts again without data, as with a wrong configuration."""
    async with living(scale, append_only=False) as (world, fleet):
        dead = fleet.die(scale.deaths)
        world.store.kill()
        await asyncio.sleep(min(scale.outage, 10.0))
        await asyncio.to_thread(world.store.start)
        since = time.monotonic()
        back = await all_back(world.store, len(fleet.instances) - len(dead), scale.lease)
        more, kept = (f"; all back after {back:.1f} s", True) if back else ("; not all back", False)
        if dead:
            # Whoever a snapshot lacks stays for its own lease and 75 s.
            left, on_time = await dead_leave(dead, since, scale.lease + 75 + SLACK)
            more, kept = more + left, kept and on_time
        return nobody_left(fleet, "the store starts again empty", more, kept=kept)


async def flushed(scale: Scale) -> Verdict:
    async with living(scale) as (world, fleet):
        world.store.command("FLUSHALL")
        back = await all_back(world.store, len(fleet.instances), scale.lease)
        more = f"; all back after {back:.1f} s" if back else "; not all back"
        await asyncio.sleep(1.0)
        return nobody_left(fleet, "FLUSHALL", more, kept=back is not None)


async def all_back(server: StoreServer, count: int, lease: int) -> float | None:
    """Seconds until *count* instances are stored: within one heartbeat; None when they are not."""
    began = time.monotonic()
    while time.monotonic() - began < lease * 5 / 12 + 10:
        if server.command("HLEN", f"sd:{{{ZONE}}}:instances") >= count:
            return time.monotonic() - began
        await asyncio.sleep(0.1)
    return None


async def failed_over(scale: Scale) -> Verdict:
    """kill -9 of the primary under three Sentinels, then nothing for who does not renew."""
    async with living(scale, sentinels=True) as (world, fleet):
        assert world.watched is not None
        began = time.monotonic()
        world.watched.primary.kill()
        taken = await writable_after(world, began)
        back = await all_back(world.watched.replica, len(fleet.instances), scale.lease)
        await asyncio.sleep(min(scale.lease, 10.0))
        more = f"; writes again after {taken:.1f} s" + (
            "" if back is not None else "; not all back"
        )
        return nobody_left(
            fleet, "kill -9 of the primary, 3 Sentinels", more, kept=back is not None
        )


async def writable_after(world: World, began: float) -> float:
    """Seconds since *began* until a registration is taken."""
    async with aiohttp.ClientSession() as session:
        while await status_of_write(session, world.urls[0]) not in (200, 201):
            await asyncio.sleep(0.1)
            if time.monotonic() - began > 120:
                break
    return time.monotonic() - began


async def status_of_write(session: aiohttp.ClientSession, url: str, name: str = "extra") -> int:
    body = {"service_name": name, "address": "10.255.0.1", "ports": {"http": 1}}
    try:
        async with session.post(
            url + "/register", json=body, timeout=aiohttp.ClientTimeout(5)
        ) as answer:
            return answer.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0


async def primary_away(scale: Scale) -> Verdict:
    """No primary for a while, and some die meanwhile: the promise of issue number one."""
    async with living(scale) as (world, fleet):
        world.store.kill()
        await asyncio.sleep(scale.outage / 2)
        dead = fleet.die(scale.deaths)
        await asyncio.sleep(scale.outage / 2)
        await asyncio.to_thread(world.store.start)
        since = time.monotonic()
        more, kept = await dead_leave(dead, since, bound_after_outage(scale.lease))
        return nobody_left(fleet, f"no primary for {scale.outage:.0f} s", more, kept=kept)


async def replica_hangs(scale: Scale) -> Verdict:
    async with living(scale, sentinels=True) as (world, fleet):
        assert world.watched is not None
        world.watched.replica.pause()
        await asyncio.sleep(min(scale.outage, scale.lease + GRACE + 2))
        async with aiohttp.ClientSession() as session:
            status = await status_of_write(session, world.urls[0])
        world.watched.replica.resume()
        return nobody_left(fleet, "a replica hangs", f"; a write is {status}", kept=status == 201)


# --- no room -------------------------------------------------------------------------------------


async def out_of_memory(scale: Scale) -> Verdict:
    """The store has a limit, and is at it."""
    async with living(scale) as (world, fleet):
        world.store.command("CONFIG", "SET", "maxmemory", "1")
        statuses, relief = await refuse_and_take_again(
            world, lambda: world.store.command("CONFIG", "SET", "maxmemory", "0")
        )
        return refused_honestly(fleet, "store out of memory", statuses, relief)


async def disk_full(scale: Scale) -> Verdict:
    """The file system of its append-only file is full."""
    if os.geteuid() != 0:
        raise Skipped("a small file system can be mounted by root alone")
    place = tempfile.mkdtemp(prefix="cb-full-")
    mounted = await asyncio.to_thread(
        subprocess.run,
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place],
        capture_output=True,
    )
    if mounted.returncode:
        shutil.rmtree(place)
        raise Skipped("no tmpfs can be mounted here")
    try:
        async with living(scale, fsync="everysec", place=place) as (world, fleet):
            filler = Path(place) / "filler"
            with contextlib.suppress(OSError):
                filler.write_bytes(b"x" * (8 << 20))
            statuses, relief = await refuse_and_take_again(world, filler.unlink)
            return refused_honestly(fleet, "disk of the store full", statuses, relief)
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", place], check=False)
        shutil.rmtree(place, ignore_errors=True)


async def refuse_and_take_again(
    world: World, relieve: Callable[[], Any]
) -> tuple[dict[str, int], float]:
    """Writes while there is no room: name → status.  Then seconds from relief to a good one."""
    statuses: dict[str, int] = {}
    async with aiohttp.ClientSession() as session:
        for n in range(200):
            name = f"extra{n}"
            statuses[name] = await status_of_write(session, world.urls[n % len(world.urls)], name)
            if sum(status == 503 for status in statuses.values()) >= 10:
                break
            await asyncio.sleep(0.05)
        async with session.get(world.urls[0] + "/services") as answer:
            statuses[READ] = answer.status
        relieve()
        began = time.monotonic()
        relief = await writable_after(world, began)
        # No lies: whatever was said to be done is there.
        await asyncio.sleep(1.0)
        async with session.get(world.urls[0] + "/services") as answer:
            listed = set(await answer.json())
    for name, status in statuses.items():
        if name != READ and status in (200, 201) and name not in listed:
            statuses[name] = -1
    return statuses, relief


def refused_honestly(fleet: Fleet, fault: str, statuses: dict[str, int], relief: float) -> Verdict:
    refused = sum(status == 503 for status in statuses.values())
    lies = sum(status == -1 for status in statuses.values())
    verdict = nobody_left(fleet, fault)
    return Verdict(
        fault,
        f"writes 503, reads go on, no lies, writes again within {RELIEF:.0f} s of relief",
        f"{refused} writes 503, a read {statuses[READ]}, {lies} lies, writes after"
        f" {relief:.1f} s; {verdict.measured}",
        verdict.kept
        and refused >= 10
        and lies == 0
        and statuses[READ] == 200
        and relief <= RELIEF + PROBING,
    )


# --- a departure that is final -------------------------------------------------------------------


async def late_heartbeats(scale: Scale) -> Verdict:
    """After a DELETE, heartbeats of the instance go on arriving: each is 404."""
    async with living(scale) as (world, fleet), aiohttp.ClientSession() as session:
        victim = fleet.die(1)[0]
        path = f"/services/{victim.service}/instances/{victim.id}"
        async with session.delete(world.urls[0] + path) as answer:
            deleted = answer.status
        began, statuses = time.monotonic(), set()
        while time.monotonic() < began + min(2 * scale.lease, scale.outage):
            beat = {"service_name": victim.service, "instance_id": victim.id}
            for url in world.urls:
                async with session.post(url + "/heartbeat", json=beat) as answer:
                    statuses.add(answer.status)
            await asyncio.sleep(0.2)
        visible = victim.gone_at - began
        kept = deleted == 200 and statuses == {404} and victim.gone_at > 0
        kept = kept and victim.last_seen < began + PROBING
        verdict = nobody_left(fleet, "heartbeats after a DELETE")
        return Verdict(
            verdict.fault,
            "404, and nothing is revived",
            f"answers {sorted(statuses)}, out of DNS after {visible:.2f} s; {verdict.measured}",
            kept and verdict.kept,
        )


ALL: tuple[Fault, ...] = (
    crash,
    late_heartbeats,
    registrar_killed,
    registrars_away,
    registrars_paused,
    cut_off,
    clock_off,
    store_paused,
    store_killed,
    store_emptied,
    flushed,
    failed_over,
    replica_hangs,
    out_of_memory,
    disk_full,
    primary_away,
)
