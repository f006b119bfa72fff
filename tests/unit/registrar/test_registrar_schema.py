"""What a registration may say: every rule with the field it is reported under."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.queries import filters_of
from registrar.registrations import Rules, parse_registration
from registrar.requests import Beat, StateChange, parse_heartbeats, parse_settings, parse_state
from registry.errors import InvalidInstance, Problem
from registry.model import Port, Registration, problems_of
from registry.runtime.config import networks

RULES = Rules(("svc.internal.",))
GOOD: dict[str, Any] = {"service_name": "ok", "address": "10.0.0.7", "ports": {"http": 80}}


def registration(body: Any, rules: Rules = RULES, caller: str = "192.0.2.9") -> Registration:
    return parse_registration(body, rules, caller).registration


def fields_refused(body: Any, rules: Rules = RULES) -> list[str]:
    with pytest.raises(InvalidInstance) as caught:
        registration(body, rules)
    return [p.field for p in caught.value.problems]


def message_of(body: Any, rules: Rules = RULES) -> str:
    with pytest.raises(InvalidInstance) as caught:
        registration(body, rules)
    (problem,) = caught.value.problems
    return problem.message


def test_the_predecessors_registration_is_understood() -> None:
    found = registration(
        {
            "service_name": "nmap_service",
            "endpoint": "http://vertice-nmap:8047",
            "health_endpoint": "/health",
            "metadata": {"version": "1"},
        }
    )

    assert found == Registration(
        service="nmap_service",
        instance="vertice-nmap-8047",
        ports=(Port("http", 8047),),
        host="vertice-nmap",
        metadata={"version": "1"},
        named=False,
        caller="192.0.2.9",
    )


def test_everything_that_can_be_said_is_kept() -> None:
    found = parse_registration(
        {
            "service_name": "Payments",
            "instance_id": "PAY-1",
            "address": ["10.0.0.7", "2001:DB8::7", "10.0.0.7"],
            "host": "Vertice-Maximus_Eureka.",
            "ports": {"http": 8080, "game": {"port": 4000, "protocol": "udp"}, "m": {"port": 1}},
            "health_endpoint": "/v1/sys/health",
            "priority": 1,
            "weight": 0,
            "version": "1.2.0",
            "zone": "eu-1",
            "tags": ["canary", "Blue", "canary"],
            "lease_ttl": 20.0,
            "record_ttl": 3,
            "generation": 1732441234567,
        },
        RULES,
        "192.0.2.9",
    )

    assert found.generation == 1732441234567
    assert found.registration == Registration(
        service="payments",
        instance="pay-1",
        ports=(Port("http", 8080), Port("game", 4000, "udp"), Port("m", 1)),
        addresses=("10.0.0.7", "2001:db8::7"),
        host="vertice-maximus_eureka",
        priority=1,
        weight=0,
        version="1.2.0",
        zone="eu-1",
        tags=("canary", "Blue"),
        health_endpoint="/v1/sys/health",
        lease_ttl=20,
        record_ttl=3,
    )


@pytest.mark.parametrize(
    ("endpoint", "address", "host", "port"),
    [
        ("http://10.0.0.7", "10.0.0.7", "", Port("http", 80)),
        ("https://10.0.0.7/", "10.0.0.7", "", Port("https", 443)),
        ("HTTP://Web.Example:81/", "", "web.example", Port("http", 81)),
        ("https://[2001:db8::7]", "2001:db8::7", "", Port("https", 443)),
        ("http://[2001:DB8::7]:8080", "2001:db8::7", "", Port("http", 8080)),
        ("http://[::ffff:10.0.0.7]:8080", "10.0.0.7", "", Port("http", 8080)),
        ("http://vertice-maximus_eureka:8200", "", "vertice-maximus_eureka", Port("http", 8200)),
    ],
)
def test_an_endpoint_gives_where_and_port(
    endpoint: str, address: str, host: str, port: Port
) -> None:
    found = registration({"service_name": "ok", "endpoint": endpoint})

    assert found.addresses == ((address,) if address else ())
    assert (found.host, found.ports) == (host, (port,))


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "10.0.0.7:80",
        "ftp://10.0.0.7",
        "tcp://10.0.0.7:1",
        "http:/10.0.0.7",
        "http://",
        "http://:80",
        "http://10.0.0.7:",
        "http://10.0.0.7:0",
        "http://10.0.0.7:65536",
        "http://10.0.0.7:8o",
        "http://10.0.0.7:٨٠",
        "http://10.0.0.7:" + "9" * 5000,
        "http://10.0.0.7/health",
        "http://10.0.0.7?x=1",
        "http://10.0.0.7#x",
        "http://user@10.0.0.7",
        "http://10.0.0.7\\@evil",
        "http:// 10.0.0.7",
        "http://10.0.0.7\n",
        "http://2001:db8::7",
        "http://[2001:db8::7",
        "http://[10.0.0.7]",
        "http://[fe80::1%25eth0]:80",
        "http://under..dot",
        "http://" + "a" * 64,
        "http://" + ".".join(["a" * 63] * 4),
        "http://2130706433:80",
        "http://0x7f.1",
        "http://0177.0.0.1",
        5,
        ["http://10.0.0.7"],
    ],
)
def test_an_endpoint_that_is_none_is_refused_by_name(endpoint: object) -> None:
    assert fields_refused({"service_name": "ok", "endpoint": endpoint}) == ["endpoint"]


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"service_name": "under.dot"}, ["service_name"]),
        ({"service_name": ""}, ["service_name"]),
        ({"service_name": "x" * 64}, ["service_name"]),
        ({"service_name": "-x"}, ["service_name"]),
        ({"service_name": "x\n"}, ["service_name"]),
        ({"service_name": "catalog"}, ["service_name"]),
        ({"service_name": "DNS_version"}, ["service_name"]),
        ({"service_name": "\u212a"}, ["service_name"]),  # the Kelvin sign; its lower case is k
        ({"service_name": "\ud800"}, ["service_name"]),
        ({"service_name": 5}, ["service_name"]),
        ({"service_name": None}, ["service_name"]),
        ({"instance_id": "a b"}, ["instance_id"]),
        ({"address": "300.1.1.1"}, ["address"]),
        ({"address": "10.0.0.07"}, ["address"]),
        ({"address": "fe80::1%eth0"}, ["address"]),
        ({"address": 167772167}, ["address"]),
        ({"address": ["10.0.0.7", None]}, ["address"]),
        ({"address": []}, ["address"]),
        ({"address": [f"10.0.0.{n}" for n in range(1, 18)]}, ["address"]),
        ({"host": "a b"}, ["host"]),
        ({"host": ""}, ["host"]),
        ({"host": "é.example"}, ["host"]),
        ({"ports": {}}, ["ports"]),
        ({"ports": [80]}, ["ports"]),
        ({"ports": {"http": 70000}}, ["ports.http"]),
        ({"ports": {"http": 0}}, ["ports.http"]),
        ({"ports": {"http": "80"}}, ["ports.http"]),
        ({"ports": {"http": True}}, ["ports.http"]),
        ({"ports": {"http": 80.5}}, ["ports.http"]),
        ({"ports": {"http": None}}, ["ports.http"]),
        ({"ports": {"http": {"port": 80, "protocol": "sctp"}}}, ["ports.http"]),
        ({"ports": {"http": {"protocol": "tcp"}}}, ["ports.http"]),
        ({"ports": {"http": {"port": 80, "x": 1}}}, ["ports.http"]),
        ({"ports": {"HTTP": 80}}, ["ports.HTTP"]),
        ({"ports": {"80": 80}}, ["ports.80"]),
        ({"ports": {f"p{n}": 80 for n in range(17)}}, ["ports"]),
        ({"priority": 65536}, ["priority"]),
        ({"weight": -1}, ["weight"]),
        ({"weight": "1"}, ["weight"]),
        ({"version": ""}, ["version"]),
        ({"version": 1.2}, ["version"]),
        ({"zone": "eu 1"}, ["zone"]),
        ({"tags": "canary"}, ["tags"]),
        ({"tags": ["a", 5]}, ["tags.1"]),
        ({"tags": ["é"]}, ["tags"]),
        ({"tags": [f"t{n}" for n in range(17)]}, ["tags"]),
        ({"metadata": {"k": [5]}}, ["metadata.k"]),
        ({"metadata": {"k": None}}, ["metadata.k"]),
        ({"metadata": {"k": "v" * 257}}, ["metadata.k"]),
        ({"metadata": {"": "v"}}, ["metadata"]),
        ({"metadata": {"k": "\udfff"}}, ["metadata"]),
        ({"metadata": {f"k{n}": "v" for n in range(65)}}, ["metadata"]),
        ({"metadata": {f"k{n}": "v" * 250 for n in range(17)}}, ["metadata"]),
        ({"metadata": []}, ["metadata"]),
        ({"health_endpoint": "health"}, ["health_endpoint"]),
        ({"health_endpoint": "/a b"}, ["health_endpoint"]),
        ({"lease_ttl": 1}, ["lease_ttl"]),
        ({"lease_ttl": 3601}, ["lease_ttl"]),
        ({"lease_ttl": 5.5}, ["lease_ttl"]),
        ({"lease_ttl": True}, ["lease_ttl"]),
        ({"record_ttl": 0}, ["record_ttl"]),
        ({"record_ttl": 16}, ["record_ttl"]),
        ({"generation": -1}, ["generation"]),
        ({"generation": 2**53}, ["generation"]),
        ({"state": "suspect"}, ["state"]),
        ({"state": "waiting", "state_reason": "a\nb"}, ["state_reason"]),
        ({"nonsense": 1}, ["nonsense"]),
        ({"ports.http": 1}, ["ports.http"]),
    ],
)
def test_each_rule_is_reported_under_its_field(change: dict[str, Any], fields: list[str]) -> None:
    assert fields_refused({**GOOD, **change}) == fields


@pytest.mark.parametrize("field", ["service_name", "address", "ports"])
def test_what_is_required_is_missed_by_name(field: str) -> None:
    assert fields_refused({k: v for k, v in GOOD.items() if k != field}) == [field]


def test_every_problem_is_reported_at_once() -> None:
    """Faults of shape hide no broken rule beside them, not even within one map."""
    body = {
        "service_name": "under.dot",
        "address": ["10.0.0.1", 5],
        "ports": {"http": 70000, "game": {"port": 1, "protocol": "sctp"}, "X": 1},
        "metadata": {"good": 1, "bad": [5]},
        "weight": -1,
        "instnce_id": "x",
    }

    assert sorted(fields_refused(body)) == [
        "address",
        "instnce_id",
        "metadata.bad",
        "ports.X",
        "ports.game",
        "ports.http",
        "service_name",
        "weight",
    ]


def test_an_unknown_field_is_answered_with_the_nearest_known() -> None:
    assert message_of({**GOOD, "instnce_id": "x"}) == ("unknown field (did you mean instance_id?)")


@pytest.mark.parametrize("body", [None, 5, "x", [], [GOOD]])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    assert fields_refused(body) == ["body"]


def test_null_stands_for_a_field_left_out() -> None:
    optional = "instance_id host metadata tags lease_ttl generation endpoint version".split()

    assert registration({**GOOD, **dict.fromkeys(optional)}) == registration(GOOD)


def test_metadata_becomes_text() -> None:
    found = registration({**GOOD, "metadata": {"a": 1, "b": 1.5, "c": True, "d": False, "e": ""}})

    assert found.metadata == {"a": "1", "b": "1.5", "c": "true", "d": "false", "e": ""}


@pytest.mark.parametrize(
    ("lease", "record"), [(5, 1), (8, 2), (19, 4), (20, 5), (60, 5), (3600, 5), (0, 5)]
)
def test_the_default_record_ttl_follows_the_lease(lease: int, record: int) -> None:
    assert registration({**GOOD, "lease_ttl": lease}).record_ttl == record


def test_the_default_lease_is_the_registrars() -> None:
    assert registration(GOOD, Rules(("svc.internal.",), lease_ttl=6)).lease_ttl == 6


def test_without_a_lease_records_may_last_an_hour() -> None:
    assert registration({**GOOD, "lease_ttl": 0, "record_ttl": 3600}).record_ttl == 3600


@pytest.mark.parametrize(
    ("body", "instance"),
    [
        ({}, "10-0-0-7-80"),
        ({"ports": {"metrics": 9100, "admin": 8001}}, "10-0-0-7-8001"),
        ({"host": "web"}, "web-80"),
        ({"address": "2001:db8::7"}, "2001-0db8-0000-0000-0000-0000-0000-0007-80"),
    ],
)
def test_the_default_id_is_the_same_at_every_start(body: dict[str, Any], instance: str) -> None:
    assert registration({**GOOD, **body}).instance == instance


def test_an_id_of_its_own_needs_no_caller() -> None:
    """Otherwise the same instance, seen through two proxies, would change at each heartbeat."""
    found = registration({**GOOD, "instance_id": "one"})

    assert (found.named, found.caller) == (True, "")


def test_endpoint_and_the_fields_beside_it_go_together() -> None:
    found = registration(
        {
            "service_name": "ok",
            "endpoint": "http://web:8080",
            "address": "10.0.0.7",
            "ports": {"metrics": 9100},
        }
    )

    assert (found.host, found.addresses) == ("web", ("10.0.0.7",))
    assert found.ports == (Port("metrics", 9100), Port("http", 8080))


@pytest.mark.parametrize(
    ("more", "field"), [({"host": "db"}, "host"), ({"ports": {"http": 81}}, "ports.http")]
)
def test_endpoint_and_a_field_that_contradicts_it(more: dict[str, Any], field: str) -> None:
    assert fields_refused({"service_name": "ok", "endpoint": "http://web:80", **more}) == [field]


@pytest.mark.parametrize(
    "host", ["svc.internal", "x.svc.internal", "X.SVC.internal.", "y.x.svc.internal"]
)
def test_a_host_in_our_own_zone_is_no_place(host: str) -> None:
    """Looking it up would ask for the answer it is to give."""
    assert "own zone" in message_of({"service_name": "ok", "host": host, "ports": {"http": 80}})


def test_a_host_in_our_own_zone_does_no_harm_beside_an_address() -> None:
    assert registration({**GOOD, "host": "x.svc.internal"}).host == "x.svc.internal"


def test_names_too_long_for_dns_are_refused() -> None:
    """R14: an instance whose names would pass 255 octets is refused when registering."""
    zone = ".".join(["z" * 60] * 3) + "."
    body = {**GOOD, "service_name": "s" * 40, "instance_id": "i" * 40}

    assert fields_refused(body, Rules((zone,))) == ["service_name"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("address", "127.0.0.1"), ("endpoint", "http://[::1]:80"), ("host", "localhost")],
)
def test_loopback_is_refused_unless_allowed(field: str, value: str) -> None:
    body = {"service_name": "ok", "ports": {"http": 80}, field: value}
    allowed = Rules(RULES.zones, 60, networks("127.0.0.0/8,::1"))

    assert "--allow-endpoints" in message_of(body)
    assert registration(body, allowed).service == "ok"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(
    "service_name endpoint instance_id address host ports health_endpoint metadata priority"
    " weight version zone tags lease_ttl record_ttl generation state state_reason other"
    " ports.http".split()
)


@given(st.dictionaries(field_names, json_values))
def test_any_body_is_a_good_registration_or_a_list_of_problems(changes: dict[str, Any]) -> None:
    body = {**GOOD, **changes}
    found = registration_or_problems(body)

    if isinstance(found, Registration):
        assert problems_of(found) == []
        assert Registration.from_json(found.to_json()) == found
    else:
        assert 1 <= len(found) <= 50


def registration_or_problems(body: Any) -> Registration | tuple[Problem, ...]:
    try:
        return registration(body)
    except InvalidInstance as error:
        return error.problems


# --- heartbeats and states ------------------------------------------------------------------


def test_one_heartbeat_or_a_list() -> None:
    assert parse_heartbeats({"service_name": "A"}) == ([Beat("a")], False)
    assert parse_heartbeats([]) == ([], True)
    assert parse_heartbeats([{"service_name": "a", "instance_id": "B", "lease_id": "c"}]) == (
        [Beat("a", "b", "c")],
        True,
    )


def test_a_bad_heartbeat_does_not_cost_the_others_their_leases() -> None:
    beats, _ = parse_heartbeats([{"service_name": "a"}, {"service_name": "b.c"}, 5])

    assert beats[0] == Beat("a")
    assert [type(b) for b in beats[1:]] == [InvalidInstance, InvalidInstance]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "service_name"),
        ({"service_name": "a.b"}, "service_name"),
        ({"service_name": "a", "instance_id": ""}, "instance_id"),
        ({"service_name": "a", "lease_id": ""}, "lease_id"),
        ({"service_name": "a", "lease_id": "x" * 65}, "lease_id"),
        ({"service_name": "a", "lease_id": 5}, "lease_id"),
        ({"service_name": "a", "x": 5}, "x"),
        ([{"service_name": "a"}] * 1001, "body"),
        ("a", "body"),
    ],
)
def test_a_heartbeat_that_is_none(body: object, field: str) -> None:
    with pytest.raises(InvalidInstance) as caught:
        parse_heartbeats(body)

    assert [p.field for p in caught.value.problems] == [field]


def test_a_state_with_and_without_reason() -> None:
    assert parse_state({"state": "serving"}) == StateChange("serving", "")
    assert parse_state({"state": "draining", "reason": "disk 3 é"}) == StateChange(
        "draining", "disk 3 é"
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "state"),
        ({"state": "suspect"}, "state"),
        ({"state": "up"}, "state"),
        ({"state": 5}, "state"),
        ({"state": "serving", "reason": "two\nlines"}, "reason"),
        ({"state": "serving", "reason": "x" * 257}, "reason"),
        ({"state": "serving", "reason": " x"}, "reason"),
        ({"state": "serving", "why": "x"}, "why"),
    ],
)
def test_a_state_that_cannot_be_set(body: object, field: str) -> None:
    """A line end in a reason would forge the next line of the stored entry."""
    with pytest.raises(InvalidInstance) as caught:
        parse_state(body)

    assert [p.field for p in caught.value.problems] == [field]


def test_filters_are_gathered_by_name() -> None:
    query = [("tag", "a"), ("tag", "b"), ("zone", "eu"), ("_", "1")]

    assert filters_of(query) == {"tag": ["a", "b"], "version": [], "zone": ["eu"], "state": []}


@pytest.mark.parametrize("answers", [0, 1, 1000, 1.0])
def test_a_setting_is_a_whole_number_in_its_range(answers: Any) -> None:
    assert parse_settings({"answers": answers}) == answers


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"answers": None},
        {"answers": -1},
        {"answers": 1001},
        {"answers": "1"},
        {"answers": True},
        {"answers": 1.5},
        {"answers": 1, "ttl": 5},
        [],
        None,
    ],
)
def test_any_other_setting_is_refused(body: Any) -> None:
    with pytest.raises(InvalidInstance):
        parse_settings(body)
