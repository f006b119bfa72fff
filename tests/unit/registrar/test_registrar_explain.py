"""What a DNS name asks, and why it is answered as it is."""

from dataclasses import replace
from typing import Any

import pytest

from registrar.explain import Source, explained
from registrar.questions import Nothing, OfService, Special, parse_question
from registry.catalog import Catalog
from registry.errors import InvalidInstance
from registry.model import Instance, Port, Registration

ZONES = ("svc.internal.", "eu.svc.internal.")
FRESH = Source(True, 0.0, "")

# --- the question -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("payments.svc.internal.", OfService("payments")),
        ("payments.svc.internal", OfService("payments")),
        ("payments", OfService("payments")),
        ("PAY_ments", OfService("pay-ments")),
        ("payments.service", OfService("payments")),
        ("_http._tcp.payments", OfService("payments", port=("http", "tcp"))),
        ("_game._udp.payments", OfService("payments", port=("game", "udp"))),
        ("_payments._tcp", OfService("payments", protocol="tcp")),
        ("_nmap_service._tcp", OfService("nmap-service", protocol="tcp")),
        ("_tcp.payments", OfService("payments", protocol="tcp", is_between=True)),
        ("pay_1.payments", OfService("payments", instance="pay-1")),
        (
            "_http._tcp.pay-1.payments",
            OfService("payments", instance="pay-1", port=("http", "tcp")),
        ),
        ("v2.version.payments", OfService("payments", selectors=(("version", "v2"),))),
        (
            "canary.tag.eu-1.zone.payments",
            OfService("payments", selectors=(("zone", "eu-1"), ("tag", "canary"))),
        ),
        ("version.payments", OfService("payments", is_between=True)),
        ("eu-1.prefer.payments", OfService("payments", prefer="eu-1")),
        (
            "_http._tcp.v2.version.payments",
            OfService("payments", selectors=(("version", "v2"),), port=("http", "tcp")),
        ),
    ],
)
def test_names_of_services_are_read_from_the_right(name: str, place: OfService) -> None:
    assert parse_question(name, "SRV", ZONES[:1]).place == place


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("svc.internal", "apex"),
        ("ns1.svc.internal", "name-server"),
        ("catalog.svc.internal", "catalog"),
        ("dns-version.svc.internal", "version"),
        ("_tcp.svc.internal", "between"),
        ("_services._dns-sd._udp.svc.internal", "browsing"),
        ("b._dns-sd._udp.svc.internal", "browsing"),
        ("_payments._sub._http._tcp.svc.internal", "browsing"),
        ("pay-1._http._tcp.svc.internal", "browsing"),
        ("example.org.", "outside"),
        ("internal.", "outside"),
        ("xsvc.internal.", "outside"),
        (".".join(["abc"] * 64), "outside"),
    ],
)
def test_some_names_have_a_meaning_of_their_own(name: str, kind: str) -> None:
    place = parse_question(name, "A", ZONES).place

    assert isinstance(place, Special)
    assert place.kind == kind


def test_a_ptr_at_a_port_is_browsing() -> None:
    assert isinstance(parse_question("_http._tcp", "PTR", ZONES).place, Special)


@pytest.mark.parametrize(
    "name",
    [
        "_x._tcp.y._udp.payments",
        "http._tcp.payments",
        "_http.payments",
        "a.b.payments",
        "x.tag",
        "one.v2.version.payments",
        "pay-1.v2.version.payments",
        "x_",
        "payments._tcp",
    ],
)
def test_some_names_could_be_nothing(name: str) -> None:
    assert isinstance(parse_question(name, "A", ZONES).place, Nothing)


def test_of_nested_zones_the_deeper_one_is_meant() -> None:
    question = parse_question("payments.eu.svc.internal", "a", ZONES)

    assert (question.zone, question.qtype) == ("eu.svc.internal.", "A")
    assert question.name == "payments.eu.svc.internal."


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, "a b..c"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInstance, match="name"):
        parse_question(name, "A", ZONES)


@pytest.mark.parametrize("qtype", ["", "A B", "5", "X" * 17])
def test_what_is_no_type_is_refused(qtype: str) -> None:
    with pytest.raises(InvalidInstance, match="type"):
        parse_question("payments", qtype, ZONES)


# --- the answer -------------------------------------------------------------------------------

MODEL = Registration("payments", "x", (Port("http", 8080),), ("10.0.0.1",), record_ttl=5)


def catalog_of(*instances: Instance) -> Catalog:
    catalog = Catalog()
    for instance in instances:
        catalog.put(instance)
    catalog.revision = 99
    return catalog


def an_instance(name: str, state: str = "serving", reason: str = "", **more: Any) -> Instance:
    registration = replace(MODEL, instance=name, **more)
    return Instance(registration, 7, "l", 1000, 0, state, reason, (), registration.service)


def told(catalog: Catalog, name: str, qtype: str = "A", source: Source = FRESH) -> dict[str, Any]:
    return explained(parse_question(name, qtype, ZONES), catalog, source)


def reasons(document: dict[str, Any]) -> dict[str, tuple[bool, str]]:
    return {i["instance_id"]: (i["in"], i["why"]) for i in document["instances"]}


def test_each_instance_is_in_or_out_with_its_reason() -> None:
    catalog = catalog_of(
        an_instance("good"),
        an_instance("drained", "draining", "new disk"),
        an_instance("lost", addresses=(), host="gone.example"),
        an_instance("spare", priority=10),
        an_instance("six", addresses=("2001:db8::1",)),
        an_instance("late", "suspect"),
    )

    document = told(catalog, "payments", "A")

    assert document["answer"] == "NOERROR"
    assert document["why"] == "1 of 6 instances"
    assert reasons(document) == {
        "good": (True, "it is serving"),
        "drained": (False, "its state is draining (new disk)"),
        "lost": (False, "it has no address: none was found for its host 'gone.example'"),
        "spare": (False, "its priority is 10, and 0 is answered"),
        "six": (False, "it has no IPv4 address"),
        "late": (False, "its priority is 1000, and 0 is answered"),
    }


def test_srv_answers_every_priority() -> None:
    catalog = catalog_of(an_instance("good"), an_instance("spare", priority=10, record_ttl=2))

    document = told(catalog, "_http._tcp.payments", "SRV")

    assert [i["in"] for i in document["instances"]] == [True, True]
    assert document["ttl"] == 2, "the least"
    assert document["parse"]["port"] == "http"


def test_selectors_leave_out_with_a_reason() -> None:
    catalog = catalog_of(
        an_instance("new", version="v2.0.1", tags=("canary",)),
        an_instance("old", version="v1"),
        an_instance("plain"),
    )

    by_version = told(catalog, "v2-0-1.version.payments")
    by_tag = told(catalog, "canary.tag.payments")
    by_both = told(catalog, "v1.version.canary.tag.payments")

    assert reasons(by_version)["old"] == (False, "its version is v1, not v2-0-1")
    assert reasons(by_version)["plain"] == (False, "its version is not given, not v2-0-1")
    assert [i["in"] for i in by_version["instances"]] == [True, False, False]
    assert [i["in"] for i in by_tag["instances"]] == [True, False, False]
    assert by_both["answer"] == "NODATA"


def test_local_instances_come_first_where_there_are_any() -> None:
    catalog = catalog_of(an_instance("here", zone="EU-1"), an_instance("there", zone="us-1"))

    local, elsewhere = (told(catalog, f"{zone}.prefer.payments") for zone in ("eu-1", "ap-1"))

    assert reasons(local)["there"] == (False, "it is not in zone eu-1, and others are")
    assert [i["in"] for i in elsewhere["instances"]] == [True, True]


def test_a_limit_of_answers_is_said() -> None:
    catalog = catalog_of(an_instance("a"), an_instance("b"))
    catalog.put_answers("payments", 1)

    document = told(catalog, "payments")

    assert document["answers"] == 1
    assert document["why"] == "2 of 2 instances, of which an answer holds 1, drawn by weight"


@pytest.mark.parametrize(
    ("name", "qtype", "answer", "why"),
    [
        ("orders", "A", "NXDOMAIN", "no service 'orders' is known"),
        ("x_", "A", "NXDOMAIN", "names no service"),
        ("example.org.", "A", "REFUSED", "no zone"),
        ("payments", "MX", "NODATA", "no MX here"),
        ("payments", "ANY", "NOERROR", "1 of 1"),
        ("_http._tcp.payments", "A", "NODATA", "no A here, only SRV"),
        ("_grpc._tcp.payments", "SRV", "NXDOMAIN", "no port _grpc._tcp, but _http._tcp"),
        ("_payments._udp", "SRV", "NXDOMAIN", "no port over udp"),
        ("_payments._tcp", "SRV", "NOERROR", "1 of 1"),
        ("_tcp.payments", "A", "NODATA", "below it"),
        ("other.payments", "A", "NXDOMAIN", "no instance 'other'"),
        ("good.payments", "TXT", "NOERROR", "1 of 1"),
        ("catalog", "PTR", "NOERROR", "no instance decides it"),
        ("_tcp", "A", "NODATA", "below it"),
    ],
)
def test_outcomes(name: str, qtype: str, answer: str, why: str) -> None:
    document = told(catalog_of(an_instance("good")), name, qtype)

    assert document["answer"] == answer
    assert why in document["why"]


def test_an_instance_out_of_dns_has_no_name() -> None:
    document = told(catalog_of(an_instance("a", "maintenance")), "a.payments")

    assert document["answer"] == "NXDOMAIN"
    assert document["why"] == "the instance is not in DNS: its state is maintenance"


def test_a_service_whose_last_instance_left_is_remembered() -> None:
    catalog = Catalog()
    catalog.put_gone(an_instance("a"))

    document = told(catalog, "payments")

    assert (document["answer"], document["ttl"]) == ("NODATA", 5)
    assert "its last instance has left" in document["why"]
    assert told(catalog, "_http._tcp.payments", "SRV")["answer"] == "NODATA"


def test_an_unknown_name_is_told_the_likely_ones() -> None:
    catalog = catalog_of(
        an_instance("a", service="nmap_service"), an_instance("a", service="payments")
    )

    assert told(catalog, "nmap_servic")["near"] == ["nmap_service"]
    assert told(catalog, "payments")["near"] == []
    assert told(catalog, "zzz")["near"] == []


def test_a_stale_source_is_said_and_lowers_the_ttl() -> None:
    catalog = catalog_of(an_instance("a", record_ttl=300, lease_ttl=3600))

    document = told(catalog, "payments", source=Source(False, 12.5, "Connection refused"))

    assert (document["source"], document["age"], document["ttl"]) == ("stale", 12.5, 30)
    assert document["error"] == "Connection refused"
    assert document["revision"] == "99"
    never = told(catalog, "payments", source=Source(False, float("inf"), "loading"))
    assert never["age"] is None
