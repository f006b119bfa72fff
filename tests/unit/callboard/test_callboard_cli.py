"""The command line: usage errors, terminals and pipes, help, version, completion."""

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from callboard import cli
from callboard.output import PLAIN, Style, columns
from tests.support.registrar_desk import Desk, Laid, instance, service

ESCAPE = b"\x1b["


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lss"], "No such command 'lss'"),
        (["ls", "--tagg", "x"], "--tag"),
        (["ls", "-o", "xml"], "'xml' is not one of"),
        (["show"], "Missing argument"),
        (["register", "web"], "Missing argument"),
        (["register", "web", "http://h", "--weight", "70000"], "70000 is not in the range"),
        (["register", "web", "http://h", "--meta", "x"], "KEY=VALUE"),
        (["dig"], "NAME is missing"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
        (["up", "--lease-ttl", "1"], "option --lease-ttl: 1 is not in 5..3600"),
        (["up", "--dns", "nowhere:x"], "option --dns: port 'x' is not in 0..65535"),
        (["up", "--redis", "host:6379"], "option --redis"),
        (["up", "--zone", "my.local"], "option --zone"),
    ],
)
def test_wrong_usage_is_2_and_on_stderr(
    capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    assert cli.run(argv) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_all_problems_of_up_are_told_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLBOARD_LEASE_TTL", "soon")

    assert cli.run(["up", "--gateway", "x:y", "--listen", "here", "--zone", "a..b"]) == 2

    sources = re.findall(r"^error: (\w+ [\w-]+):", capsys.readouterr().err, re.MULTILINE)
    assert sorted(sources) == [
        "environment CALLBOARD_LEASE_TTL",
        "option --gateway",
        "option --listen",
        "option --zone",
    ]


def test_wrong_usage_is_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ls", "-o", "json", "--tagg", "x"]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"]["status"] == 2


@pytest.mark.parametrize("command", ["", *cli.callboard.commands])
def test_every_command_explains_itself(command: str) -> None:
    """The parts' own help comes from the parts."""
    if command in ("dnsd", "registrar", "sidecar", "gateway"):
        assert "python -m" in str(cli.callboard.commands[command].help)
        return

    argv = [sys.executable, "-m", "callboard", *([command] if command else []), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert done.stdout.startswith("Usage: callboard")
    assert done.stderr == ""


def test_version_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["version", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["python"] == sys.version.split()[0]
    assert document["store"].split()[0] in ("Valkey", "Redis")
    assert os.access(document["store_path"], os.X_OK)

    assert cli.run(["version", "-o", "name"]) == 0
    assert capsys.readouterr().out == document["callboard"] + "\n"

    assert cli.run(["version"]) == 0
    assert document["store"] in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert cli.run(["completion", shell]) == 0

    assert "_CALLBOARD_COMPLETE" in capsys.readouterr().out


def test_names_of_services_are_completed() -> None:
    with Desk({("GET", "/services"): Laid(200, ["nmap_service", "node", "web"])}) as desk:
        environ = {
            **os.environ,
            "CALLBOARD_REGISTRAR_URL": desk.url,
            "_CALLBOARD_COMPLETE": "bash_complete",
            "COMP_WORDS": "callboard show n",
            "COMP_CWORD": "2",
        }
        argv = [sys.executable, "-m", "callboard"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)

    assert done.stdout.split() == ["plain,nmap_service", "plain,node"]


def test_columns_are_as_wide_as_their_content() -> None:
    text = columns(("A", "LONGER"), [("x" * 200, ""), ("y", "z")])

    assert text.splitlines() == [f"A{' ' * 201}LONGER", f"{'x' * 200}  -", f"y{' ' * 201}z"]


def test_colour_is_only_where_it_is_wanted() -> None:
    row = [("10.0.0.1:80", "unhealthy")]

    assert "\x1b[31m" in columns(("ADDRESS", "STATE"), row, Style(colour=True))
    assert "\x1b" not in columns(("ADDRESS", "STATE"), row, PLAIN)


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_colour_unless_told_not_to(environ: dict[str, str], coloured: bool) -> None:
    listed = [service("web", instance("w-1", state="unhealthy"))]
    with Desk({("GET", "/services?detail=true"): Laid(200, listed)}) as desk:
        output = _on_a_terminal(
            ["ls", "-r", desk.url], {"TERM": "xterm", "PATH": os.environ["PATH"], **environ}
        )

    assert b"web" in output
    assert (ESCAPE in output) is coloured


def test_a_pipe_gets_neither_escapes_nor_cuts() -> None:
    addresses = [f"10.0.{n}.1" for n in range(50)]
    listed = [service("web", instance("w-1", addresses=addresses))]
    with Desk({("GET", "/services?detail=true"): Laid(200, listed)}) as desk:
        argv = [sys.executable, "-m", "callboard", "ls", "-r", desk.url]
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "40"}
        done = subprocess.run(argv, capture_output=True, check=True, env=environ)

    assert ESCAPE not in done.stdout
    assert b"10.0.49.1:8047" in done.stdout
    assert "…".encode() not in done.stdout


def _on_a_terminal(arguments: list[str], environ: dict[str, str]) -> bytes:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "callboard", *arguments]
    with subprocess.Popen(argv, stdout=theirs, stderr=theirs, stdin=theirs, env=environ) as process:
        os.close(theirs)
        output = b""
        while select.select([ours], [], [], 20)[0]:
            try:
                output += os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
        process.wait()
    os.close(ours)
    return output


def test_a_part_is_the_module_itself() -> None:
    """Not a child of ours: signals and memory are the part's own."""
    argv = [sys.executable, "-m", "callboard", "sidecar", "--no-such-option", "x"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_somebodys_registry_in_the_working_directory_is_not_ours(
    tmp_path: "os.PathLike[str]",
) -> None:
    trap = os.path.join(tmp_path, "registry")
    os.mkdir(trap)
    with open(os.path.join(trap, "__init__.py"), "w", encoding="utf-8") as file:
        file.write("raise SystemExit('the wrong registry')")
    root = os.getcwd()
    code = "import sys; from callboard.cli import run; sys.exit(run(['sidecar', '--help']))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: callboard sidecar" in done.stdout


def test_the_readme_names_every_command_and_every_option_of_up() -> None:
    text = (Path(cli.__file__).parent / "README.md").read_text(encoding="utf-8")
    for name in cli.callboard.commands:
        assert f"`{name}" in text, name
    flags = {
        flag
        for option in cli.callboard.commands["up"].params
        for flag in (*option.opts, *option.secondary_opts)
    }
    table = text.partition("Each option of `up`")[2].partition("Port 0 takes")[0]

    assert set(re.findall(r"`(--[a-z-]+)", table)) == flags


def with_those_of_groups(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Every command that can be run: `release` of `guard`, not `guard`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from with_those_of_groups(command)
        else:
            yield name, command


def test_every_command_takes_every_output_form() -> None:
    """But those that run something: they have no result to print."""
    running = {"up", "dnsd", "registrar", "sidecar", "gateway"}
    for name, command in with_those_of_groups(cli.callboard):
        flags = {flag for option in command.params for flag in option.opts}
        assert ({"-o", "--output", "--json"} <= flags) is (name not in running), name
