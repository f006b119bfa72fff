"""Commands as probes, and the processes that they are."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.children import Children
from sidecar.commands import Commands
from sidecar.health import Healthy, Policy, Unhealthy, Verdict
from sidecar.registration import Service
from sidecar.tables import services_from
from tests.support.waiting import until


def service_probed_by(command: str | list[str], timeout: float = 10.0) -> Service:
    table = {
        "name": "web",
        "host": "10.0.0.7",
        "port": 3000,
        "probe_command": command,
        "health_timeout": timeout,
    }
    (service,), problems = services_from([table], ["web"], Policy())
    assert problems == []
    assert service.probe == "command"
    return service


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    children = Children()
    yield children
    children.close()


async def verdict(children: Children, command: str | list[str], timeout: float = 10.0) -> Verdict:
    return await Commands(children).verdict(service_probed_by(command, timeout))


async def test_status_0_is_healthy_and_any_other_is_not(children: Children) -> None:
    assert await verdict(children, "true") == Healthy()
    assert await verdict(children, "false") == Unhealthy("status 1")


async def test_the_last_line_it_says_is_the_reason(children: Children) -> None:
    script = "echo one; echo 'no route' >&2; echo; exit 3"

    assert await verdict(children, ["sh", "-c", script]) == Unhealthy("status 3: no route")


async def test_there_is_no_shell_unless_one_is_asked_for(children: Children) -> None:
    """What stands in a variable or a file is never run."""
    assert await verdict(children, "test $HOME = '$HOME'") == Healthy()
    assert await verdict(children, """sh -c 'test "$SERVICE_PORT" = 3000'""") == Healthy()


async def test_it_is_told_what_it_probes_and_no_secrets(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_TOKEN", "secret")

    script = 'echo "$SERVICE_NAME $SERVICE_HOST $SERVICE_PORT${REGISTRY_TOKEN}"; exit 1'
    assert await verdict(children, ["sh", "-c", script]) == Unhealthy("status 1: web 10.0.0.7 3000")


async def test_one_that_is_too_slow_is_killed_with_all_it_has_begun(
    children: Children, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! $$ > {pids}; wait"

    found = await verdict(children, ["sh", "-c", script], timeout=0.3)

    assert found == Unhealthy("not done within 0.3 s")
    for pid in pids.read_text().split():
        await until(lambda pid=pid: not is_alive(int(pid)))  # type: ignore[misc]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_what_it_leaves_running_is_not_waited_for(children: Children, tmp_path: Path) -> None:
    """A grandchild may hold the output open for ever."""
    pid = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid}; echo done; exit 1"

    assert await verdict(children, ["sh", "-c", script]) == Unhealthy("status 1: done")
    os.kill(int(pid.read_text()), signal.SIGKILL)


async def test_one_that_talks_without_end_is_bounded(children: Children) -> None:
    script = "i=0; while [ $i -lt 30000 ]; do echo 0123456789; i=$((i+1)); done; echo end; exit 1"

    assert await verdict(children, ["sh", "-c", script]) == Unhealthy("status 1: end")


async def test_one_that_does_not_exist_or_is_killed_says_so(children: Children) -> None:
    missing = await verdict(children, "no-such-command --fast")
    killed = await verdict(children, ["sh", "-c", "kill -SEGV $$"])

    assert missing == Unhealthy("no-such-command: No such file or directory")
    assert killed == Unhealthy("ended by SIGSEGV")


async def test_many_at_once_each_get_their_own_status(children: Children) -> None:
    """Several ends may come with one SIGCHLD."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(verdict(children, ["sh", "-c", f"exit {n}"])) for n in range(20)]

    expected = [Healthy(), *(Unhealthy(f"status {n}") for n in range(1, 20))]
    assert [task.result() for task in tasks] == expected


async def test_a_probe_that_is_cancelled_leaves_nothing_running(
    children: Children, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    task = asyncio.create_task(verdict(children, ["sh", "-c", f"echo $$ > {pid}; exec sleep 60"]))
    await until(lambda: pid.exists() and pid.read_text().strip())

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    await until(lambda: not is_alive(int(pid.read_text())))


async def test_children_of_others_are_left_to_them(children: Children) -> None:
    """Only where it adopts does it wait for whoever comes."""
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(7)")

    assert await verdict(children, "true") == Healthy()
    assert await other.wait() == 7


@pytest.mark.parametrize("command", ["", "it's"])
def test_a_command_that_is_none_is_refused(command: str) -> None:
    table = {"name": "web", "host": "web", "probe": "command", "probe_command": command}

    _, problems = services_from([table], ["web"], Policy())

    assert any("probe_command" in problem for problem in problems)
