"""`register`, `deregister` and `drain`: what is sent, what is said, and how each fails."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from callboard import cli
from tests.support.registrar_desk import Call, Desk, Laid, instance, problem, service

GRANTED = {
    "message": "Service registered successfully",
    "service_name": "web",
    "instance_id": "127-0-0-1-3000",
    "lease_id": "l-1",
    "lease_ttl": 60,
    "heartbeat_interval": 25,
    "revision": "5",
    "names": {
        "service": "web.svc.internal.",
        "srv": ["_http._tcp.web.svc.internal."],
        "instance": "127-0-0-1-3000.web.svc.internal.",
    },
}
PAIR = service("pair", instance("p-1"), instance("p-2"))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    answers = {
        ("POST", "/register"): Laid(201, GRANTED),
        ("GET", "/services"): Laid(200, ["pair", "web"]),
        ("GET", "/services/web"): Laid(200, service("web", instance("w-1"))),
        ("GET", "/services/pair"): Laid(200, PAIR),
        ("DELETE", "/deregister/pair"): Laid(200, {}),
        ("DELETE", "/services/pair/instances/p-1"): Laid(200, {}),
        ("PUT", "/services/pair/instances/p-1/state"): Laid(200, {}),
        ("PUT", "/services/web/instances/w-1/state"): Laid(200, {}),
    }
    with Desk(answers) as desk:
        monkeypatch.setenv("CALLBOARD_REGISTRAR_URL", desk.url)
        yield desk


def test_register_says_how_long_it_lasts_and_how_to_keep_it(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["register", "web", "http://127.0.0.1:3000"]) == 0

    out, err = capsys.readouterr()
    assert out.splitlines()[1].split() == [
        *("web", "127-0-0-1-3000", "web.svc.internal.", "_http._tcp.web.svc.internal."),
    ]
    assert "leaves after 60 s" in err
    assert "--keep" in err
    assert desk.calls[-1] == Call(
        "POST", "/register", {"service_name": "web", "endpoint": "http://127.0.0.1:3000"}
    )


@pytest.mark.parametrize(
    ("form", "out"),
    [("name", "127-0-0-1-3000\n"), ("json", json.dumps(GRANTED, indent=2) + "\n")],
)
def test_register_for_programs(
    desk: Desk, capsys: pytest.CaptureFixture[str], form: str, out: str
) -> None:
    assert cli.run(["register", "web", "http://127.0.0.1:3000", "-o", form]) == 0

    assert capsys.readouterr() == (out, "")


def test_register_sends_all_that_was_said(desk: Desk) -> None:
    words = "--id w-1 --priority 1 --weight 50 --lease-ttl 30 --version 1.2 --zone eu-1 --tag a"
    more = "--tag b --meta team=red --health /up"

    assert cli.run(["register", "web", "http://h:80/", *words.split(), *more.split()]) == 0

    assert desk.calls[-1].body == {
        "service_name": "web",
        "endpoint": "http://h:80/",
        "instance_id": "w-1",
        "priority": 1,
        "weight": 50,
        "lease_ttl": 30,
        "version": "1.2",
        "zone": "eu-1",
        "tags": ["a", "b"],
        "metadata": {"team": "red"},
        "health_endpoint": "/up",
    }


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("127.0.0.1:3000", {"endpoint": "http://127.0.0.1:3000"}),
        (
            "tcp://10.0.0.7:5432",
            {"address": "10.0.0.7", "ports": {"tcp": {"port": 5432, "protocol": "tcp"}}},
        ),
        (
            "udp://[::1]:53",
            {"address": "::1", "ports": {"udp": {"port": 53, "protocol": "udp"}}},
        ),
        ("tcp://db:5432", {"host": "db", "ports": {"tcp": {"port": 5432, "protocol": "tcp"}}}),
    ],
)
def test_urls_are_places(desk: Desk, url: str, place: dict[str, object]) -> None:
    assert cli.run(["register", "web", url]) == 0

    assert desk.calls[-1].body == {"service_name": "web", **place}


@pytest.mark.parametrize("url", ["ftp://h:1", "tcp://h", "http://h:99999", "udp://:5"])
def test_other_urls_are_wrong_usage(
    desk: Desk, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert cli.run(["register", "web", url]) == 2

    assert url in capsys.readouterr().err
    assert desk.calls == []


def test_a_static_one_has_no_lease(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.answers["POST", "/register"] = Laid(201, GRANTED | {"lease_ttl": 0})

    assert cli.run(["register", "web", "http://127.0.0.1:3000", "--static"]) == 0

    assert desk.calls[-1].body["lease_ttl"] == 0
    assert "stays until `callboard deregister web 127-0-0-1-3000`" in capsys.readouterr().err


def test_static_and_keep_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["register", "web", "http://h", "--static", "--keep"]) == 2

    assert "--static" in capsys.readouterr().err


def test_every_problem_of_a_registration_is_told(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = [{"field": "service_name", "message": "is bad"}, {"field": "tags", "message": "too"}]
    desk.answers["POST", "/register"] = problem(422, "2 fields are wrong", errors=errors)

    assert cli.run(["register", "web", "http://h"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: service_name: is bad",
        "error: tags: too",
    ]

    assert cli.run(["register", "web", "http://h", "--json"]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["messages"] == ["service_name: is bad", "tags: too"]
    assert error["problem"]["errors"] == errors


def test_keep_renews_registers_again_and_takes_back(desk: Desk) -> None:
    """The lease is renewed until a signal; forgotten, it is asked for anew."""
    desk.answers["POST", "/register"] = Laid(201, GRANTED | {"heartbeat_interval": 0.02})
    desk.answers["DELETE", "/services/web/instances/127-0-0-1-3000"] = Laid(200, {})
    argv = [sys.executable, "-m", "callboard", "register", "web", "http://127.0.0.1:3000"]
    with subprocess.Popen(
        [*argv, "--keep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        _until_called(desk, "/heartbeat", 1)
        _until_called(desk, "/register", 2)
        desk.answers["POST", "/heartbeat"] = Laid(200, {})
        _until_called(desk, "/heartbeat", 5)

        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()

    assert process.returncode == 0
    assert "127-0-0-1-3000" in out
    assert "registered again" in err
    assert err.splitlines()[-1] == "deregistered"
    assert desk.calls[-1].method == "DELETE"
    beats = [call.body for call in desk.calls if call.path == "/heartbeat"]
    assert beats[0] == {"service_name": "web", "instance_id": "127-0-0-1-3000"}


def _until_called(desk: Desk, path: str, times: int) -> None:
    deadline = time.monotonic() + 20
    while sum(call.path == path for call in desk.calls) < times:
        assert time.monotonic() < deadline, f"{path} was not called {times} times"
        time.sleep(0.005)


def test_deregister_takes_one_or_all(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["deregister", "pair", "p-1", "-o", "name"]) == 0
    assert cli.run(["deregister", "pair", "-o", "name"]) == 0

    assert capsys.readouterr().out.split() == ["p-1", "p-1", "p-2"]
    deleted = [call.path for call in desk.calls if call.method == "DELETE"]
    assert deleted == ["/services/pair/instances/p-1", "/deregister/pair"]


def test_deregister_of_what_is_not_there_is_3(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["deregister", "pai"]) == 3
    assert "did you mean pair?" in capsys.readouterr().err

    assert cli.run(["deregister", "pair", "p-9"]) == 3
    assert "did you mean p-2 or p-1?" in capsys.readouterr().err
    assert [call for call in desk.calls if call.path.startswith("/deregister")] == []


def test_drain_and_back(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["drain", "pair", "p-1", "--reason", "disk"]) == 0
    assert desk.calls[-1].body == {"state": "draining", "reason": "disk"}

    assert cli.run(["drain", "pair", "p-1", "--undo", "--json"]) == 0
    assert desk.calls[-1].body == {"state": "serving"}
    assert capsys.readouterr().out.endswith(
        '{\n  "service_name": "pair",\n  "instances": [\n    "p-1"\n  ],\n  "state": "serving"\n}\n'
    )


def test_the_only_instance_needs_no_id(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["drain", "web"]) == 0
    assert desk.calls[-1].path == "/services/web/instances/w-1/state"

    assert cli.run(["drain", "pair"]) == 2
    assert "p-1, p-2" in capsys.readouterr().err


def test_names_are_quoted_in_paths(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["show", "../health?x"]) == 3

    assert desk.calls[0].path == "/services/..%2Fhealth%3Fx"


def test_a_conflict_is_1(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.answers["POST", "/register"] = problem(409, "generation 5 is older than 7")

    assert cli.run(["register", "web", "http://h"]) == 1

    assert capsys.readouterr().err == "error: generation 5 is older than 7\n"


def test_ctrl_c_is_130() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        argv = [sys.executable, "-m", "callboard", "ls", "-r", url]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            asked, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
            asked.close()

    assert (process.returncode, out, err.strip()) == (130, b"", b"")


def test_guard_release_says_how_many_went(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    released = {"message": "Guard released", "service_name": "pair", "evicted": 2, "revision": "9"}
    desk.answers["POST", "/v1/guard/pair/release"] = Laid(200, released)

    assert cli.run(["guard", "release", "pair"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["pair", "2"]
    assert cli.run(["guard", "release", "pair", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == released


def test_guard_release_of_an_unknown_service_names_near_ones(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.answers["POST", "/v1/guard/pairs/release"] = Laid(404, problem(404, "no such lease"))

    assert cli.run(["guard", "release", "pairs"]) == 3
    assert "did you mean pair?" in capsys.readouterr().err
