"""What the sidecar is told to keep: settings, tables, and every problem at once."""

import tomllib

import pytest

from registry.model import Port
from registry.runtime.config import ConfigError, load
from sidecar.actions import Register
from sidecar.config import Settings, problems_of
from sidecar.health import Policy
from sidecar.plan import config_file, services_of, tables_of
from sidecar.registration import AUTO, Service, document_of
from sidecar.tables import services_from


def settings(argv: str = "", **environ: str) -> Settings:
    return load(Settings, "sidecar", argv.split(), environ, admin=None)[0]


def only_service(argv: str = "", **environ: str) -> Service:
    services, problems = services_of(settings(argv, **environ), [], "", environ)
    assert problems == []
    (service,) = services
    return service


def from_toml(text: str, argv: str = "") -> tuple[tuple[Service, ...], list[str]]:
    tables = list(tables_of(tomllib.loads(text)))
    return services_of(settings(argv), tables, "services.toml", {})


def test_the_predecessors_environment_is_understood() -> None:
    given = settings(
        SERVICE_NAME="maximus_eureka_service",
        SERVICE_HOST="vertice-maximus_eureka",
        SERVICE_PORT="8200",
        SERVICE_HEALTH_ENDPOINT="/v1/sys/health",
        REGISTRY_URL="http://registry-1:80/, http://registry-2:80",
        HEARTBEAT_INTERVAL="30",
        SERVICE_ZONE="eu-1",
        INITIAL_WAIT_TIMEOUT="10",
        REGISTER_UNHEALTHY="true",
    )
    (service,), problems = services_of(given, [], "", {})

    assert problems == []
    assert service.name == "maximus_eureka_service"
    assert service.probed == "http://vertice-maximus_eureka:8200/v1/sys/health"
    assert service.zone == "eu-1"
    assert given.registry_url == ("http://registry-1:80", "http://registry-2:80")
    assert (given.heartbeat_interval, given.initial_wait_timeout) == (30, 10)
    assert given.register_unhealthy


def test_its_defaults_are_the_predecessors() -> None:
    service = only_service(SERVICE_NAME="web", SERVICE_HOST="10.0.0.7")

    assert service.ports == (Port("http", 8080),)
    assert service.health_endpoint == "/health"
    assert settings().registry_url == ("http://127.0.0.1:8888",)
    assert settings().initial_wait_timeout == 60
    assert not settings().register_unhealthy


def test_the_dns_zone_of_the_installation_is_not_taken_for_a_locality() -> None:
    service = only_service(SERVICE_NAME="web", SERVICE_HOST="web", CALLBOARD_ZONE="svc.internal")

    assert service.zone == ""


@pytest.mark.parametrize(
    ("host", "field", "instance"),
    [
        ("10.0.0.7", "address", "10-0-0-7-8080"),
        ("2001:db8::7", "address", "2001-0db8-0000-0000-0000-0000-0000-0007-8080"),
        ("vertice-maximus_eureka", "host", "vertice-maximus_eureka-8080"),
    ],
)
def test_a_literal_is_an_address_and_a_name_is_a_host(host: str, field: str, instance: str) -> None:
    service = only_service(SERVICE_NAME="web", SERVICE_HOST=host)

    document = document_of(service, {}, 17)

    assert document == {
        "service_name": "web",
        "instance_id": instance,
        field: host,
        "ports": {"http": 8080},
        "health_endpoint": "/health",
        "generation": 17,
    }


def test_what_was_configured_wins_over_what_the_health_answer_told() -> None:
    service = only_service("--metadata version=2,team=red", SERVICE_NAME="web", SERVICE_HOST="web")

    document = document_of(service, {"version": "1", "status": "healthy"}, None)

    assert document["metadata"] == {"version": "2", "status": "healthy", "team": "red"}
    assert "generation" not in document


def test_options_describe_one_service_whole() -> None:
    service = only_service(
        "--name Web --host web-1 --port 8080 --ports metrics=9100,game=4000/udp --tags canary,eu"
        " --weight 10 --priority 2 --service-version 1.2 --instance-id web-1 --lease-ttl 15"
        " --record-ttl 3 --probe tcp"
    )

    assert service.name == "web"
    assert service.id == "web-1"
    assert service.ports == (
        Port("http", 8080),
        Port("metrics", 9100),
        Port("game", 4000, "udp"),
    )
    assert document_of(service, {}, None) == {
        "service_name": "web",
        "instance_id": "web-1",
        "host": "web-1",
        "ports": {"http": 8080, "metrics": 9100, "game": {"port": 4000, "protocol": "udp"}},
        "health_endpoint": "/health",
        "version": "1.2",
        "tags": ["canary", "eu"],
        "priority": 2,
        "weight": 10,
        "lease_ttl": 15,
        "record_ttl": 3,
    }


def test_several_services_stand_in_tables_and_settings_are_their_defaults() -> None:
    services, problems = from_toml(
        """
        [[service]]
        name = "payments"
        port = 8047

        [[service]]
        name = "ledger"
        host = "10.0.0.8"
        ports = {grpc = 5000, game = {port = 4000, protocol = "udp"}}
        probe = "tcp"
        metadata = {team = "red", primary = true}
        lease_ttl = 15
        """,
        "--host 10.0.0.7",
    )

    assert problems == []
    payments, ledger = services
    assert (payments.host, payments.ports) == ("10.0.0.7", (Port("http", 8047),))
    assert (ledger.host, ledger.probe_port) == ("10.0.0.8", 5000)
    assert ledger.metadata == {"team": "red", "primary": "true"}
    assert ledger.lame_duck == 3.0


def test_each_service_may_be_probed_in_its_own_way_and_time() -> None:
    services, problems = from_toml(
        """
        [[service]]
        name = "web"

        [[service]]
        name = "db"
        port = 5432
        probe_command = ["pg_isready", "-q"]
        health_interval = 30
        health_timeout = 10.5
        rise = 2

        [[service]]
        name = "queue"
        port = 5672
        docker_container = "rabbit"
        """,
        "--host 10.0.0.7 --fall 3",
    )

    assert problems == []
    assert [s.probe for s in services] == ["http", "command", "docker"]
    assert services[0].policy == Policy(rise=1, fall=3)
    assert services[1].policy == Policy(rise=2, fall=3, interval=30.0, timeout=10.5)
    assert services[1].probed == "pg_isready -q"
    assert services[2].container == "rabbit"


def test_a_wrapped_service_is_probed_by_its_port_and_stands_on_this_machine() -> None:
    (service,), problems = services_of(
        settings("--name web --port 3000"), [], "", {}, is_wrapping=True
    )
    by_path, _ = services_of(
        settings("--name web --health-endpoint /up"), [], "", {}, is_wrapping=True
    )

    assert problems == []
    assert (service.host, service.probe) == (AUTO, "tcp")
    assert by_path[0].probe == "http"


def test_what_is_not_healthy_is_registered_with_its_state() -> None:
    service = only_service(SERVICE_NAME="web", SERVICE_HOST="web")

    document = document_of(service, {}, 17, Register("waiting", "sidecar: answered 503"))

    assert document["state"] == "waiting"
    assert document["state_reason"] == "sidecar: answered 503"


def test_certificates_belong_to_https() -> None:
    good = settings("--registry-url https://r --registry-ca ca.pem --registry-cert c.pem")
    bad = settings("--registry-ca ca.pem --registry-key key.pem")

    assert list(problems_of(good)) == []
    assert [p.split(":")[0] for p in problems_of(bad)] == [
        "setting registry_key",
        "setting registry_ca, registry_cert",
    ]


def test_every_problem_of_every_table_is_said_at_once() -> None:
    _, problems = from_toml(
        """
        [[service]]
        name = "pay.ments"
        host = "10.0.0.7"

        [[service]]
        nmae = "ledger"
        port = "8080"

        [[service]]
        name = "web"
        host = "web"
        port = 70000
        probe = "icmp"
        health_interval = 0
        fall = 0
        rise = "2"

        [[service]]
        name = "game"
        host = "web"
        ports = {game = {port = 4000, protocol = "udp"}}
        """
    )

    said = "\n".join(problems)
    for expected in (
        "[[service]] 1 pay.ments: service_name",
        "[[service]] 2 : nmae: unknown",
        "[[service]] 2 : name: required",
        "[[service]] 2 : host: required",
        "[[service]] 2 : port: '8080' is not a whole number",
        "[[service]] 3 web: probe: 'icmp'",
        "[[service]] 3 web: health_interval: 0 is not in 0.1..3600 seconds",
        "[[service]] 3 web: fall: 0 is not in 1..100",
        "[[service]] 3 web: rise: '2' is not a whole number",
        "[[service]] 4 game: probe: http cannot probe port game, which is UDP",
    ):
        assert expected in said


def test_two_tables_with_the_same_instance_are_refused() -> None:
    services, problems = from_toml(
        """
        [[service]]
        name = "nmap_service"
        host = "10.0.0.7"
        [[service]]
        name = "nmap-service"
        host = "10.0.0.7"
        """
    )

    assert len(services) == 2
    assert "same instance nmap-service/10-0-0-7-8080" in problems[0]


def test_a_name_beside_tables_is_refused() -> None:
    _, problems = from_toml('[[service]]\nname = "web"\nhost = "web"', "--name other")

    assert any("leave these to its tables" in problem for problem in problems)


def test_name_and_host_are_required() -> None:
    _, problems = services_of(settings(), [], "", {})

    assert [p.split(" (")[0] for p in problems] == [
        "service: name: required",
        "service: host: required",
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--registry-url", "registry:8888"),
        ("--registry-url", ","),
        ("--registry-url", "http://a..b"),
        ("--registry-url", "http://registry:70000"),
        ("--ports", "8080"),
        ("--ports", "http=0x50"),
        ("--metadata", "team"),
        ("--probe", "icmp"),
        ("--lease-ttl", "0"),
        ("--health-interval", "0"),
        ("--health-timeout", "1 day"),
        ("--port", "0"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"option {option}: "):
        load(Settings, "sidecar", [option, value], {}, admin=None)


def test_a_lease_must_be_one_and_a_record_lives_a_quarter_of_it() -> None:
    _, problems = services_from(
        [{"name": "web", "host": "web", "lease_ttl": 16, "record_ttl": 5}], ["web"], Policy()
    )

    assert problems == ["web: record_ttl: 5 is not a whole number in 1..4"]


def test_the_file_is_found_where_the_other_settings_are() -> None:
    assert config_file(["--config", "a.toml"], {"CALLBOARD_CONFIG": "b.toml"}) == "a.toml"
    assert config_file(["--config=a.toml"], {}) == "a.toml"
    assert config_file([], {"CALLBOARD_CONFIG": "b.toml"}) == "b.toml"
    assert config_file(["--name", "web"], {}) == ""
