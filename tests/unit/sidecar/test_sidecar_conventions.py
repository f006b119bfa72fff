"""`SERVICE_*` variables, as users of Registrator know them."""

import pytest

from registry.model import Port
from registry.runtime.config import load
from sidecar.config import Settings
from sidecar.conventions import duration
from sidecar.plan import services_of
from sidecar.registration import Service


def described(**environ: str) -> tuple[tuple[Service, ...], list[str]]:
    environ = {"SERVICE_HOST": "10.0.0.7", **environ}
    settings = load(Settings, "sidecar", [], environ, admin=None)[0]
    return services_of(settings, [], "", environ)


def services(**environ: str) -> dict[str, Service]:
    found, problems = described(**environ)
    assert problems == []
    return {service.name: service for service in found}


def test_a_port_with_a_name_is_a_service_of_its_own() -> None:
    found = services(
        SERVICE_NAME="web",
        SERVICE_PORT="80",
        SERVICE_TAGS="eu,canary",
        SERVICE_9000_NAME="admin",
        SERVICE_9000_TAGS="internal",
        SERVICE_9000_ID="admin-1",
        SERVICE_9000_METADATA="team=red",
        SERVICE_9000_WEIGHT="7",
    )

    assert set(found) == {"web", "admin"}
    assert found["web"].tags == ("eu", "canary")
    admin = found["admin"]
    assert admin.ports == (Port("http", 9000),)
    assert (admin.tags, admin.id, admin.weight) == (("internal",), "admin-1", 7)
    assert admin.metadata == {"team": "red"}


def test_the_port_of_the_service_itself_may_be_meant() -> None:
    found = services(SERVICE_PORT="80", SERVICE_80_NAME="web", SERVICE_80_TAGS="canary")

    assert found["web"].ports == (Port("http", 80),)
    assert found["web"].tags == ("canary",)


def test_without_a_name_of_its_own_a_port_is_called_after_the_service() -> None:
    """As Registrator does; and without any name only the ports that have one are registered."""
    assert set(services(SERVICE_NAME="web", SERVICE_443_TAGS="tls")) == {"web", "web-443"}
    assert set(services(SERVICE_80_NAME="web", SERVICE_81_NAME="admin")) == {"web", "admin"}


def test_a_port_may_be_ignored() -> None:
    assert set(services(SERVICE_NAME="web", SERVICE_443_IGNORE="true")) == {"web"}
    assert described(SERVICE_NAME="web", SERVICE_8080_IGNORE="true")[1] == [
        "service: nothing to register: every port is to be ignored"
    ]


def test_checks_say_how_it_is_probed() -> None:
    found = services(
        SERVICE_NAME="web",
        SERVICE_CHECK_HTTP="/up",
        SERVICE_CHECK_INTERVAL="15s",
        SERVICE_CHECK_TIMEOUT="500ms",
        SERVICE_5432_NAME="db",
        SERVICE_5432_CHECK_SCRIPT="pg_isready -q",
        SERVICE_5432_CHECK_INTERVAL="1m",
        SERVICE_25_NAME="mail",
        SERVICE_25_CHECK_TCP="true",
        SERVICE_81_NAME="api",
        SERVICE_81_CHECK_HTTP="/ready",
        SERVICE_81_PROBE="none",
    )

    web, db, mail, api = (found[name] for name in ("web", "db", "mail", "api"))
    assert (web.probe, web.health_endpoint) == ("http", "/up")
    assert (web.policy.interval, web.policy.timeout) == (15.0, 0.5)
    assert (db.probe, db.command, db.policy.interval) == ("command", ("pg_isready", "-q"), 60.0)
    assert mail.probe == "tcp"
    assert (api.probe, api.health_endpoint) == ("none", "/ready")


def test_a_check_of_all_is_overruled_by_a_probe() -> None:
    assert services(SERVICE_NAME="web", SERVICE_CHECK_TCP="true")["web"].probe == "tcp"
    found = services(SERVICE_NAME="web", SERVICE_CHECK_TCP="true", SERVICE_PROBE="none")
    assert found["web"].probe == "none"


def test_whatever_else_begins_with_service_is_not_published() -> None:
    """Registrator makes metadata of SERVICE_DB_PASSWORD."""
    (service,) = services(SERVICE_NAME="web", SERVICE_DB_PASSWORD="x", SERVICE_80TH="y").values()

    assert service.metadata == {}


def test_every_problem_names_its_variable() -> None:
    _, problems = described(
        SERVICE_NAME="web",
        SERVICE_CHECK_TCP="perhaps",
        SERVICE_80_NMAE="web",
        SERVICE_80_WEIGHT="heavy",
        SERVICE_80_CHECK_INTERVAL="soon",
        SERVICE_70000_NAME="far",
    )

    said = "\n".join(problems)
    for expected in (
        "environment SERVICE_CHECK_TCP: 'perhaps'",
        "environment SERVICE_80_NMAE: unknown; one of NAME, ID,",
        "environment SERVICE_80_WEIGHT: 'heavy'",
        "environment SERVICE_80_CHECK_INTERVAL: 'soon'",
        "SERVICE_70000_*: ports.http: 70000 is not a whole number in 1..65535",
    ):
        assert expected in said


def test_variables_of_ports_and_tables_of_a_file_exclude_one_another() -> None:
    environ = {"SERVICE_80_NAME": "web"}
    settings = load(Settings, "sidecar", [], {}, admin=None)[0]

    _, problems = services_of(settings, [{"name": "a", "host": "a"}], "s.toml", environ)

    assert "leave these to its tables" in problems[0]


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15), ("1.5m", 90), ("500ms", 0.5), ("2", 2), ("1h", 3600)]
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 s", "1d", "٣s", "1e3", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        duration(text)
