"""`sidecar run -- COMMAND`, as processes: begun, registered, signalled, drained, ended."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_registrar import FakeRegistrar
from tests.support.sidecar import SidecarProcess, a_sidecar, environment, free_port
from tests.support.waiting import until

SERVICE = """
import json, os, signal, socket, sys, time
port, diary = int(sys.argv[1]), open(sys.argv[2], "a", buffering=1)
def note(kind, **more):
    print(json.dumps({"at": time.monotonic(), "kind": kind, **more}), file=diary)
def stop(signum, frame):
    note("stop", signum=signum)
    os._exit(7)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
for signum in (signal.SIGHUP, signal.SIGUSR1):
    signal.signal(signum, lambda signum, frame: note("told", signum=signum))
listening = socket.create_server(("127.0.0.1", port))
note("begun", pid=os.getpid(), session=os.getsid(0), token="REGISTRY_TOKEN" in os.environ)
while True:
    listening.accept()[0].close()
"""
"""A service that writes down what it is told, and ends with status 7."""


class Service:
    """The wrapped command and its diary."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._diary = directory / "diary"
        self._diary.touch()

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-c", SERVICE, str(self.port), str(self._diary))

    def notes(self, kind: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self._diary.read_text().splitlines()]
        return [note for note in found if note["kind"] == kind]

    @property
    def begun(self) -> dict[str, Any]:
        (note,) = self.notes("begun")
        return note

    def options(self, registrar: FakeRegistrar, *more: str) -> tuple[str, ...]:
        return (
            *("run", "--name", "web", "--port", str(self.port)),
            *("--registry-url", registrar.url, "--health-interval", "0.2", *more, "--"),
            *self.command,
        )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    for note in service.notes("begun"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(note["pid"], signal.SIGKILL)


async def test_it_leaves_dns_and_the_registrar_before_the_command_hears_of_it(
    service: Service,
) -> None:
    async with FakeRegistrar() as registrar:
        options = service.options(registrar, "--lease-ttl", "5", "--record-ttl", "1")
        async with a_sidecar(*options, REGISTRY_TOKEN="secret") as sidecar:
            await until(lambda: "serving" in registrar.states().values(), 20)
            sidecar.signal(signal.SIGTERM)
            status = await sidecar.ended()

    drained = next(c for c in registrar.calls if c.body and c.body.get("state") == "draining")
    deregistered = registrar.calls[-1]
    (stopped,) = service.notes("stop")
    assert deregistered.method == "DELETE"
    assert drained.at + 1.0 <= deregistered.at < stopped["at"]
    assert (stopped["signum"], status) == (signal.SIGTERM, 7)
    assert service.begun["session"] == service.begun["pid"], "Ctrl-C must not reach it first"
    assert not service.begun["token"]


async def test_ctrl_c_is_passed_on_as_what_it_is_and_other_signals_at_once(
    service: Service,
) -> None:
    async with (
        FakeRegistrar() as registrar,
        a_sidecar(*service.options(registrar, "--no-drain")) as sidecar,
    ):
        await until(lambda: registrar.entries, 20)
        for signum in (signal.SIGUSR1, signal.SIGHUP):
            sidecar.signal(signum)
        await until(lambda: len(service.notes("told")) == 2)
        assert registrar.count("DELETE", "/") == 0
        sidecar.signal(signal.SIGINT)
        status = await sidecar.ended()

    assert {n["signum"] for n in service.notes("told")} == {signal.SIGUSR1, signal.SIGHUP}
    assert (service.notes("stop")[0]["signum"], status) == (signal.SIGINT, 7)
    assert registrar.entries == {}
    assert "token, certificates and log level read again" in sidecar.log


async def test_one_that_dies_by_itself_is_deregistered_at_once(service: Service) -> None:
    async with FakeRegistrar() as registrar, a_sidecar(*service.options(registrar)) as sidecar:
        await until(lambda: registrar.entries, 20)
        os.kill(service.begun["pid"], signal.SIGKILL)
        status = await sidecar.ended()

    assert status == 128 + signal.SIGKILL
    assert registrar.entries == {}
    assert registrar.count("PUT", "/") <= 1, "no draining: there is nobody to wait for"


async def test_a_second_signal_does_not_wait_for_caches(service: Service) -> None:
    async with (
        FakeRegistrar() as registrar,
        a_sidecar(*service.options(registrar, "--record-ttl", "5")) as sidecar,
    ):
        await until(lambda: registrar.entries, 20)
        sidecar.signal(signal.SIGTERM)
        await until(lambda: "draining" in registrar.states().values())
        sidecar.signal(signal.SIGTERM)
        status = await sidecar.ended(4.0)

    assert status == 7
    assert registrar.entries == {}


async def test_one_that_does_not_stop_is_killed_with_all_it_has_begun(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! > {pids}; while :; do sleep 0.1; done"
    options = ("--name", "web", "--probe", "none", "--no-drain", "--stop-timeout", "0.5")
    async with (
        FakeRegistrar() as registrar,
        a_sidecar(
            *("run", *options, "--", "sh", "-c", script), REGISTRY_URL=registrar.url
        ) as sidecar,
    ):
        await until(lambda: registrar.entries and pids.exists(), 20)
        sidecar.signal(signal.SIGTERM)
        status = await sidecar.ended()

    assert status == 128 + signal.SIGKILL
    assert "has not ended in time" in sidecar.log
    await until(lambda: not Path(f"/proc/{pids.read_text().strip()}").exists())


async def test_a_registrar_that_is_away_changes_nothing_for_the_command(tmp_path: Path) -> None:
    script = f"echo done > {tmp_path}/done; sleep 0.5; exit 3"
    options = ("--name", "web", "--probe", "none", "--registry-url", "http://127.0.0.1:9")
    async with a_sidecar("run", *options, "--", "sh", "-c", script) as sidecar:
        status = await sidecar.ended()

    assert status == 3
    assert (tmp_path / "done").read_text() == "done\n"
    assert "registrar away" in sidecar.log


ADOPTING = """
import ctypes, runpy, sys
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
sys.argv = ["sidecar", *sys.argv[1:]]
runpy.run_module("sidecar", run_name="__main__")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")
async def test_orphans_do_not_stay_as_zombies(tmp_path: Path) -> None:
    """As the first process of a container it is the parent of whoever has lost theirs."""
    pids = tmp_path / "pids"
    script = f"(sh -c 'echo $$ > {pids}; exec sleep 0.2' &); exec sleep 60"
    options = ("run", "--name", "web", "--probe", "none", "--registry-url", "http://127.0.0.1:9")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ADOPTING, *options, "--", "sh", "-c", script,
        env=environment(), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    sidecar = SidecarProcess(process)
    try:
        await until(lambda: pids.exists() and pids.read_text().strip(), 20)
        orphan = Path(f"/proc/{pids.read_text().strip()}")

        def parent() -> int:
            return int((orphan / "stat").read_text().rpartition(")")[2].split()[1])

        with contextlib.suppress(FileNotFoundError):
            await until(lambda: parent() == process.pid)
        await until(lambda: not orphan.exists())
        for _ in range(2):
            sidecar.signal(signal.SIGTERM)
        assert await sidecar.ended() == 128 + signal.SIGTERM
    finally:
        await sidecar.close()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "run", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_what_cannot_be_begun_has_the_status_that_shells_give(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a program")

    missing = run("--name", "web", "--", "no-such-command")
    barred = run("--name", "web", "--", str(plain))

    assert (missing.returncode, barred.returncode) == (127, 126)
    assert 'command=no-such-command error="No such file or directory"' in missing.stderr


def test_wrong_usage_says_everything_and_begins_nothing(tmp_path: Path) -> None:
    done = run("--port", "web")
    without_name = run("--check-config", "--", "touch", f"{tmp_path}/begun")
    right = run("--check-config", "--name", "web", "--", "touch", f"{tmp_path}/begun")

    assert (done.returncode, without_name.returncode, right.returncode) == (2, 2, 0)
    assert "no command; give it after --" in done.stderr
    assert "option --port" in done.stderr
    assert "name: required" in without_name.stderr
    assert not (tmp_path / "begun").exists()
    assert run("--help").stdout.startswith("usage: callboard sidecar run [options] -- COMMAND")
