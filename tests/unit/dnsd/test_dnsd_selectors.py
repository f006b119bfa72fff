"""Names that choose among a service's instances: selectors, prefer, the alias, ports before any."""

from collections import Counter

import pytest

from dnsd.front import kind_of
from registry import names
from registry.model import Port, Registration, problems_of
from tests.support.dnsd import LOCAL, Dnsd, glue, instance, outcome, query_of, rdatas

PORTS = (Port("http", 8080), Port("metrics", 9100), Port("game", 4000, "udp"))


@pytest.fixture
def dnsd() -> Dnsd:
    return Dnsd(
        instance("pay", "a", ("10.0.0.1",), PORTS, version="v1.0.1", zone="EU-1", tags=("blue",)),
        instance("pay", "b", ("10.0.0.2",), PORTS, version="v2", zone="EU-1", tags=("blue", "x_y")),
        instance("pay", "c", ("10.0.0.3",), PORTS[:1], version="v2", zone="us-1", priority=5),
    )


def targets(dnsd: Dnsd, name: str) -> list[str]:
    """Priority and id of each SRV record at *name*, in order."""
    found = sorted(r.split() for r in rdatas(dnsd.dig(name, "SRV")))
    return [f"{r[0]} {r[3].split('.')[0]}" for r in sorted(found, key=lambda r: int(r[0]))]


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("v2.version", {"10.0.0.2"}),
        ("v1-0-1.version", {"10.0.0.1"}),
        ("V1-0-1.VERSION", {"10.0.0.1"}),
        ("eu-1.zone", {"10.0.0.1", "10.0.0.2"}),
        ("eu_1.zone", {"10.0.0.1", "10.0.0.2"}),
        ("us-1.zone", {"10.0.0.3"}),
        ("blue.tag", {"10.0.0.1", "10.0.0.2"}),
        ("x-y.tag", {"10.0.0.2"}),
        ("serving.state", {"10.0.0.1", "10.0.0.2"}),
        ("v2.version.eu-1.zone", {"10.0.0.2"}),
        ("eu-1.zone.v2.version", {"10.0.0.2"}),
        ("blue.tag.x-y.tag.eu-1.zone.v2.version.serving.state", {"10.0.0.2"}),
        ("blue.tag.blue.tag", {"10.0.0.1", "10.0.0.2"}),
    ],
)
def test_selectors_choose_and_chain_with_and(dnsd: Dnsd, name: str, addresses: set[str]) -> None:
    """A value is a label: without regard to case, `.` and `_` written as `-`."""
    assert set(rdatas(dnsd.dig(f"{name}.pay"))) == addresses


def test_a_selector_gives_srv_with_the_addresses_of_the_targets(dnsd: Dnsd) -> None:
    answer = dnsd.dig("v2.version.pay", "SRV")

    assert sorted(rdatas(answer)) == [
        "0 100 8080 b.pay.svc.internal.",
        "5 100 8080 c.pay.svc.internal.",
    ]
    assert sorted(glue(answer)) == ["b.pay.svc.internal. 10.0.0.2", "c.pay.svc.internal. 10.0.0.3"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_metrics._tcp.pay", {"a", "b"}),
        ("_metrics._tcp.v2.version.pay", {"b"}),
        ("_game._udp.eu-1.zone.pay", {"a", "b"}),
        ("_metrics._tcp.us-1.zone.pay", set()),
        ("_http._tcp.eu-1.prefer.pay", {"a", "b", "c"}),
        ("_metrics._tcp.b.pay", {"b"}),
        ("_game._udp.a.pay", {"a"}),
        ("_http._tcp.pay.service", {"a", "b", "c"}),
        ("_metrics._tcp.v2.version.pay.service", {"b"}),
    ],
)
def test_a_port_may_precede_any_name(dnsd: Dnsd, name: str, expected: set[str]) -> None:
    answer = dnsd.dig(name, "SRV")

    assert {r.split()[3].split(".")[0] for r in rdatas(answer)} == expected
    assert outcome(answer) == ("NOERROR" if expected else "NODATA")


@pytest.mark.parametrize("name", ["none.version", "x.tag.pay-x.zone", "v2.version.us-2.zone"])
@pytest.mark.parametrize("rtype", ["A", "SRV", "ANY", "TXT", "HTTPS"])
def test_l8_a_value_that_nobody_has_is_nodata(dnsd: Dnsd, name: str, rtype: str) -> None:
    for whole in (f"{name}.pay", f"_http._tcp.{name}.pay", f"tag.{name}.pay"):
        answer = dnsd.dig(whole, rtype)
        assert outcome(answer) == "NODATA"
        assert answer.authority


def test_l8_a_dot_within_a_label_is_not_the_hyphen_of_a_version(dnsd: Dnsd) -> None:
    packet = query_of(b"\x06v1.0.1\x07version\x03pay\x03svc\x08internal\0")

    reply = dnsd.raw(packet, LOCAL)

    assert reply is not None
    assert reply[2:4] == b"\x84\0"
    assert reply[6:10] == b"\0\0\0\1", "NODATA"


def test_l8_of_a_service_that_is_not_known_selectors_are_nxdomain(dnsd: Dnsd) -> None:
    for name in ("v2.version.none", "tag.none", "_http._tcp.x.tag.none", "x.prefer.none"):
        assert outcome(dnsd.dig(name)) == "NXDOMAIN"


def test_b8_values_that_nobody_has_leave_nothing_in_memory(dnsd: Dnsd) -> None:
    """Any label may stand there: a stranger could fill the memory with them."""
    shapes = (
        *("x{}.tag.pay", "_http._tcp.x{}.tag.pay", "tag.x{}.version.pay", "_tcp.x{}.zone.pay"),
        *("x{}.prefer.pay", "_http._tcp.x{}.prefer.pay", "tag.x{}.prefer.pay"),
        "v1-0-1.version.v2.version.x{}.prefer.pay",
    )
    for n in range(50):
        for shape in shapes:
            for rtype in ("A", "SRV", "MX"):
                packet = query_of(f"{shape.format(n)}.svc.internal.", rtype)
                assert dnsd.reply(packet).keep is None

    assert len(dnsd.table._names) == 0
    assert sum(len(group.answers) for group in dnsd.table._groups.values()) < 20


def test_r16_state_chooses_among_what_is_answered(dnsd: Dnsd) -> None:
    """Who is not serving leaves every answer, and its own name: there is nothing to point at."""
    dnsd.up(instance("pay", "a", ("10.0.0.1",), PORTS, state="draining"))
    dnsd.up(instance("pay", "b", ("10.0.0.2",), PORTS, state="suspect"))

    assert outcome(dnsd.dig("draining.state.pay")) == "NODATA"
    assert targets(dnsd, "suspect.state.pay") == ["1000 b"]
    assert targets(dnsd, "serving.state.pay") == ["5 c"]


def test_l7_selectors_of_a_service_without_instances_are_nodata(dnsd: Dnsd) -> None:
    for id in "abc":
        dnsd.down("pay", id)

    for name in ("v2.version.pay", "tag.pay", "eu-1.prefer.pay", "_http._tcp.x.tag.pay"):
        assert outcome(dnsd.dig(name, "SRV")) == "NODATA"
    dnsd.forget("pay")
    assert outcome(dnsd.dig("v2.version.pay")) == "NXDOMAIN"


@pytest.mark.parametrize("selector", ["tag", "version", "zone", "state", "prefer"])
def test_l4_selectors_themselves_are_empty_non_terminals(dnsd: Dnsd, selector: str) -> None:
    for name in (f"{selector}.pay", f"{selector}.pay.service"):
        for rtype in ("A", "SRV", "TXT", "ANY", "PTR"):
            assert outcome(dnsd.dig(name, rtype)) == "NODATA"
    assert outcome(dnsd.dig(f"_tcp.x.{selector}.pay")) == "NODATA"


@pytest.mark.parametrize(
    "name",
    [
        *("x.tag.a.pay", "tag.a.pay", "a.x.tag.pay", "x.pay", "a.b.pay", "_x._tcp.v2.version.pay"),
        *("_http._udp.v2.version.pay", "_sctp.v2.version.pay", "y._http._tcp.v2.version.pay"),
        *("_game._udp.c.pay", "_udp.c.pay", "u.prefer.v.prefer.pay", "prefer.v.prefer.pay"),
        *("a.tag", "tag", "version", "x.service", "_tcp.service", "_http._tcp.service"),
        *("pay.service.service", "catalog.service", "ns1.service", "a.catalog", "explain"),
        ".".join(f"{n}.tag" for n in range(9)) + ".pay",
    ],
)
def test_l5_what_is_no_choice_does_not_exist(dnsd: Dnsd, name: str) -> None:
    for rtype in ("A", "SRV", "TXT"):
        assert outcome(dnsd.dig(name, rtype)) == "NXDOMAIN"


@pytest.mark.parametrize("name", ["pay", "_http._tcp.pay", "b.pay", "v2.version.pay", "_tcp.pay"])
@pytest.mark.parametrize("rtype", ["A", "AAAA", "SRV", "TXT", "ANY", "MX"])
def test_the_alias_is_the_service_with_all_below_it(dnsd: Dnsd, name: str, rtype: str) -> None:
    usual, alias = dnsd.dig(name, rtype), dnsd.dig(f"{name}.service", rtype)

    assert outcome(usual) == outcome(alias)
    assert set(rdatas(usual)) == set(rdatas(alias))


def test_the_alias_is_there_as_long_as_there_are_services() -> None:
    dnsd = Dnsd()
    assert outcome(dnsd.dig("service")) == "NXDOMAIN"

    dnsd.up(instance())

    assert outcome(dnsd.dig("service")) == "NODATA"


def test_chosen_names_have_no_text(dnsd: Dnsd) -> None:
    for name in ("v2.version.pay", "eu-1.prefer.pay", "nowhere.prefer.pay", "_http._tcp.a.pay"):
        assert outcome(dnsd.dig(name, "TXT")) == "NODATA"
        assert outcome(dnsd.dig(name, "ANY")) == "NOERROR"


# --- prefer -------------------------------------------------------------------------------------


def test_prefer_gives_a_of_the_zone_and_puts_others_behind_in_srv(dnsd: Dnsd) -> None:
    assert rdatas(dnsd.dig("us-1.prefer.pay")) == ["10.0.0.3"]
    assert targets(dnsd, "us-1.prefer.pay") == ["5 c", "6 a", "6 b"]
    assert set(rdatas(dnsd.dig("eu-1.prefer.pay"))) == {"10.0.0.1", "10.0.0.2"}
    assert targets(dnsd, "eu-1.prefer.pay") == ["0 a", "0 b", "6 c"]


def test_prefer_of_a_zone_without_instances_is_the_service(dnsd: Dnsd) -> None:
    assert set(rdatas(dnsd.dig("nowhere.prefer.pay"))) == {"10.0.0.1", "10.0.0.2"}
    assert targets(dnsd, "nowhere.prefer.pay") == ["0 a", "0 b", "5 c"]


def test_prefer_among_those_that_selectors_leave(dnsd: Dnsd) -> None:
    assert targets(dnsd, "us-1.prefer.v2.version.pay") == ["5 c", "6 b"]
    assert targets(dnsd, "v2.version.us-1.prefer.pay") == ["5 c", "6 b"]


def test_prefer_does_not_take_a_suspect_before_one_that_serves(dnsd: Dnsd) -> None:
    dnsd.up(instance("pay", "c", ("10.0.0.3",), PORTS[:1], zone="us-1", state="suspect"))

    assert set(rdatas(dnsd.dig("us-1.prefer.pay"))) == {"10.0.0.1", "10.0.0.2"}


def test_prefer_keeps_within_what_a_priority_can_be() -> None:
    dnsd = Dnsd(
        instance("pay", "a", zone="eu-1", priority=65535),
        instance("pay", "b", zone="us-1", priority=65535),
    )

    assert targets(dnsd, "eu-1.prefer.pay") == ["65535 a", "65535 b"]


def test_b4_zones_that_nobody_is_in_are_counted_as_one_name(dnsd: Dnsd) -> None:
    """Else a stranger would get as many answers as he can think of names."""
    replies = [dnsd.raw(query_of(f"x{n}.prefer.pay.svc.internal.")) for n in range(5)]

    assert {kind_of(reply) for reply in replies if reply} == {
        b"+\x06prefer\x03pay\x03svc\x08internal\0"
    }


# --- a single answer ------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    ("name", "rtype"),
    [
        *(("pay", "A"), ("pay", "SRV"), ("_http._tcp.pay", "SRV"), ("_pay._tcp", "SRV")),
        *(("v2.version.pay", "SRV"), ("eu-1.prefer.pay", "A"), ("pay.service", "A")),
    ],
)
def test_answers_limits_the_records_of_an_answer(
    dnsd: Dnsd, name: str, rtype: str, tcp: bool
) -> None:
    dnsd.set("pay", 1)
    answer = dnsd.dig(name, rtype, tcp=tcp)
    assert len(rdatas(answer)) == 1
    assert outcome(answer) == "NOERROR"
    assert len(glue(answer)) == (1 if rtype == "SRV" else 0)

    dnsd.set("pay", 2)
    assert len(rdatas(dnsd.dig(name, rtype, tcp=tcp))) <= 2

    dnsd.set("pay", 0)
    assert len(rdatas(dnsd.dig("pay", "SRV", tcp=tcp))) == 3


def test_a_single_answer_is_drawn_by_priority_and_weight() -> None:
    dnsd = Dnsd(
        instance("pay", "a", ("10.0.0.1",), weight=300),
        instance("pay", "b", ("10.0.0.2",), weight=100),
        instance("pay", "spare", ("10.0.0.3",), weight=60000, priority=1),
    )
    dnsd.set("pay", 1)

    drawn = Counter(rdatas(dnsd.dig("pay", tcp=True))[0] for _ in range(2000))
    srv = Counter(rdatas(dnsd.dig("pay", "SRV", tcp=True))[0] for _ in range(200))

    assert set(drawn) == {"10.0.0.1", "10.0.0.2"}
    assert 0.70 < drawn["10.0.0.1"] / 2000 < 0.80
    assert not [r for r in srv if "spare" in r]


def test_a_single_answer_from_memory_changes_too() -> None:
    dnsd = Dnsd(*(instance("pay", f"p{n}", (f"10.0.0.{n}",)) for n in range(5)))
    dnsd.set("pay", 1)
    packet = query_of("pay.svc.internal.")
    reply = dnsd.reply(packet)
    assert reply.keep is not None
    dnsd.memo.keep(packet[2:], True, reply, reply.keep)

    remembered = {next(dnsd.memo.trusted[packet[2:]]) for _ in range(10)}

    assert len(remembered) == 5, "every one is first equally often"
    assert all(body[4:6] == b"\0\1" for body in remembered)


def test_a_single_answer_is_not_truncated_for_what_it_leaves_out() -> None:
    dnsd = Dnsd(*(instance("pay", f"p{n}", (f"10.0.0.{n}",)) for n in range(100)))
    dnsd.set("pay", 2)

    reply = dnsd.reply(query_of("pay.svc.internal.", "SRV"))

    assert not reply.truncated
    assert reply.packet is not None
    assert len(reply.packet) < 200


# --- names that clash -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tag", "version", "zone", "state", "prefer", "service"])
def test_nobody_can_be_registered_under_the_name_of_a_selector(name: str) -> None:
    assert name in names.RESERVED_SERVICES
    for service, id in (("pay", name), (name, "a"), ("pay", name.upper().lower())):
        registration = Registration(service, id, PORTS, ("10.0.0.1",))
        assert [p.field for p in problems_of(registration)], registration


def test_a_service_with_the_name_of_a_server_or_inner_zone_is_not_answered_and_named() -> None:
    """What its names mean is something else, so no target of it would be found."""
    dnsd = Dnsd(
        instance("ns1", "a"),
        instance("deep", "b"),
        instance("pay", "c"),
        zones=("svc.internal.", "deep.svc.internal."),
    )

    for name in ("_ns1._tcp", "_deep._tcp", "a.ns1", "ns1.service", "b.deep.service"):
        assert outcome(dnsd.dig(name, "SRV")) == "NXDOMAIN"
    assert rdatas(dnsd.dig("catalog", "PTR")) == ["pay.svc.internal."]
    assert rdatas(dnsd.dig("_http._tcp", "PTR")) == [r"c\.pay._http._tcp.svc.internal."]
    assert [service for service, _ in dnsd.problems] == ["ns1", "deep"]
