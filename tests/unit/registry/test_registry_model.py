"""Registrations and instances: the rules, and the way to the store and back."""

import json
from dataclasses import fields, replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from registry import model, names
from registry.changes import (
    InstanceDown,
    InstanceUp,
    RevisionRaised,
    ServiceForgotten,
    ServiceSettings,
    decode_change,
)
from registry.errors import InvalidInstance, MalformedEntry
from registry.model import (
    Instance,
    Port,
    Registration,
    decode_instance,
    default_port,
    encode_instance,
    problems_of,
)

GOOD = Registration("payments", "pay-1", (Port("http", 8080),), ("10.0.0.7",))

labels = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True).filter(
    lambda name: names.fold(name) not in names.RESERVED_SERVICES
)
localities = st.from_regex(r"[a-zA-Z0-9._-]{1,63}", fullmatch=True)
ip_addresses = st.ip_addresses().map(str).filter(model.is_canonical_address)
ports = st.lists(
    st.builds(
        Port,
        st.sampled_from(["http", "https", "metrics", "game", "x-1"]),
        st.integers(1, 65535),
        st.sampled_from(["tcp", "udp"]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda p: p.name,
).map(tuple)
texts = st.text(max_size=60).filter(lambda t: model._is_encodable(t))
registrations = st.builds(
    Registration,
    labels,
    labels,
    ports,
    st.lists(ip_addresses, min_size=1, max_size=16).map(tuple),
    host=st.sampled_from(["", "vertice-maximus_eureka", "a.example"]),
    priority=st.integers(0, 65535),
    weight=st.integers(0, 65535),
    version=st.just("") | localities,
    zone=st.just("") | localities,
    tags=st.lists(localities, max_size=16).map(tuple),
    metadata=st.dictionaries(texts.filter(bool), texts, max_size=8),
    health_endpoint=st.from_regex(r"/[!-~]{0,80}", fullmatch=True),
    lease_ttl=st.just(0) | st.integers(5, 3600),
    record_ttl=st.just(1),
    named=st.booleans(),
    caller=st.just("") | ip_addresses,
    owner=st.just("") | localities,
)
instances = st.builds(
    Instance,
    registrations,
    st.integers(0, model.MAX_INTEGER),
    st.from_regex(r"[0-9a-f]{1,64}", fullmatch=True),
    st.integers(0, model.MAX_INTEGER),
    st.integers(0, model.MAX_INTEGER),
    st.sampled_from(model.STATES),
    st.sampled_from(["", "new disk", "ключ"]),
    st.lists(ip_addresses, max_size=16).map(tuple),
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


# --- there and back ---------------------------------------------------------------------------


@given(instances)
def test_an_instance_comes_back_from_the_store_as_it_went(instance: Instance) -> None:
    assert problems_of(instance.registration) == []

    value = encode_instance(instance)

    spelled = replace(instance, listed_as=instance.registration.service)
    assert decode_instance(value) == spelled
    assert value.count("\n") == 3
    assert len(value) <= model.MAX_ENTRY_CHARS


def test_the_longest_registration_that_passes_fits_into_an_entry() -> None:
    longest = Registration(
        "s" * 63,
        "i" * 63,
        tuple(Port(f"{n:02}" + "p" * 13, 65535, "udp") for n in range(model.MAX_PORTS)),
        tuple(f"2001:db8:1111:2222:3333:4444:5555:{n + 4096:x}" for n in range(16)),
        host=".".join(["h" * 62] * 4),
        priority=65535,
        weight=65535,
        version="v" * 63,
        zone="z" * 63,
        tags=("t" * 63,) * model.MAX_TAGS,
        metadata={chr(n) + "\x00" * 63: "\x00" * 64 for n in range(1, 33)},
        health_endpoint="/" + '"' * (model.MAX_PATH - 1),
        lease_ttl=3600,
        record_ttl=900,
        caller="2001:db8:1111:2222:3333:4444:5555:6666",
        owner="o" * 63,
    )
    instance = Instance(longest, model.MAX_INTEGER, "f" * 64, model.MAX_INTEGER)
    full = replace(instance, reason="r" * model.MAX_REASON, found=longest.addresses)

    assert problems_of(longest) == []
    assert decode_instance(encode_instance(full)).registration == longest


@given(registrations)
def test_equal_registrations_are_the_same_bytes_whatever_the_order_of_metadata(
    registration: Registration,
) -> None:
    turned = replace(registration, metadata=dict(reversed(list(registration.metadata.items()))))

    assert turned.to_json() == registration.to_json()
    assert Registration.from_json(registration.to_json()) == registration
    assert registration.to_json().isascii()


def test_fields_of_a_newer_version_are_left_alone() -> None:
    document = json.loads(GOOD.to_json()) | {"colour": "blue"}
    owned = replace(GOOD, owner="team-a")

    assert Registration.from_json(json.dumps(document)) == GOOD
    assert Registration.from_json(owned.to_json()) == owned
    assert "owner" not in GOOD.to_json(), "as those wrote it that knew no owners"
    with pytest.raises(MalformedEntry):
        Registration.from_json(replace(GOOD, owner="a b").to_json())


def test_a_service_listed_under_a_name_that_is_not_its_own_is_listed_by_its_own() -> None:
    value = encode_instance(Instance(replace(GOOD, service="pay_ments"), 1, "x", 1))

    assert decode_instance(value, "PAY-ments").listed_as == "PAY-ments"
    assert decode_instance(value, "orders").listed_as == "pay_ments"


# --- garbage ----------------------------------------------------------------------------------


def decoded_or_refused(value: str) -> None:
    try:
        instance = decode_instance(value)
    except MalformedEntry:
        return
    assert problems_of(instance.registration) == []
    assert isinstance(instance.in_dns, bool)
    assert instance.endpoint


@given(st.text(max_size=300))
@example("1 1 x 1 1 1\nserving\n\n" + "[" * 20_000)
@example("1 1 x 1 1 1\nserving\n\n{" + '"ports":' * 5)
@example("1 " + "9" * 5000 + " x 1 1 1\nserving\n\n{}")
@example("1 ٣ x 1 1 1\nserving\n\n" + GOOD.to_json())
def test_any_text_is_an_instance_or_malformed(value: str) -> None:
    decoded_or_refused(value)


@given(
    st.sampled_from([f.name for f in fields(Registration)]),
    JSON,
)
@example("ports", ["ab", "cd"])
@example("ports", [["http", 80, ["tcp"]]])
@example("ports", [[["http"], 80]])
@example("ports", {"a": 1, "b": 2})
@example("addresses", "10.0.0.1")
@example("addresses", [["10.0.0.1"]])
@example("addresses", ["fe80::1%eth0"])
@example("metadata", "")
@example("metadata", {"\ud800": 1})
@example("metadata", {"a": "\udfff"})
@example("priority", True)
@example("weight", float("nan"))
@example("weight", float("inf"))
@example("host", 0)
@example("named", 1)
@example("tags", [[], {}])
def test_any_value_in_any_field_is_good_or_malformed(field: str, value: Any) -> None:
    document = json.loads(GOOD.to_json())
    document[field] = value
    head = "1 1 x 1 1 60000\nserving\n\n"
    decoded_or_refused(head + json.dumps(document))


@given(instances, st.data())
def test_an_entry_with_characters_changed_is_good_or_malformed(
    instance: Instance, data: st.DataObject
) -> None:
    value = list(encode_instance(instance))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at] = data.draw(st.characters() | st.sampled_from('" \n{}[]:,0\x00'))
    decoded_or_refused("".join(value))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (0, "2 1 x 1 1 60000"),
        (0, "1 1 x 1 1"),
        (0, "1 -1 x 1 1 60000"),
        (0, "1 1  1 1 60000"),
        (0, f"1 {2**53} x 1 1 60000"),
        (0, "1 1 " + "x" * 65 + " 1 1 60000"),
        (1, "resting"),
        (1, "serving " + "r" * 257),
        (2, "10.0.0.01"),
        (2, " ".join(["10.0.0.1"] * 17)),
    ],
)
def test_an_entry_that_breaks_a_rule_says_so(line: int, text: str) -> None:
    lines = encode_instance(Instance(GOOD, 1, "x", 1)).split("\n")
    lines[line] = text

    with pytest.raises(MalformedEntry):
        decode_instance("\n".join(lines))


# --- rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"service": "a.b"}, "service_name"),
        ({"instance": "explain"}, "instance_id"),
        ({"ports": ()}, "ports"),
        ({"ports": (Port("http", 1), Port("http", 2))}, "ports"),
        ({"ports": (Port("http", 0),)}, "ports.http"),
        ({"ports": (Port("http", 65536),)}, "ports.http"),
        ({"ports": (Port("http", 80, "sctp"),)}, "ports.http"),
        ({"ports": tuple(Port(f"p{n}", 1) for n in range(17))}, "ports"),
        ({"addresses": ()}, "address"),
        ({"addresses": ("10.0.0.01",)}, "address"),
        ({"addresses": ("10.0.0.1",) * 17}, "address"),
        ({"host": "a..b"}, "host"),
        ({"priority": -1}, "priority"),
        ({"weight": 65536}, "weight"),
        ({"version": "1 2"}, "version"),
        ({"zone": "ü"}, "zone"),
        ({"tags": ("",)}, "tags"),
        ({"tags": ("t",) * 17}, "tags"),
        ({"metadata": {"a": "b" * 257}}, "metadata.a"),
        ({"metadata": {"": "b"}}, "metadata"),
        ({"metadata": {str(n): "" for n in range(65)}}, "metadata"),
        ({"metadata": {str(n): "x" * 255 for n in range(17)}}, "metadata"),
        ({"health_endpoint": "health"}, "health_endpoint"),
        ({"health_endpoint": "/a b"}, "health_endpoint"),
        ({"health_endpoint": "/a\r\nHost: b"}, "health_endpoint"),
        ({"health_endpoint": "/" + "a" * 1024}, "health_endpoint"),
        ({"lease_ttl": 4}, "lease_ttl"),
        ({"lease_ttl": 3601}, "lease_ttl"),
        ({"lease_ttl": True}, "lease_ttl"),
        ({"record_ttl": 0}, "record_ttl"),
        ({"record_ttl": 16}, "record_ttl"),
        ({"caller": "somewhere"}, "caller"),
        ({"owner": "team a"}, "owner"),
    ],
)
def test_a_broken_rule_names_its_field(change: dict[str, Any], field: str) -> None:
    problems = problems_of(replace(GOOD, **change))

    assert field in {p.field for p in problems}


def test_every_problem_is_said_at_once() -> None:
    bad = replace(GOOD, service="", priority=-1, weight=-1, lease_ttl=1)

    error = InvalidInstance(problems_of(bad))

    assert [p.field for p in error.problems] == ["service_name", "priority", "weight", "lease_ttl"]
    assert all(p.message in str(error) for p in error.problems)


@pytest.mark.parametrize(
    ("lease", "default", "most"),
    [(0, 5, 3600), (5, 1, 1), (7, 1, 1), (8, 2, 2), (60, 5, 15), (3600, 5, 900)],
)
def test_a_record_lives_for_a_quarter_of_the_lease_at_most(
    lease: int, default: int, most: int
) -> None:
    assert model.default_record_ttl(lease) == default
    assert model.max_record_ttl(lease) == most
    assert default <= most


# --- what follows from it ------------------------------------------------------------------------


def test_the_default_port_is_http_else_the_only_one_else_the_first_by_name() -> None:
    http, game, admin = Port("http", 1), Port("game", 2, "udp"), Port("admin", 3)

    assert default_port((game, http)) == http
    assert default_port((game,)) == game
    assert default_port((game, admin)) == admin
    assert default_port((admin, game), "udp") == game
    with pytest.raises(ValueError, match=r".+"):
        default_port((admin,), "udp")


@pytest.mark.parametrize(
    ("change", "endpoint"),
    [
        ({}, "http://10.0.0.7:8080"),
        ({"host": "vertice-nmap"}, "http://vertice-nmap:8080"),
        ({"addresses": ("fd00::7",)}, "http://[fd00::7]:8080"),
        ({"ports": (Port("https", 443),)}, "https://10.0.0.7:443"),
        ({"ports": (Port("redis", 6379),)}, "tcp://10.0.0.7:6379"),
        ({"ports": (Port("game", 4000, "udp"),)}, "udp://10.0.0.7:4000"),
    ],
)
def test_an_endpoint_is_scheme_place_and_default_port(
    change: dict[str, Any], endpoint: str
) -> None:
    assert Instance(replace(GOOD, **change), 1, "x", 1).endpoint == endpoint


@pytest.mark.parametrize("state", model.STATES)
def test_only_those_that_serve_or_are_merely_suspect_are_in_dns(state: str) -> None:
    instance = Instance(GOOD, 1, "x", 1, state=state)

    assert instance.in_dns == (state in ("serving", "suspect"))
    unplaced = replace(instance, registration=replace(GOOD, addresses=(), host="h"))
    assert not unplaced.in_dns
    assert replace(unplaced, found=("10.0.0.9",)).in_dns == instance.in_dns


def test_given_addresses_come_before_found_ones_each_once() -> None:
    instance = Instance(GOOD, 1, "x", 1, found=("10.0.0.9", "10.0.0.7"))

    assert instance.addresses == ("10.0.0.7", "10.0.0.9")


def test_an_instance_is_listed_with_what_was_left_out_as_null() -> None:
    instance = Instance(
        replace(GOOD, ports=(Port("http", 8080), Port("game", 4000, "udp"))), 7, "x", 1500
    )

    assert model.as_document(instance) == {
        "instance_id": "pay-1",
        "endpoint": "http://10.0.0.7:8080",
        "addresses": ["10.0.0.7"],
        "host": None,
        "ports": {"http": 8080, "game": {"port": 4000, "protocol": "udp"}},
        "priority": 0,
        "weight": 100,
        "version": None,
        "zone": None,
        "tags": [],
        "metadata": {},
        "health_endpoint": "/health",
        "state": "serving",
        "state_reason": None,
        "static": False,
        "registered_at": 1.5,
        "revision": "7",
    }


# --- changes -------------------------------------------------------------------------------------


def test_changes_come_back_from_the_stream() -> None:
    instance = Instance(GOOD, 8, "x", 1, listed_as="payments")
    up = {"r": "8", "p": "7", "k": "up", "m": "payments/pay-1", "v": encode_instance(instance)}
    down = {"r": "9", "p": "8", "k": "down", "m": "payments/pay-1", "w": "evicted"}

    assert decode_change({**up, "n": "payments"}) == InstanceUp(instance, 8, 7)
    assert decode_change(down) == InstanceDown("payments", "pay-1", "evicted", 9, 8)
    assert decode_change({"r": "10", "p": "9", "k": "forgotten", "m": "payments"}) == (
        ServiceForgotten("payments", 10, 9)
    )
    assert decode_change({"r": "99", "p": "10", "k": "raised", "m": ""}) == RevisionRaised(99, 10)
    assert decode_change({"r": "11", "p": "10", "k": "settings", "m": "payments", "a": "3"}) == (
        ServiceSettings("payments", 3, 11, 10)
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"r": "7"},
        {"p": "8"},
        {"r": "x"},
        {"r": str(2**53), "p": "8"},
        {"p": "-1"},
        {"k": "sideways"},
        {"k": "settings"},
        {"k": "settings", "a": "-1"},
        {"k": "settings", "a": "1001"},
        {"k": "settings", "a": "9" * 5000},
        {"k": "settings", "a": "\u0663"},
        {"k": ""},
        {"k": "settings", "m": "payments"},
        {"k": "settings", "m": "payments", "a": "1001"},
        {"k": "settings", "m": "payments", "a": "9" * 5000},
        {"k": "settings", "m": "payments", "a": "٣"},
        {"m": "payments/pay-2"},
        {"r": "9", "p": "8"},
        {"v": ""},
    ],
)
def test_a_change_that_contradicts_itself_is_malformed(broken: dict[str, str]) -> None:
    value = encode_instance(Instance(GOOD, 8, "x", 1))
    good = {"r": "8", "p": "7", "k": "up", "m": "payments/pay-1", "v": value, "n": ""}

    with pytest.raises(MalformedEntry):
        decode_change(good | broken)


@given(
    st.dictionaries(
        st.sampled_from(["r", "p", "k", "m", "v", "n", "w", "a"]) | st.text(max_size=3),
        st.sampled_from(["up", "down", "forgotten", "settings", "raised", "1", "2"])
        | st.text(max_size=40),
    )
)
def test_any_entry_is_a_change_or_malformed(entry: dict[str, str]) -> None:
    try:
        change = decode_change(entry)
    except MalformedEntry:
        return
    assert change.prev < change.revision
