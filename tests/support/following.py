"""A follower that runs while a test looks at it, and a registrar's beat for its store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from registry.changes import Snapshot
from registry.errors import StoreUnavailable
from registry.follower import Follower
from registry.leases import LeaseStore
from registry.model import Instance

BEAT = 0.1
"""Seconds between two sweeps of `beating`; registrars do it each second."""


@contextlib.asynccontextmanager
async def following(url: str, zone: str) -> AsyncIterator[Follower]:
    """A follower of *zone*, ended with the block; what it raised is raised."""
    follower = Follower(url, zone)
    async with running(follower):
        yield follower


@contextlib.asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[None]:
    task = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def beat(store: LeaseStore, known_revision: int = 0) -> None:
    """What a registrar does each second."""
    await store.begin_epoch(known_revision)
    await store.sweep()


@contextlib.asynccontextmanager
async def beating(store: LeaseStore) -> AsyncIterator[None]:
    """Sweep *store* while the block runs, also when it is away now and then."""

    async def sweep() -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                await store.sweep()
            await asyncio.sleep(BEAT)

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


Membership = tuple[int, dict[str, Instance], dict[str, Instance], dict[str, int]]


def membership(snapshot: Snapshot) -> Membership:
    """What the feed carries of it: all but lease ids and generations."""
    instances, gone = (
        {i.registration.key: replace(i, lease_id="", generation=0) for i in many}
        for many in (snapshot.instances, snapshot.gone)
    )
    return snapshot.revision, instances, gone, dict(snapshot.answers)


async def agrees(follower: Follower, store: LeaseStore) -> bool:
    """Whether the catalog is what the store holds."""
    return membership(follower.catalog.snapshot()) == membership(await store.snapshot())
