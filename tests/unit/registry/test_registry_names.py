"""Which names pass, how they fold, and the DNS names that follow."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from registry import names

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize("name", ["a", "0", "nmap_service", "a--b", "a" * 63, "9-_9"])
def test_services_and_instances_may_be_called(name: str) -> None:
    assert names.problem_of_service(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", "_a", "a_", "a.b", "A", "a b", "ä", "a" * 64, "a\n", "a/b", "a\x00", "ª"],
)
def test_services_and_instances_may_not_be_called(name: str) -> None:
    problem = names.problem_of_service(name)

    assert problem is not None
    assert names.SERVICE_RULE in problem


@pytest.mark.parametrize("name", [*sorted(names.RESERVED_SERVICES), "dns_version"])
def test_labels_with_a_meaning_below_the_zone_are_reserved_in_any_spelling(name: str) -> None:
    assert "reserved" in (names.problem_of_service(name) or "")


@pytest.mark.parametrize("name", ["http", "h2c", "a", "x-1", "a" * 15, "0a"])
def test_ports_may_be_called(name: str) -> None:
    assert names.problem_of_port_name(name) is None


@pytest.mark.parametrize("name", ["", "1", "80-80", "-a", "a-", "a--b", "A", "a_b", "a" * 16, "é"])
def test_ports_may_not_be_called(name: str) -> None:
    assert names.problem_of_port_name(name) is not None


@pytest.mark.parametrize("value", ["eu-1", "1.2.0", "A_b", ".", "x" * 63])
def test_zones_versions_and_tags_may_be(value: str) -> None:
    assert names.problem_of_locality(value) is None


@pytest.mark.parametrize("value", ["", "a b", "a/b", "ü", "x" * 64, "a\n"])
def test_zones_versions_and_tags_may_not_be(value: str) -> None:
    assert names.problem_of_locality(value) is not None


@pytest.mark.parametrize(
    "name", ["vertice-maximus_eureka", "a.example.", "10.0.0.7", "X" * 63, "a." * 126 + "a"]
)
def test_hosts_may_be(name: str) -> None:
    assert names.problem_of_host(name) is None


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "a.b..", "a b", "ä", "x" * 64, "a." * 127, "http://a", "[::1]"]
)
def test_hosts_may_not_be(name: str) -> None:
    assert names.problem_of_host(name) is not None


@given(st.text(max_size=80))
def test_any_text_is_judged_and_what_passes_is_one_label(name: str) -> None:
    if names.problem_of_service(name) is None:
        assert names.fold(name).encode("ascii").isascii()
        assert "." not in name
    names.problem_of_port_name(name)
    names.problem_of_locality(name)
    names.problem_of_host(name)


@given(LABELS)
def test_folding_is_done_once_and_ignores_case_and_the_kind_of_dash(name: str) -> None:
    folded = names.fold(name)

    assert names.fold(folded) == folded == names.fold(name.upper().replace("-", "_"))
    assert "_" not in folded


@pytest.mark.parametrize(
    ("written", "apex"),
    [("svc.internal", "svc.internal."), (" SVC.Internal. ", "svc.internal."), ("a", "a.")],
)
def test_a_zone_is_lower_case_with_its_final_dot(written: str, apex: str) -> None:
    assert names.normal_zone(written) == apex


@pytest.mark.parametrize("written", ["", ".", "a..b", "a b", "-..-"])
def test_what_is_no_zone_is_said(written: str) -> None:
    with pytest.raises(ValueError, match="is not a zone name"):
        names.normal_zone(written)


@pytest.mark.parametrize(
    ("host", "port", "instance"),
    [
        ("10.0.0.7", 8080, "10-0-0-7-8080"),
        ("vertice-nmap", 8047, "vertice-nmap-8047"),
        ("vertice-maximus_eureka", 8200, "vertice-maximus_eureka-8200"),
        ("Web.Example.", 80, "web-example-80"),
        ("::1", 80, "0000-0000-0000-0000-0000-0000-0000-0001-80"),
        ("2001:db8::1", 80, "2001-0db8-0000-0000-0000-0000-0000-0001-80"),
    ],
)
def test_an_instance_without_an_id_is_called_by_where_it_is(
    host: str, port: int, instance: str
) -> None:
    assert names.default_instance_id(host, port) == instance


@given(st.from_regex(r"[a-zA-Z0-9_-]{1,63}(\.[a-zA-Z0-9_-]{1,63}){0,3}", fullmatch=True))
def test_every_host_gives_an_id_that_passes_and_is_the_same_at_every_start(host: str) -> None:
    made = names.default_instance_id(host, 65535)

    assert names.problem_of_service(made) is None
    assert made == names.default_instance_id(host, 65535)


def test_long_hosts_that_begin_alike_get_different_ids() -> None:
    one, other = ("x" * 60 + "." + end for end in ("one", "other"))

    assert names.default_instance_id(one, 80) != names.default_instance_id(other, 80)


def test_owner_names_are_folded_and_below_the_zone() -> None:
    zone = "svc.internal."

    assert names.service_owner("Nmap_Service", zone) == "nmap-service.svc.internal."
    assert names.srv_owner("http", "tcp", "a_b", zone) == "_http._tcp.a-b.svc.internal."
    assert names.instance_owner("pay_1", "a_b", zone) == "pay-1.a-b.svc.internal."
