"""A supervisor with real workers: who is ready, who is replaced, what is counted."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.runtime import supervisor
from registry.runtime.supervisor import Supervisor, WorkerLink, worker_command
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
START = 20.0
"""Bound for a worker to start on a busy machine."""


class Part:
    """Two workers with a listening socket each."""

    def __init__(self, ready: Path, command: list[str] | None = None) -> None:
        self.ready = ready
        self.sockets = [listening(), listening()]
        self.supervisor = Supervisor(
            "counting",
            [[s] for s in self.sockets],
            command or worker_command("tests.support.counting_worker", [str(ready)]),
            summed_gauges=frozenset({"working"}),
        )

    async def ask(self, index: int) -> Any:
        """Connect to a worker's socket and hear who answers."""
        host, port = self.sockets[index].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        try:
            return json.loads(await reader.read())
        finally:
            writer.close()
            await writer.wait_closed()

    async def counts(self, series: str, expected: float) -> bool:
        """Whether *series* is scraped with that value."""
        return f"\n{series} {expected}\n" in (await self.supervisor.metrics()).decode()


def listening() -> socket.socket:
    made = socket.create_server(("127.0.0.1", 0))
    made.setblocking(False)
    return made


@pytest.fixture
async def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Part]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = Part(tmp_path / "ready")
    yield made
    await made.supervisor.stop()
    for s in made.sockets:
        s.close()


async def test_a_part_is_ready_when_a_worker_is(part: Part) -> None:
    assert part.supervisor.missing() == ["not started"]
    await part.supervisor.start()
    await until(lambda: part.supervisor.missing() == ["file"], START)
    part.ready.touch()

    await until(lambda: part.supervisor.missing() == [], START)
    assert len(part.supervisor.pids) == 2
    who = [await part.ask(index) for index in (0, 1)]
    assert [w["index"] for w in who] == [0, 1]
    assert sorted(w["pid"] for w in who) == sorted(part.supervisor.pids)


async def test_counts_of_all_workers_are_summed(part: Part) -> None:
    part.ready.touch()
    await part.supervisor.start()
    for index in (0, 0, 1):
        await part.ask(index)

    await until(lambda: part.counts("working", 2.0), START)
    assert await part.counts("connected_total", 3.0)
    assert await part.counts('callboard_workers{part="counting"}', 2.0)


async def test_a_killed_worker_is_replaced_on_the_same_socket_and_what_it_counted_is_kept(
    part: Part,
) -> None:
    part.ready.touch()
    await part.supervisor.start()
    first = (await part.ask(0))["pid"]
    await until(lambda: part.counts("connected_total", 1.0), START)

    os.kill(first, signal.SIGKILL)

    second = (await part.ask(0))["pid"]  # waits in the socket until the replacement answers
    assert second != first
    await until(lambda: part.counts("connected_total", 2.0), START)
    assert first not in part.supervisor.pids


async def test_a_worker_that_does_not_answer_is_missing_until_it_does(part: Part) -> None:
    part.ready.touch()
    await part.supervisor.start()
    await until(lambda: part.supervisor.missing() == [] and len(part.supervisor.pids) == 2, START)
    await part.ask(0)
    await part.ask(1)
    pids = part.supervisor.pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    await until(lambda: part.supervisor.missing() == ["worker does not answer"], START)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    await until(lambda: part.supervisor.missing() == [], START)
    assert part.supervisor.pids == pids

    await part.ask(0)
    assert await part.counts("connected_total", 3.0), "a report that came late is not taken for it"


async def test_draining_waits_for_the_workers_and_starts_no_other(part: Part) -> None:
    part.ready.touch()
    await part.supervisor.start()
    await part.ask(0)
    await part.ask(1)

    await part.supervisor.drain()

    await until(lambda: part.supervisor.pids == [])


async def test_a_reload_is_passed_on(part: Part) -> None:
    part.ready.touch()
    await part.supervisor.start()
    assert (await part.ask(1))["reloads"] == 0

    part.supervisor.reload()

    async def reloaded() -> bool:
        return bool((await part.ask(1))["reloads"] == 1)

    await until(reloaded, START)


async def test_workers_end_with_the_supervisor_stopped(part: Part) -> None:
    part.ready.touch()
    await part.supervisor.start()
    pids = [(await part.ask(index))["pid"] for index in (0, 1)]

    await part.supervisor.stop()

    assert not any(is_alive(pid) for pid in pids)


async def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    """Out of processes or memory for a moment: the part must come back by itself."""
    command = tmp_path / "worker"
    part = Part(tmp_path / "ready", [str(command)])
    await part.supervisor.start()
    await until(lambda: part.supervisor.missing() == ["worker is being replaced"])
    part.ready.touch()
    command.write_text(
        f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.support.counting_worker"
        f" {part.ready}\n"
    )
    command.chmod(0o755)

    await until(lambda: part.supervisor.missing() == [], START)
    await part.supervisor.stop()
    for s in part.sockets:
        s.close()


def test_a_process_without_the_variable_is_no_worker() -> None:
    assert WorkerLink.from_environ({}) is None


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_workers_are_renewed_and_nobody_who_connects_is_lost(part: Part) -> None:
    """Somebody connects all the time; what the old ones had reported stays counted."""
    part.ready.touch()
    await part.supervisor.start()
    await until(lambda: len(part.supervisor.pids) == 2 and not part.supervisor.missing(), START)
    before = set(part.supervisor.pids)
    seen: list[int] = []
    renewing = asyncio.create_task(part.supervisor.renew())
    while not renewing.done():
        seen += [(await part.ask(index))["pid"] for index in (0, 1)]
    await renewing
    await until(lambda: len(part.supervisor.pids) == 2, START)
    seen += [(await part.ask(index))["pid"] for index in (0, 1)]

    assert not before & set(part.supervisor.pids)
    assert set(seen) >= set(part.supervisor.pids)
    assert part.supervisor.missing() == []
    counted = (await part.supervisor.metrics()).decode().partition("\nconnected_total ")[2]
    assert 2 <= float(counted.split()[0]) <= len(seen)


async def test_a_worker_whose_successor_does_not_become_ready_stays(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    part.ready.touch()
    await part.supervisor.start()
    await until(lambda: len(part.supervisor.pids) == 2 and not part.supervisor.missing(), START)
    before = set(part.supervisor.pids)
    monkeypatch.setattr(supervisor, "SUCCESSION_TIMEOUT", 0.0)
    await part.supervisor.renew()
    await until(lambda: set(part.supervisor.pids) == before, START)

    assert part.supervisor.missing() == []
