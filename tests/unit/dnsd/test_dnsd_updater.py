"""How the table follows the feed, what is said when the feed is lost, and the snapshot on disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dnsd.memo import Memo
from dnsd.metrics import Counts
from dnsd.shared import CATALOG
from dnsd.table import AnswerTable
from dnsd.updater import Updater
from dnsd.zone import Zone
from registry.catalog import Catalog
from registry.follower import Follower
from tests.support.dnsd import APEX, SERVERS, instance
from tests.support.waiting import until

NOBODY = "redis://127.0.0.1:1/0"
"""Port 1 refuses."""


class Desk:
    """An updater with all it needs; the follower is real, and is not run unless a test does."""

    def __init__(self, path: Path | None = None, *, stale_bound: float = 60.0) -> None:
        self.counts = Counts()
        self.follower = Follower(
            NOBODY,
            APEX,
            changed=lambda services: self.updater.changed(services),
            reset=lambda: self.updater.reset(),
        )
        self.table = AnswerTable([Zone(APEX, SERVERS)], lambda: self.follower.catalog)
        self.memo = Memo(self.table.serial)
        self.updater = Updater(
            self.follower,
            self.table,
            self.memo,
            self.counts,
            zone=APEX,
            stale_bound=stale_bound,
            path=path,
        )

    def load(self, catalog: Catalog, *, current: bool = True) -> None:
        """As the follower does when it has read a snapshot from the store."""
        self.follower.catalog, self.follower.loaded = catalog, True
        self.follower.current = current
        self.updater.reset()


def a_catalog(revision: int = 5) -> Catalog:
    catalog = Catalog(revision)
    catalog.put(instance())
    return catalog


@contextlib.asynccontextmanager
async def running(desk: Desk) -> AsyncIterator[None]:
    task = asyncio.create_task(desk.updater.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_s1_not_ready_until_something_was_loaded() -> None:
    desk = Desk()
    states = [desk.table.state]
    (missing,) = desk.updater.missing()
    assert "the store has not been read" in missing

    desk.load(a_catalog())

    assert [*states, desk.table.state] == ["loading", "fresh"]
    assert desk.updater.missing() == []


async def test_t33_once_loaded_it_stays_ready_when_the_store_is_away() -> None:
    """Every replica would be taken out of service at once otherwise."""
    desk = Desk(stale_bound=1.0)
    desk.load(a_catalog())
    desk.follower.current = False
    desk.updater._known_at -= 2.5

    desk.updater.look()

    assert desk.table.state == "stale"
    assert desk.updater.missing() == []
    assert desk.updater.feed().age >= 2.5


async def test_states_follow_how_long_the_store_is_away_and_back() -> None:
    desk = Desk(stale_bound=60.0)
    desk.load(a_catalog())
    desk.updater.look()
    states = [desk.table.state]
    desk.follower.current = False
    for seconds in (1, 9, 61):
        desk.updater._known_at -= seconds
        desk.updater.look()
        states.append(desk.table.state)
    desk.follower.current = True
    desk.updater.look()

    assert [*states, desk.table.state] == ["fresh", "fresh", "away", "stale", "fresh"]


async def test_a_change_that_touches_no_service_moves_the_serial() -> None:
    desk = Desk()
    desk.load(a_catalog(5))
    desk.follower.catalog.revision = 9

    desk.updater.look()

    assert bytes(desk.table.serial) == b"\0\0\0\t"


async def test_a_snapshot_is_written_once_a_change_and_only_while_current(
    tmp_path: Path,
) -> None:
    path = tmp_path / "deep" / "snapshot"
    desk = Desk(path)
    await desk.updater.save(path)
    assert not path.exists()
    desk.load(a_catalog(5))

    for _ in range(2):
        await desk.updater.save(path)

    assert desk.counts.saves == 1
    desk.follower.catalog.revision = 6
    await desk.updater.save(path)
    assert desk.counts.saves == 2
    desk.follower.current, desk.follower.catalog.revision = False, 7
    await desk.updater.save(path)
    assert desk.counts.saves == 2
    assert [p.name for p in path.parent.iterdir()] == ["snapshot"]


async def test_a_snapshot_that_cannot_be_written_is_counted_and_nothing_else(
    tmp_path: Path,
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    desk = Desk()
    desk.load(a_catalog())

    await desk.updater.save(blocked / "snapshot")

    assert (desk.counts.saves, desk.counts.save_failures) == (0, 1)


async def test_without_the_store_it_starts_from_disk_as_stale_and_ready(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    before = Desk(path)
    before.load(a_catalog(5))
    await before.updater.save(path)

    desk = Desk(path)
    async with running(desk):
        await until(lambda: desk.updater.missing() == [])

        assert desk.table.state == "away"
        assert desk.follower.catalog.snapshot() == a_catalog(5).snapshot()
        assert desk.table.revision == 5


async def test_a_bad_file_is_passed_over_and_it_waits_for_the_store(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(b"\xff\xfe not ours")
    desk = Desk(path)
    async with running(desk):
        await until(lambda: desk.updater._heard.is_set())
        await desk.updater._start_from_disk(path)

        assert desk.table.state == "loading"


@pytest.mark.parametrize("content", ["", "{}\n", '{"format": 1}\n["end", 0]\n'])
async def test_files_without_a_head_of_ours_are_not_used(tmp_path: Path, content: str) -> None:
    path = tmp_path / "snapshot"
    path.write_text(content)
    desk = Desk(path)
    desk.updater._heard.set()

    await desk.updater._start_from_disk(path)

    assert desk.table.state == "loading"


async def test_what_the_store_said_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    before = Desk(path)
    before.load(a_catalog(5))
    await before.updater.save(path)
    desk = Desk(path)
    desk.load(a_catalog(9))

    await desk.updater._start_from_disk(path)

    assert desk.follower.catalog.revision == 9
    assert desk.table.state == "fresh"


async def test_what_services_share_is_settled_before_anybody_asks() -> None:
    """The first question for the catalog must not wait until all services are counted."""
    desk = Desk()
    catalog = Catalog(5)
    for n in range(200):
        catalog.put(instance(f"service-{n}"))
    async with running(desk):
        desk.load(catalog)

        await until(lambda: desk.table.settle(0))

    assert desk.table.shared.sets.count(CATALOG) == 200
