"""Where settings come from, in which order, and how everything that is wrong is said at once."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.runtime import config
from registry.runtime.config import Common, ConfigError, HelpRequested, HostPort, option

ADMIN = HostPort("127.0.0.1", 9153)


@dataclass(frozen=True, slots=True)
class Settings:
    name: str = option(config.text, help="name of the service", env=("SERVICE_NAME",))
    listen: tuple[HostPort, ...] = option(
        config.host_ports,
        default=(HostPort("127.0.0.1", 1053),),
        help="where it listens",
        metavar="HOST:PORT",
    )
    redis: str = option(
        config.url, default="redis://127.0.0.1:6379/0", help="the store", secret=True
    )
    zone: tuple[str, ...] = option(config.zones, default=("svc.internal.",), help="the zones")
    workers: int = option(config.integer(1, 64), default=1, help="number of workers")
    insecure: bool = option(config.boolean, default=False, help="without tokens")
    lease_ttl: int = option(config.integer(5, 3600), default=60, help="seconds of a lease")


def load(*argv: str, **environ: str) -> tuple[Settings, Common]:
    environ.setdefault("SERVICE_NAME", "payments")
    return config.load(Settings, "dnsd", argv, environ, admin=ADMIN)


def refused(*argv: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        load(*argv, **environ)
    assert str(error.value) == "\n".join(error.value.problems)
    return error.value.problems


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "callboard.toml"
        path.write_text(text)
        return str(path)

    return write


# --- the order of sources ----------------------------------------------------------------------


def test_what_is_not_set_has_its_default() -> None:
    settings, common = load()

    assert settings == Settings("payments")
    assert common == Common(admin=ADMIN)


def test_the_order_is_option_part_variable_variable_own_variable_table_bare_key(
    file: Callable[[str], str],
) -> None:
    path = file("lease_ttl = 11\nworkers = 2\n[dnsd]\nlease-ttl = 12\n[registrar]\nlease_ttl=99\n")
    bare, part = {"CALLBOARD_LEASE_TTL": "13"}, {"CALLBOARD_DNSD_LEASE_TTL": "14"}
    at = ("--config", path)

    assert load(*at)[0].workers == 2
    assert load(*at)[0].lease_ttl == 12
    assert load(*at, **bare)[0].lease_ttl == 13
    assert load(*at, **bare, **part)[0].lease_ttl == 14
    assert load(*at, "--lease-ttl", "15", **bare, **part)[0].lease_ttl == 15
    assert load(CALLBOARD_CONFIG=path)[0].lease_ttl == 12


def test_a_field_may_have_variables_of_its_own_after_ours() -> None:
    assert load(SERVICE_NAME="a")[0].name == "a"
    assert load(SERVICE_NAME="a", CALLBOARD_NAME="b")[0].name == "b"


def test_options_are_written_with_a_space_or_an_equals_sign() -> None:
    assert load("--workers=3")[0].workers == 3
    assert load("--workers", "3")[0].workers == 3
    assert load("--name=a=b")[0].name == "a=b"


def test_a_flag_is_given_or_given_with_no() -> None:
    assert load("--insecure")[0].insecure is True
    assert load("--no-insecure", CALLBOARD_INSECURE="true")[0].insecure is False
    assert load("--insecure=off")[0].insecure is False
    assert load(CALLBOARD_INSECURE="1")[0].insecure is True


def test_a_file_says_lists_and_booleans_as_toml_does(file: Callable[[str], str]) -> None:
    path = file(
        'listen = ["127.0.0.1:1", "[::1]:2"]\ninsecure = true\nlog_format = "json"\nworkers = 4'
    )

    settings, common = load("--config", path)

    assert settings.listen == (HostPort("127.0.0.1", 1), HostPort("::1", 2))
    assert (settings.insecure, settings.workers, common.log_format) == (True, 4, "json")


def test_one_file_serves_all_parts(file: Callable[[str], str]) -> None:
    path = file('upstream_timeout = 3\n[gateway]\nworkers = 9\n[[sidecar.service]]\nname = "x"\n')

    assert load("--config", path)[0].workers == 1


def test_a_secret_may_come_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "redis"
    path.write_text("redis://:hunter2@store:6379/0\n")

    settings, _ = load(CALLBOARD_REDIS_FILE=str(path))

    assert settings.redis == "redis://:hunter2@store:6379/0"
    assert "hunter2" not in repr(settings)
    assert load(CALLBOARD_REDIS_FILE=str(path), CALLBOARD_REDIS="redis://a")[0].redis == "redis://a"
    (problem,) = refused(CALLBOARD_REDIS_FILE=str(tmp_path / "none"))
    assert problem.startswith("environment CALLBOARD_REDIS_FILE: ")


def test_variables_of_other_parts_and_of_the_command_are_let_pass() -> None:
    load(
        CALLBOARD_GATEWAY_HEAD_TIMEOUT="3",
        CALLBOARD_HEAD_TIMEOUT="3",
        CALLBOARD_ADDRESS_FILE="/run/a",
        CALLBOARD_REGISTRAR_URL="http://r",
        CALLBOARD_WORKER="0:1:2",
        PATH="/bin",
    )


# --- what is wrong -----------------------------------------------------------------------------


def test_every_problem_is_said_at_once_with_source_rule_and_meaning(
    file: Callable[[str], str],
) -> None:
    path = file('lease_ttl = 4\n[dnsd]\nlease_tll = 5\nzone = "svc.local"\n')

    problems = refused(
        "--worker",
        "--workers",
        "many",
        "--config",
        path,
        CALLBOARD_LISTEN="here",
        CALLBOARD_ZOEN="a",
        SERVICE_NAME="",
    )

    text = "\n".join(problems)
    assert len(problems) == 8
    assert "option --worker: there is no such option (did you mean --workers?)" in text
    assert "option --workers: 'many' is not a whole number; it is: number of workers" in text
    assert f"file {path}: [dnsd] lease_tll: unknown setting (did you mean lease_ttl?)" in text
    assert f"file {path}: lease_ttl: 4 is not in 5..3600" in text
    assert f"file {path}: [dnsd] zone: 'svc.local' lies under local." in text
    assert "environment CALLBOARD_LISTEN: 'here' is not HOST:PORT" in text
    assert "environment CALLBOARD_ZOEN: unknown setting (did you mean CALLBOARD_ZONE?)" in text
    assert "environment SERVICE_NAME: it is empty" in text


def test_a_required_setting_tells_how_to_give_it() -> None:
    with pytest.raises(ConfigError) as error:
        config.load(Settings, "dnsd", [], {}, admin=ADMIN)

    assert error.value.problems == (
        "setting name: required, and not set; name of the service (as --name or SERVICE_NAME)",
    )


def test_an_option_without_its_value_and_a_file_that_is_none_are_said(tmp_path: Path) -> None:
    assert refused("--workers") == ("option --workers: it needs a value (number of workers)",)
    (problem,) = refused("--config", str(tmp_path / "none"))
    assert "No such file" in problem
    (tmp_path / "bad").write_text("workers = ")
    (problem,) = refused("--config", str(tmp_path / "bad"))
    assert problem.startswith(f"file {tmp_path / 'bad'}: ")


def test_tables_that_no_part_has_are_refused(file: Callable[[str], str]) -> None:
    path = file("dnsd = 1\n[gatway]\nworkers = 1\n")

    problems = refused("--config", path)

    assert f"file {path}: gatway: no such table (did you mean gateway?)" in problems
    assert f"file {path}: dnsd is not a table" in problems


def test_rules_across_fields_are_asked_once_each_field_is_good() -> None:
    def rule(settings: Settings) -> list[str]:
        return ["workers must be 1 without a zone of one's own"] if settings.workers > 1 else []

    def load_with(workers: str) -> Settings:
        argv = ["--name", "a", "--workers", workers]
        return config.load(Settings, "dnsd", argv, {}, admin=None, problems=rule)[0]

    assert load_with("1").workers == 1
    with pytest.raises(ConfigError, match="workers must be 1"):
        load_with("2")


def test_help_names_every_setting_its_variables_and_its_default() -> None:
    with pytest.raises(HelpRequested) as request:
        load("--help")

    text = str(request.value)
    assert "--lease-ttl VALUE\n      seconds of a lease (default 60)" in text
    assert "environment: CALLBOARD_NAME, SERVICE_NAME" in text
    assert "--admin HOST:PORT" in text
    assert "(default 127.0.0.1:9153)" in text
    assert "redis://" not in text, "the default of a secret may hold one"


# --- parsers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (config.boolean, "Yes", True),
        (config.boolean, "OFF", False),
        (config.integer(-5, 5), "-5", -5),
        (config.seconds(0, 10), "0.25", 0.25),
        (config.words, " a, b ,,c", ("a", "b", "c")),
        (config.host_port, "[::]:53", HostPort("::", 53)),
        (config.host_port, "name:0", HostPort("name", 0)),
        (config.zones, "A.internal, b.internal.,a.internal", ("a.internal.", "b.internal.")),
        (config.zone, "home.arpa", "home.arpa."),
        (config.url, "redis://a", "redis://a"),
        (config.choice("a", "b"), "b", "b"),
        (
            config.networks,
            "10.0.0.1/8,fd00::1",
            (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::1/128")),
        ),
    ],
)
def test_texts_that_are_read(parse: Callable[[str], Any], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (config.boolean, "maybe"),
        (config.integer(1, 5), "6"),
        (config.integer(1, 5), "1.0"),
        (config.integer(1, 5), "-"),
        (config.integer(1, 5), "٣"),
        (config.integer(1, 5), "9" * 5000),
        (config.seconds(0, 10), "nan"),
        (config.seconds(0, 10), "inf"),
        (config.seconds(0, 10), "soon"),
        (config.host_port, "53"),
        (config.host_port, ":53"),
        (config.host_port, "::1:53"),
        (config.host_port, "a:65536"),
        (config.host_port, "a:x"),
        (config.host_ports, " , "),
        (config.zones, ""),
        (config.zone, "x.localhost"),
        (config.zone, "a..b"),
        (config.url, "just-a-name"),
        (config.choice("a", "b"), "c"),
        (config.networks, "10.0.0.0/33"),
        (config.text, ""),
    ],
)
def test_texts_that_are_refused(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:53", "[::1]:8888", "name:1"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(HostPort.parse(text)) == text


def test_an_address_knows_how_far_it_can_be_reached() -> None:
    assert HostPort("127.9.9.9", 1).is_loopback
    assert HostPort("::1", 1).is_loopback
    assert HostPort("localhost", 1).is_loopback
    assert not HostPort("10.0.0.1", 1).is_loopback
    assert HostPort("0.0.0.0", 1).is_wildcard
    assert HostPort("::", 1).is_wildcard
    assert not HostPort("::1", 1).is_wildcard
