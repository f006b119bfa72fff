"""What the gateway asks for is what dnsd answers: the two meet only over these names."""

import pytest

from resolver_gateway import srv
from resolver_gateway.request import RequestHead
from resolver_gateway.routing import Router, ToService
from resolver_gateway.rules import Rule, Rules
from resolver_gateway.srv import Absent, Resolution
from tests.support.dnsd import APEX, Dnsd, instance

CASE = 0x5A5A5A5A5A5A5A5A
"""Some letters upper, some lower: an answer must repeat them."""


@pytest.fixture
def dnsd() -> Dnsd:
    return Dnsd(
        instance("Pay_ments", "old", ["10.0.0.1"], version="1.2.0", zone="EU.1", tags=("stable",)),
        instance("Pay_ments", "new", ["10.0.0.2"], version="v2_rc", zone="us", tags=("canary",)),
        instance("Pay_ments", "more", ["10.0.0.3"], version="1.2.0", zone="us", priority=5),
    )


def found(dnsd: Dnsd, router: Router, segment: str) -> srv.Reply:
    route = router.route(RequestHead(b"GET", f"/v2/{segment}/".encode(), 1))
    assert isinstance(route, ToService)
    asked = srv.question(srv.srv_name(route.named.name, APEX), srv.SRV, CASE)
    packet = dnsd.raw(srv.query(asked, 7))
    assert packet is not None
    return srv.parse_srv_response(packet, asked, 7, route.named.service, APEX)


def instances(reply: srv.Reply) -> list[tuple[str, int]]:
    assert isinstance(reply, Resolution)
    return sorted((u.instance, u.priority) for u in reply.upstreams)


@pytest.mark.parametrize(
    ("segment", "chosen"),
    [
        ("pay-ments", ["more", "new", "old"]),
        ("PAY_MENTS_URL", ["more", "new", "old"]),
        ("pay-ments@1.2.0", ["more", "old"]),
        ("pay-ments@V2-RC", ["new"]),
        ("pay-ments@tag:canary", ["new"]),
        ("pay-ments@zone:us", ["more", "new"]),
        ("pay-ments@1.2.0,zone:us", ["more"]),
        ("pay-ments@zone:eu.1,tag:stable,version:1.2.0", ["old"]),
    ],
)
def test_a_subset_is_what_it_says(dnsd: Dnsd, segment: str, chosen: list[str]) -> None:
    assert [name for name, _ in instances(found(dnsd, Router(), segment))] == chosen


def test_the_own_zone_comes_first_whatever_the_priorities_were(dnsd: Dnsd) -> None:
    router = Router(prefer_zone="us")

    assert instances(found(dnsd, router, "pay-ments")) == [("more", 5), ("new", 0), ("old", 6)]
    assert instances(found(dnsd, router, "pay-ments@1.2.0")) == [("more", 5), ("old", 6)]
    assert instances(found(dnsd, router, "pay-ments@zone:eu.1")) == [("old", 0)]


def test_a_rule_chooses_by_tag_and_port(dnsd: Dnsd) -> None:
    rules = Rules(Rule(), {"pay-ments": Rule(tag="canary"), "other": Rule(port="admin")})

    assert instances(found(dnsd, Router(rules), "pay-ments")) == [("new", 0)]
    assert found(dnsd, Router(rules), "other") == Absent(False, 5.0)


def test_a_value_that_nobody_has_is_no_unknown_service(dnsd: Dnsd) -> None:
    assert found(dnsd, Router(), "pay-ments@9") == Absent(True, 5.0)
    assert found(dnsd, Router(), "nobody@9") == Absent(False, 5.0)


def test_the_serial_is_the_revision_that_an_event_names(dnsd: Dnsd) -> None:
    asked = srv.question(APEX, srv.SOA, CASE)
    packet = dnsd.raw(srv.query(asked, 7))

    assert packet is not None
    assert srv.parse_serial_response(packet, asked, 7) == dnsd.catalog.revision & 0xFFFFFFFF
