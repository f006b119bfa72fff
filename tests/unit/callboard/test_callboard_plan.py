"""What `up` was asked for, the command lines that follow, and the text that it prints."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from callboard import demo, guide, plan
from callboard.plan import Given, Options, Place
from registry.runtime.config import HostPort


def options(environ: Mapping[str, str] | None = None, /, **texts: str) -> Options:
    given = Given(texts, lambda name: f"option {name}")
    return plan.options_of(given, demo=False, environ=environ or {})


def test_by_default_all_is_on_loopback() -> None:
    asked = options()

    assert (str(asked.dns), str(asked.registrar)) == ("127.0.0.1:1053", "127.0.0.1:8888")
    assert str(asked.gateway) == "127.0.0.1:8000"
    assert asked.zones == ("svc.internal.",)
    assert (asked.redis, asked.lease_ttl, asked.ready_file) == ("", 60, None)


@pytest.mark.parametrize(
    ("texts", "dns"),
    [
        ({"listen": "0.0.0.0"}, "0.0.0.0:1053"),
        ({"listen": "[::]"}, "[::]:1053"),
        ({"listen": "::"}, "[::]:1053"),
        ({"listen": "0.0.0.0", "dns": "5300"}, "0.0.0.0:5300"),
        ({"listen": "::1", "dns": "0"}, "[::1]:0"),
        ({"listen": "0.0.0.0", "dns": "127.0.0.1:53"}, "127.0.0.1:53"),
    ],
)
def test_listen_is_the_host_of_what_has_none(texts: dict[str, str], dns: str) -> None:
    assert str(options(**texts).dns) == dns


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, "~/.local/state/callboard"),
        ({"XDG_STATE_HOME": "/var/state"}, "/var/state/callboard"),
        ({"XDG_STATE_HOME": "relative"}, "~/.local/state/callboard"),
    ],
)
def test_data_lives_where_xdg_says(environ: dict[str, str], path: str) -> None:
    assert options(environ).data_dir == Path(path).expanduser()


def test_the_registrar_takes_loopback_endpoints_and_the_lease() -> None:
    asked = options(lease_ttl="6", zone="a.example,b.example")

    words = plan.registrar_arguments(asked, plan.wishes(asked)["registrar"])

    assert " ".join(words) == (
        "--listen 127.0.0.1:8888 --zone a.example.,b.example."
        " --lease-ttl 6 --allow-endpoints 127.0.0.0/8,::1/128"
    )


def test_a_wildcard_needs_a_name_server_address() -> None:
    asked = options(listen="0.0.0.0")
    place = plan.wishes(asked)["dnsd"]

    words = plan.dnsd_arguments(asked, place, "10.0.0.9")

    assert words[-2:] == ["--ns", "ns1=10.0.0.9"]
    assert "--ns" not in plan.dnsd_arguments(asked, Place(HostPort("::1", 53)), "1.1.1.1")


def test_the_gateway_asks_dnsd_where_it_can_be_reached() -> None:
    asked = options()

    words = plan.gateway_arguments(
        asked, Place(asked.gateway, HostPort("127.0.0.1", 0)), HostPort("::", 53)
    )

    assert words[words.index("--dns") + 1] == "127.0.0.1:53"


def test_admin_sides_are_where_they_always_are_unless_the_part_is_elsewhere() -> None:
    assert str(plan.wishes(options())["dnsd"].admin) == "127.0.0.1:9153"
    assert str(plan.wishes(options())["gateway"].admin) == "127.0.0.1:8001"
    assert str(plan.wishes(options(dns="0"))["dnsd"].admin) == "127.0.0.1:0"


def test_variables_of_ours_are_not_handed_down() -> None:
    """A part refuses a CALLBOARD_ variable that it does not know."""
    environ = {
        "PATH": "/bin",
        "CALLBOARD_INSECURE": "true",
        "CALLBOARD_READY_FILE": "/tmp/r",
        "CALLBOARD_DATA_DIR": "/tmp/d",
        "CALLBOARD_UP_ZONE": "x",
        "CALLBOARD_REGISTRAR": "127.0.0.1:1",
        "SERVICE_NAME": "mine",
    }

    assert plan.part_environment(environ, "unix:///s") == {
        "PATH": "/bin",
        "CALLBOARD_INSECURE": "true",
        "CALLBOARD_REDIS": "unix:///s",
        "SERVICE_NAME": "mine",
    }
    assert plan.sidecar_environment(environ | {"CALLBOARD_LOG_FORMAT": "json"}, "http://r") == {
        "PATH": "/bin",
        "CALLBOARD_LOG_FORMAT": "json",
        "CALLBOARD_SIDECAR_LOG_LEVEL": "warning",
        "REGISTRY_URL": "http://r",
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@h:6379/0", "redis://***@h:6379/0"),
        ("redis://h/0", "redis://h/0"),
        ("unix:///a@b", "unix:///a@b"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert plan.without_password(url) == shown


# --- the demo ---------------------------------------------------------------------------------


def test_the_demo_is_twelve_services_and_one_has_three_instances() -> None:
    names = [service.name for service in demo.SERVICES]

    assert len(set(names)) == 12
    assert names.count(demo.STARRED) == 3
    assert len({(s.host, s.port) for s in demo.SERVICES}) == len(demo.SERVICES)


def test_the_shared_sidecar_is_told_of_all_but_the_starred() -> None:
    places = [(s.host, s.port + 1, 1000 + n) for n, s in enumerate(demo.SERVICES)]
    running = demo.understand(demo.announce(places))

    text = demo.sidecar_file(demo.shared(running))

    assert text.count("[[service]]") == 11
    assert (
        '[[service]]\nname = "vault_service"\nhost = "127.0.0.18"\nport = 8201\n'
        'health_endpoint = "/v1/sys/health"\n' in text
    )
    assert next(dict(demo.sidecar_environment(r)) for r in demo.starred(running)) == {
        "SERVICE_NAME": "nmap_service",
        "SERVICE_HOST": "127.0.0.31",
        "SERVICE_PORT": "8048",
        "SERVICE_HEALTH_ENDPOINT": "/health",
    }


# --- the guide --------------------------------------------------------------------------------


def scene(**more: object) -> guide.Scene:
    values: dict[str, object] = {
        "seconds": 1.23,
        "zone": "svc.internal.",
        "dns": HostPort("127.0.0.1", 1053),
        "registrar": "http://127.0.0.1:8888",
        "gateway": "http://127.0.0.1:8000",
        "store": "/data",
        "command": "callboard",
        "demo_pid": 99,
        "has": lambda program: True,
    }
    return guide.Scene(**(values | more))  # type: ignore[arg-type]


def commands(text: str) -> list[str]:
    """The lines to paste: those that are indented, after `try:`."""
    return [line[2:] for line in text.partition("try:")[2].splitlines() if line.startswith("  ")]


def test_the_guide_of_the_demo() -> None:
    text = guide.guide(scene())

    assert text.startswith("ready in 1.2 s\n")
    assert "one sidecar serves 11 of them" in text
    assert commands(text) == [
        "callboard ls",
        "callboard show nmap_service",
        "callboard dig nmap_service.svc.internal",
        "callboard dig _http._tcp.nmap_service.svc.internal SRV",
        "dig @127.0.0.1 -p 1053 _http._tcp.nmap_service.svc.internal SRV",
        "curl http://127.0.0.1:8000/v2/nmap_service/hello",
        "callboard register web http://127.0.0.1:3000",
        "callboard show web",
        "callboard dig web.svc.internal",
        "kill -9 99",
    ]


def test_other_ports_are_said_in_every_command() -> None:
    text = guide.guide(
        scene(dns=HostPort("127.0.0.1", 5300), registrar="http://127.0.0.1:8889", demo_pid=None)
    )

    assert commands(text) == [
        "callboard register web http://127.0.0.1:3000 -r http://127.0.0.1:8889",
        "callboard show web -r http://127.0.0.1:8889",
        "callboard dig web.svc.internal --dns 127.0.0.1:5300",
        "callboard ls -r http://127.0.0.1:8889",
    ]


def test_programs_that_are_not_there_are_not_shown() -> None:
    text = guide.guide(scene(has=lambda program: False))

    assert "curl" not in text
    assert "dig @" not in text


@pytest.mark.parametrize(("platform", "said"), [("linux", "systemd-resolved"), ("darwin", "port")])
def test_the_whole_machine_can_ask(platform: str, said: str) -> None:
    assert said in guide.guide(scene(platform=platform))


def test_the_command_is_named_as_it_can_be_run_again(tmp_path: Path) -> None:
    program = tmp_path / ".venv/bin/callboard"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def named(argv0: str, cwd: Path, path: str = "/nowhere") -> str:
        return guide.command_name([argv0], "/usr/bin/python3", cwd, {"PATH": path})

    assert named(".venv/bin/callboard", tmp_path) == ".venv/bin/callboard"
    assert named(str(program), tmp_path) == ".venv/bin/callboard"
    assert named(str(program), Path("/usr")) == str(program)
    assert named(str(program), tmp_path, str(program.parent)) == "callboard"
    assert named("/x/callboard/__main__.py", tmp_path) == "/usr/bin/python3 -m callboard"
