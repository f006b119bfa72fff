"""`up` with all its parts: ready, restarted, stopped in order, and its demo as printed."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.up import NOWHERE, Up

pytestmark = pytest.mark.xdist_group("up")


def runs(pid: int) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def call(method: str, url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as response:
        return json.load(response)


def callboard(up: Up, *words: str, status: int = 0) -> str:
    """What a command says that is told where this `up` is."""
    environ = {
        **os.environ,
        "CALLBOARD_REGISTRAR_URL": up.ready["registrar"],
        "CALLBOARD_DNS": up.ready["dns"],
    }
    argv = [sys.executable, "-m", "callboard", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == status, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One without the demo, for all tests that leave it running."""
    with Up(tmp_path_factory.mktemp("up"), "--no-demo", *NOWHERE) as up:
        yield up


def test_the_ready_file_says_where_everything_is(up: Up) -> None:
    ready = up.ready

    assert ready["zone"] == "svc.internal."
    assert re.fullmatch(r"127\.0\.0\.1:\d+", ready["dns"])
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", ready["registrar"])
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", ready["gateway"])
    assert re.fullmatch(rf"unix://{up.directory}/callboard-\w+/store\.sock", ready["redis"])
    assert sorted(ready["pids"]) == ["dnsd", "gateway", "redis", "registrar", "sidecar"]
    assert ready["pids"]["sidecar"] == []
    pids = {pid for of_part in ready["pids"].values() for pid in of_part}
    assert pids == set(up.family()) - {up.process.pid}


def test_what_is_registered_is_answered(up: Up) -> None:
    callboard(up, "register", "web", "http://127.0.0.1:3000")

    until(lambda: "127.0.0.1\n" in callboard(up, "dig", "web", "-o", "name"))
    srv = callboard(up, "dig", "_http._tcp.web.svc.internal", "SRV", "-o", "name")
    assert srv == "0 100 3000 127-0-0-1-3000.web.svc.internal.\n"
    assert "web\n" in callboard(up, "ls", "-o", "name")


def test_a_name_that_is_not_there_is_3(up: Up) -> None:
    assert "status: NXDOMAIN" in callboard(up, "dig", "nothing.svc.internal", status=3)


@pytest.mark.parametrize("part", ["dnsd", "registrar", "gateway", "redis"])
def test_a_killed_part_comes_back_at_the_same_address(up: Up, part: str) -> None:
    before = up.ready
    call("POST", before["registrar"] + "/register", _instance("kept"))

    os.kill(before["pids"][part][0], signal.SIGKILL)
    until(lambda: up.ready["pids"][part] and up.ready["pids"][part] != before["pids"][part])

    assert {k: v for k, v in up.ready.items() if k != "pids"} == {
        k: v for k, v in before.items() if k != "pids"
    }
    until(lambda: "kept" in callboard(up, "ls", "-o", "name"))
    until(lambda: _answers(up, "kept"))
    name = {"redis": "store"}.get(part, part)
    assert f"{name} ended (SIGKILL); starting it again on" in up.text()


def _answers(up: Up, service: str) -> bool:
    argv = [sys.executable, "-m", "callboard", "dig", service, "--dns", up.ready["dns"]]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _instance(service: str) -> dict[str, object]:
    return {"service_name": service, "address": "127.0.0.9", "ports": {"http": 80}}


def test_a_killed_worker_is_replaced_and_told(up: Up) -> None:
    supervisor, worker = up.ready["pids"]["dnsd"]
    call("POST", up.ready["registrar"] + "/register", _instance("kept"))

    os.kill(worker, signal.SIGKILL)
    until(lambda: up.ready["pids"]["dnsd"][1:] not in ([], [worker]))

    assert up.ready["pids"]["dnsd"][0] == supervisor
    until(lambda: _answers(up, "kept"))


def test_a_second_one_with_the_same_data_is_refused(up: Up) -> None:
    argv = [sys.executable, "-m", "callboard", "up", "--no-demo", *NOWHERE]
    data = str(up.directory / "data")
    done = subprocess.run(
        [*argv, "--data-dir", data], capture_output=True, text=True, check=False, timeout=30
    )

    assert done.returncode == 1
    assert f"data directory {data} (--data-dir) is in use" in done.stderr
    assert str(up.process.pid) in done.stderr


def test_taken_ports_are_all_named_with_their_options(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.create_server(("127.0.0.1", 0)) as tcp,
    ):
        udp.bind(("127.0.0.1", 0))
        dns, gateway = udp.getsockname()[1], tcp.getsockname()[1]
        argv = [sys.executable, "-m", "callboard", "up", "--data-dir", str(tmp_path)]
        words = ["--dns", f"127.0.0.1:{dns}", "--gateway", str(gateway), "--registrar", "0"]
        done = subprocess.run([*argv, *words], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f"error: 127.0.0.1:{dns} (--dns) is in use by another process" in done.stderr
    assert f"error: 127.0.0.1:{gateway} (--gateway) is in use by another process" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_ready_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "ready.json"
    argv = [sys.executable, "-m", "callboard", "up", *NOWHERE, "--ready-file", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == f"error: {file} (--ready-file): No such file or directory\n"


def test_a_part_that_cannot_start_ends_it_all(tmp_path: Path) -> None:
    """The registrar refuses to listen beyond loopback, and says why: so does `up`."""
    argv = [sys.executable, "-m", "callboard", "up", *NOWHERE, "--listen", "0.0.0.0"]
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    environ.pop("CALLBOARD_INSECURE", None)
    done = subprocess.run(
        [*argv, "--data-dir", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=30,
    )

    assert done.returncode == 2
    assert "--insecure" in done.stderr
    assert "error: registrar ended while starting (status 2)" in done.stderr
    assert [name for name in os.listdir(tmp_path) if name != "data"] == []


def test_it_stops_in_order_and_what_was_registered_survives(tmp_path: Path) -> None:
    up = Up(tmp_path, "--no-demo", *NOWHERE)
    with up:
        callboard(up, "register", "keeper", "http://127.0.0.1:3000", "--static")
        family = up.family()

        assert up.stop() == 0

    assert [pid for pid in family if runs(pid)] == []
    assert sorted(os.listdir(tmp_path)) == ["data", "log"]
    stopped = re.findall(r"^(\w+) +\| .*\bstopped\b", up.text(), re.MULTILINE)
    assert list(dict.fromkeys(stopped)) == ["gateway", "dnsd", "registrar", "up"]
    with up:
        until(lambda: _answers(up, "keeper"))
        assert callboard(up, "ls", "-o", "name") == "keeper\n"


def test_a_closed_terminal_stops_it_unless_nohup_says_otherwise(tmp_path: Path) -> None:
    up = Up(tmp_path, "--no-demo", *NOWHERE)
    with up:
        assert up.stop(signal.SIGHUP) == 0
    up.argv = ["nohup", *up.argv]
    with up:
        up.process.send_signal(signal.SIGHUP)
        assert callboard(up, "ls", "-o", "name") == ""
        assert up.stop() == 0


def test_kill_9_leaves_no_process(tmp_path: Path) -> None:
    with Up(tmp_path, "--no-demo", *NOWHERE) as up:
        family = up.family()
        assert len(family) >= 6

        assert up.stop(signal.SIGKILL) == -signal.SIGKILL

    until(lambda: not any(runs(pid) for pid in family))


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Also when a part hangs: here the store, which cannot stop while it is frozen."""
    with Up(tmp_path, "--no-demo", *NOWHERE) as up:
        family = up.family()
        os.kill(up.ready["pids"]["redis"][0], signal.SIGSTOP)
        up.process.send_signal(signal.SIGINT)
        until(lambda: "registrar | " in up.text() and "stopped part=registrar" in up.text())

        assert up.stop(signal.SIGINT) == 130

    until(lambda: not any(runs(pid) for pid in family))


# --- the demo ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    faster = {"CALLBOARD_SIDECAR_HEALTH_INTERVAL": "0.5"}
    with Up(tmp_path_factory.mktemp("demo"), "--demo", *NOWHERE, environ=faster) as up:
        until(lambda: "Ctrl-C stops all of it\n" in up.text())
        yield up


def test_every_printed_command_works_as_printed(demo: Up) -> None:
    """In the order in which they are printed; the last kills a process and is another test's."""
    printed = demo.text().partition("try:\n")[2].partition("\nfor every program")[0]
    commands = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    assert commands[-1].startswith("kill -9 ")

    environ = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    for command in commands[:-1]:
        done = subprocess.run(
            shlex.split(command), capture_output=True, text=True, check=False, env=environ
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip(), command


def test_twelve_services_serve_with_fourteen_instances(demo: Up) -> None:
    listed = json.loads(callboard(demo, "ls", "--json"))

    assert len([s for s in listed if s["service_name"] != "web"]) == 12
    serving = {s["service_name"]: len(s["instances"]) for s in listed}
    assert serving["nmap_service"] == 3
    assert sum(serving.values()) - serving.get("web", 0) == 14
    assert demo.text().count("sidecar (pid") + len(demo.ready["pids"]["sidecar"]) == 4


def test_the_demo_is_routed_to_by_the_gateway(demo: Up) -> None:
    url = demo.ready["gateway"] + "/v2/nmap_service/scan?x=1"
    seen = {call("GET", url)["address"] for _ in range(40)}

    known = {d["address"] for d in demo.ready["demo"] if d["service"] == "nmap_service"}
    assert seen <= known
    assert len(seen) >= 2  # one may have been killed by another test


def test_its_weight_is_within_bounds(demo: Up) -> None:
    """300 MB of memory for all of it, shared pages counted once (PSS)."""
    lines = [
        line
        for pid in demo.family()
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    ]

    assert len(lines) >= 20
    assert sum(int(line.split()[1]) for line in lines) <= 300_000


def test_a_killed_instance_leaves_the_answers_and_stays_dead(demo: Up) -> None:
    name = "nmap_service.svc.internal"
    victim = next(d for d in demo.ready["demo"] if d["service"] == "nmap_service")
    address = victim["address"].partition(":")[0]

    os.kill(victim["pid"], signal.SIGKILL)

    until(lambda: address not in callboard(demo, "dig", name, "-o", "name"), 30)
    assert "unhealthy" in callboard(demo, "show", "nmap_service")
    assert f"nmap_service (pid {victim['pid']}) ended; it stays dead" in demo.text()


def test_a_killed_sidecar_stays_dead_and_is_told_of(demo: Up) -> None:
    *_, pid = demo.ready["pids"]["sidecar"]

    os.kill(pid, signal.SIGKILL)

    until(lambda: pid not in demo.ready["pids"]["sidecar"])
    assert f"sidecar (pid {pid}) ended (SIGKILL); it stays dead" in demo.text()


def test_output_without_a_terminal_has_no_escapes(demo: Up) -> None:
    assert "\x1b" not in demo.text()
    assert re.search(r"^dnsd      \| ", demo.text(), re.MULTILINE)
