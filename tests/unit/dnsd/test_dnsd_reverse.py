"""Reverse names: which zones networks make, and what addresses and parts of them lead to."""

import ipaddress

import dns.flags
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd import reverse
from dnsd.reverse import count_of, digits_in, owner_of, read, zones_for
from dnsd.table import AnswerTable
from registry.catalog import Catalog
from tests.support.dns import shuffled_case
from tests.support.dnsd import Dnsd, glue, instance, outcome, rdatas, zones_of

NETWORKS = ("10.0.0.0/8", "172.18.0.0/15", "fd00::/8", "192.0.2.7/32")


@pytest.fixture
def dnsd() -> Dnsd:
    return Dnsd(
        instance("payments", "pay_1", ("10.1.2.3", "fd00::a1")),
        instance("orders", "o1", ("172.18.0.9", "203.0.113.5")),
        instance("single", "s1", ("192.0.2.7",)),
        reverse=NETWORKS,
    )


def reversed_(address: str) -> str:
    """The name that dnspython asks for."""
    return str(dns.reversename.from_address(address))


# --- zones ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "apexes"),
    [
        ("10.0.0.0/8", ["10.in-addr.arpa."]),
        ("192.168.7.0/24", ["7.168.192.in-addr.arpa."]),
        ("172.16.0.0/12", [f"{n}.172.in-addr.arpa." for n in range(16, 32)]),
        ("10.0.0.8/31", ["8.0.0.10.in-addr.arpa.", "9.0.0.10.in-addr.arpa."]),
        ("fd00::/8", ["d.f.ip6.arpa."]),
        ("fd00::/7", ["c.f.ip6.arpa.", "d.f.ip6.arpa."]),
        ("2001:db8::/32", ["8.b.d.0.1.0.0.2.ip6.arpa."]),
    ],
)
def test_p1_networks_are_split_where_labels_end(network: str, apexes: list[str]) -> None:
    found = ipaddress.ip_network(network, strict=False)

    assert list(zones_for([found])) == apexes
    assert count_of([found]) == len(apexes)


def test_p1_a_network_within_another_makes_no_zone_of_its_own() -> None:
    networks = [ipaddress.ip_network(n) for n in ("10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8")]

    assert list(zones_for(networks)) == ["10.in-addr.arpa."]


@pytest.mark.parametrize(
    "apex", ["10.in-addr.arpa.", "18.172.in-addr.arpa.", "d.f.ip6.arpa.", "7.2.0.192.in-addr.arpa."]
)
def test_p1_each_has_a_soa_and_the_name_servers_of_the_first_zone(dnsd: Dnsd, apex: str) -> None:
    soa, ns = dnsd.dig(apex, "SOA"), dnsd.dig(apex, "NS")

    assert rdatas(soa) == ["ns1.svc.internal. hostmaster.svc.internal. 3 3600 600 86400 5"]
    assert rdatas(ns) == ["ns1.svc.internal."]
    assert glue(ns) == ["ns1.svc.internal. 192.0.2.53", "ns1.svc.internal. 2001:db8::53"]
    assert soa.flags & dns.flags.AA
    assert outcome(dnsd.dig(apex, "A")) == "NODATA"


@pytest.mark.parametrize(
    "name",
    [
        *("11.in-addr.arpa.", "17.172.in-addr.arpa.", "in-addr.arpa.", "arpa.", "ip6.arpa."),
        *(
            "8.2.0.192.in-addr.arpa.",
            "e.f.ip6.arpa.",
            "1.0.0.127.in-addr.arpa.",
            "172.in-addr.arpa.",
        ),
    ],
)
@pytest.mark.parametrize("rtype", ["PTR", "SOA", "A"])
def test_p1_y6_outside_nothing_is_answered(dnsd: Dnsd, name: str, rtype: str) -> None:
    assert outcome(dnsd.dig(name, rtype)) == "REFUSED"


def test_p1_without_networks_nothing_reverse_is_answered() -> None:
    assert outcome(Dnsd(instance()).dig(reversed_("10.0.0.1"), "PTR")) == "REFUSED"


@pytest.mark.parametrize("name", ["nothing.d.f.ip6.arpa.", "9.9.9.10.in-addr.arpa."])
def test_g1_the_soa_of_a_negative_answer_is_the_reverse_zone_s(dnsd: Dnsd, name: str) -> None:
    answer = dnsd.dig(name, "PTR")
    (soa,) = answer.authority

    assert name.endswith(str(soa.name))
    assert soa[0].mname.to_text() == "ns1.svc.internal."
    assert soa[0].rname.to_text() == "hostmaster.svc.internal."
    assert soa.ttl == soa[0].minimum == 5


def test_t11_with_the_longest_name_and_apex_a_negative_answer_fits(dnsd: Dnsd) -> None:
    home = ".".join(["h" * 60, "o" * 60]) + "."
    long = Dnsd(instance(), zones=(home,), reverse=("10.0.0.0/8",))
    name = ".".join(["x" * 63] * 3 + ["y" * 45]) + ".10.in-addr.arpa."

    answer = long.dig(name, "PTR", edns=512)

    assert outcome(answer) == "NXDOMAIN"
    assert str(answer.authority[0][0].rname) == f"hostmaster.{home}"
    assert len(answer.to_wire()) < 600


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("10.1.2.3", "pay-1.payments.svc.internal."),
        ("fd00::a1", "pay-1.payments.svc.internal."),
        ("172.18.0.9", "o1.orders.svc.internal."),
        ("192.0.2.7", "s1.single.svc.internal."),
    ],
)
def test_p2_an_address_leads_to_the_instance_that_has_it(
    dnsd: Dnsd, address: str, target: str
) -> None:
    answer = dnsd.dig(reversed_(address), "PTR")

    assert rdatas(answer) == [target]
    assert rdatas(dnsd.dig(reversed_(address), "ANY")) == [target]
    assert not answer.additional
    qtype = "AAAA" if ":" in address else "A"
    assert address in rdatas(dnsd.dig(target, qtype)), "and the name leads back"


def test_p2_all_instances_at_an_address_are_given(dnsd: Dnsd) -> None:
    dnsd.up(instance("orders", "o2", ("10.1.2.3",)))
    expected = {"pay-1.payments.svc.internal.", "o2.orders.svc.internal."}
    assert set(rdatas(dnsd.dig(reversed_("10.1.2.3"), "PTR"))) == expected

    dnsd.up(instance("payments", "pay_1", ("10.1.2.3",), state="draining"))
    assert rdatas(dnsd.dig(reversed_("10.1.2.3"), "PTR")) == ["o2.orders.svc.internal."]

    dnsd.down("orders", "o2")
    assert outcome(dnsd.dig(reversed_("10.1.2.3"), "PTR")) == "NXDOMAIN"


def test_p2_addresses_that_were_looked_up_count_too(dnsd: Dnsd) -> None:
    dnsd.up(instance("named", "n1", (), host="vertice", found=("10.7.7.7",)))

    assert rdatas(dnsd.dig(reversed_("10.7.7.7"), "PTR")) == ["n1.named.svc.internal."]


def test_p2_other_types_are_nodata(dnsd: Dnsd) -> None:
    for rtype in ("A", "SRV", "TXT", "CNAME", "NS"):
        assert outcome(dnsd.dig(reversed_("10.1.2.3"), rtype)) == "NODATA"


def test_p3_nobody_there_is_nxdomain_and_parts_with_somebody_below_exist(dnsd: Dnsd) -> None:
    for name in ("1.10.in-addr.arpa.", "2.1.10.in-addr.arpa.", "0.d.f.ip6.arpa."):
        assert outcome(dnsd.dig(name, "PTR")) == "NODATA"
    for name in ("2.10.in-addr.arpa.", "3.1.10.in-addr.arpa.", "4.2.1.10.in-addr.arpa."):
        assert outcome(dnsd.dig(name, "PTR")) == "NXDOMAIN"
    assert outcome(dnsd.dig("1.d.f.ip6.arpa.", "PTR")) == "NXDOMAIN"
    for number in range(33 - 4):
        name = reversed_("fd00::a1").split(".", number)[number]
        assert outcome(dnsd.dig(name, "A")) == "NODATA"


def test_p3_parts_go_with_the_last_address_below_them(dnsd: Dnsd) -> None:
    assert outcome(dnsd.dig("1.10.in-addr.arpa.", "PTR")) == "NODATA"
    dnsd.up(instance("orders", "o2", ("10.1.9.9",)))
    assert outcome(dnsd.dig("9.1.10.in-addr.arpa.", "PTR")) == "NODATA"

    dnsd.down("payments", "pay-1")
    assert outcome(dnsd.dig("2.1.10.in-addr.arpa.", "PTR")) == "NXDOMAIN"
    assert outcome(dnsd.dig("1.10.in-addr.arpa.", "PTR")) == "NODATA"
    dnsd.down("orders", "o2")
    assert outcome(dnsd.dig("1.10.in-addr.arpa.", "PTR")) == "NXDOMAIN"


@pytest.mark.parametrize(
    "name",
    [
        *("01.10.in-addr.arpa.", "256.10.in-addr.arpa.", "1.3.2.1.10.in-addr.arpa."),
        *(
            "x.10.in-addr.arpa.",
            "0x1.10.in-addr.arpa.",
            "+1.10.in-addr.arpa.",
            "1e1.10.in-addr.arpa.",
        ),
        *(
            "10.d.f.ip6.arpa.",
            "g.d.f.ip6.arpa.",
            "_http._tcp.10.in-addr.arpa.",
            "-1.10.in-addr.arpa.",
        ),
        *("payments.10.in-addr.arpa.", "catalog.10.in-addr.arpa.", "9" * 63 + ".10.in-addr.arpa."),
        "0." + str(dns.reversename.from_address("fd00::a1")),
    ],
)
def test_p5_what_is_no_address_is_nxdomain(dnsd: Dnsd, name: str) -> None:
    for rtype in ("PTR", "A"):
        assert outcome(dnsd.dig(name, rtype)) == "NXDOMAIN"


def test_p5_digits_are_read_in_any_case(dnsd: Dnsd) -> None:
    name = reversed_("fd00::a1")

    assert rdatas(dnsd.dig(name.upper(), "PTR")) == ["pay-1.payments.svc.internal."]
    assert rdatas(dnsd.dig(shuffled_case(name), "PTR")) == ["pay-1.payments.svc.internal."]


@pytest.mark.parametrize("first", ["b", "lb"])
@pytest.mark.parametrize(
    "base",
    ["10.in-addr.arpa.", "0.0.0.10.in-addr.arpa.", "18.172.in-addr.arpa.", "d.f.ip6.arpa."],
)
def test_d12_a_host_is_told_where_to_browse_by_its_network(
    dnsd: Dnsd, first: str, base: str
) -> None:
    """RFC 6763, section 11: it asks below its address with the host's part zero."""
    assert rdatas(dnsd.dig(f"{first}._dns-sd._udp.{base}", "PTR")) == ["svc.internal."]
    for name in ("dr._dns-sd._udp", "_dns-sd._udp", "_udp"):
        assert outcome(dnsd.dig(f"{name}.{base}", "PTR")) == "NODATA"


def test_d12_above_those_names_there_are_no_gaps(dnsd: Dnsd) -> None:
    for name in ("0.0.0.10.in-addr.arpa.", "0.0.10.in-addr.arpa.", "0.10.in-addr.arpa."):
        assert outcome(dnsd.dig(name, "PTR")) == "NODATA"
    assert outcome(dnsd.dig("1.0.0.10.in-addr.arpa.", "PTR")) == "NXDOMAIN"


def test_an_address_that_is_none_takes_no_other_with_it(dnsd: Dnsd) -> None:
    """The model refuses it; whoever else wrote it, the others are served."""
    dnsd.up(instance("broken", "b1", ("not an address", "10.6.6.6")))

    assert rdatas(dnsd.dig(reversed_("10.6.6.6"), "PTR")) == ["b1.broken.svc.internal."]
    assert outcome(dnsd.dig(reversed_("10.1.2.3"), "PTR")) == "NOERROR"


def test_r12_of_very_many_at_one_address_a_message_full_is_given() -> None:
    dnsd = Dnsd(reverse=("10.0.0.0/8",))
    for n in range(1600):
        dnsd.catalog.put(instance("s" * 40, f"n{n:04}", ("10.0.0.1",)))
    dnsd.up(instance("s" * 40, "last", ("10.0.0.1",)))

    answer = dnsd.dig(reversed_("10.0.0.1"), "PTR", tcp=True)

    assert not answer.flags & dns.flags.TC
    assert 700 < len(rdatas(answer)) < 1601
    assert dnsd.problems[0][0] == "1.0.0.10.in-addr.arpa."


# --- properties -----------------------------------------------------------------------------------


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_an_address_is_read_back_from_its_name(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    digits = reverse.digits_of(str(address))
    assert digits is not None
    name = address.reverse_pointer + "."

    assert owner_of(digits) == name
    labels = name.split(".")[:-3][::-1]
    assert read(digits[0], labels) == digits
    for depth in range(1, len(labels)):
        assert digits_in(".".join(name.split(".")[depth:])) == read(digits[0], labels[:-depth])


@given(st.lists(st.text(min_size=1, max_size=3) | st.sampled_from("0123456789abcdef"), max_size=40))
def test_any_labels_are_digits_or_not(labels: list[str]) -> None:
    for version in ("4", "6"):
        found = read(version, labels)
        assert found is None or len(found) <= reverse.FULL[version]


@given(
    st.lists(
        st.tuples(st.ip_addresses(v=4), st.integers(17, 32)).map(
            lambda pair: ipaddress.ip_network(pair, strict=False)
        ),
        max_size=5,
    ),
    st.ip_addresses(v=4),
)
def test_p1_the_zones_hold_the_networks_and_nothing_else(
    networks: list[ipaddress.IPv4Network], address: ipaddress.IPv4Address
) -> None:
    apexes = list(zones_for(networks))

    assert len(set(apexes)) == len(apexes) <= count_of(networks)
    for probe in (address, *(n.network_address for n in networks), *(n[-1] for n in networks)):
        inside = any(probe in network for network in networks)
        digits = reverse.digits_of(str(probe))
        assert digits is not None
        assert inside == any(digits.startswith(digits_in(apex)) for apex in apexes)


def test_a_zone_that_is_no_reverse_one_is_said_so() -> None:
    zone = zones_of(["svc.internal."], ["10.0.0.0/8"])
    with pytest.raises(ValueError, match="is no reverse zone"):
        AnswerTable([zone[0], type(zone[1])("x.arpa.", zone[1].servers, home="a.")], Catalog)
