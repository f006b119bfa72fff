"""Which answer a name has: data, NODATA, NXDOMAIN, REFUSED; and the SOA beside a negative one."""

import dns.flags
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.table import AnswerTable
from dnsd.zone import Zone
from registry.model import Port
from tests.support.dns import ede, flag_word, header, opt, query, question, shuffled_case, wire_name
from tests.support.dnsd import LOCAL_TCP, SERVERS, Dnsd, glue, instance, outcome, rdatas

PORTS = (Port("http", 8080), Port("metrics", 9100), Port("game", 4000, "udp"))
UNOFFERED = [
    "MX",
    "CAA",
    "NAPTR",
    "HTTPS",
    "SVCB",
    "URI",
    "CNAME",
    "DNAME",
    0,
    1000,
    65535,
    41,
    249,
]


@pytest.fixture
def dnsd() -> Dnsd:
    return Dnsd(
        instance("payments", "pay-1", ("10.0.0.1",), PORTS),
        instance("payments", "pay-2", ("10.0.0.2",), PORTS),
        instance("nmap_service", "nmap_a", ("10.1.0.1", "2001:db8::1")),
    )


@pytest.mark.parametrize(
    ("name", "rtype", "expected"),
    [
        ("payments", "A", {"10.0.0.1", "10.0.0.2"}),
        (
            "payments",
            "SRV",
            {f"0 100 8080 pay-{n}.payments.svc.internal." for n in (1, 2)},
        ),
        (
            "_metrics._tcp.payments",
            "SRV",
            {f"0 100 9100 pay-{n}.payments.svc.internal." for n in (1, 2)},
        ),
        (
            "_payments._tcp",
            "SRV",
            {f"0 100 8080 pay-{n}.payments.svc.internal." for n in (1, 2)},
        ),
        (
            "_payments._udp",
            "SRV",
            {f"0 100 4000 pay-{n}.payments.svc.internal." for n in (1, 2)},
        ),
        ("pay-1.payments", "A", {"10.0.0.1"}),
        ("pay-1.payments", "SRV", {"0 100 8080 pay-1.payments.svc.internal."}),
        ("pay-1.payments", "TXT", {'"txtvers=1" "svc=payments" "id=pay-1"'}),
        ("nmap-service", "AAAA", {"2001:db8::1"}),
        ("ns1", "A", {"192.0.2.53"}),
        ("ns1", "AAAA", {"2001:db8::53"}),
        ("svc.internal.", "NS", {"ns1.svc.internal."}),
    ],
)
def test_l2_every_kind_of_name(dnsd: Dnsd, name: str, rtype: str, expected: set[str]) -> None:
    answer = dnsd.dig(name, rtype)

    assert outcome(answer) == "NOERROR"
    assert answer.flags & dns.flags.AA
    assert set(rdatas(answer)) == expected
    assert not answer.authority


def test_txt_tells_of_metadata_that_can_be_read_back() -> None:
    dnsd = Dnsd(
        instance(
            version="1.2",
            zone="eu-1",
            tags=("canary", "x"),
            metadata={"team": "a", "k=v": "no", "long": "x" * 256, "ö": "no", "last": "ö"},
        )
    )
    expected = [
        *(b"txtvers=1", b"svc=payments", b"id=pay-1", b"version=1.2", b"zone=eu-1"),
        b"tags=canary,x",
        *("last=ö".encode(), b"team=a"),
    ]

    (record,) = dnsd.dig("pay-1.payments", "TXT").answer[0]

    assert list(record.strings) == expected


@pytest.mark.parametrize("spelling", ["nmap_service", "nmap-service", "NMAP_Service"])
@pytest.mark.parametrize("prefix", ["", "_http._tcp.", "nmap-a.", "NMAP_A."])
def test_n11_services_and_instances_fold_underscores_and_case(
    dnsd: Dnsd, prefix: str, spelling: str
) -> None:
    answer = dnsd.dig(prefix + spelling, "SRV")

    assert rdatas(answer) == ["0 100 8080 nmap-a.nmap-service.svc.internal."]


@pytest.mark.parametrize("name", ["-http._tcp.payments", "_http.-tcp.payments", "-payments._tcp"])
def test_n11_the_first_octet_of_srv_labels_is_not_folded(dnsd: Dnsd, name: str) -> None:
    assert outcome(dnsd.dig(name, "SRV")) == "NXDOMAIN"


def test_n7_the_question_is_echoed_octet_for_octet(dnsd: Dnsd) -> None:
    for seed in range(5):
        name = shuffled_case("_http._tcp.nmap-service.svc.internal.", seed)
        packet = query(name, "SRV")

        reply = dnsd.reply(packet)

        assert reply.packet is not None
        assert reply.packet[12 : len(packet)] == packet[12:]
        assert reply.packet[len(packet) : len(packet) + 2] == b"\xc0\x0c"
        assert reply.keep is None, "each spelling would take a place in memory"


@pytest.mark.parametrize(
    "label",
    [b"pay.svc", b"\xc3\x9cber", b"\0", b"\xffx", b"*", b"xn--ber-goa", b"PAYM\xc5NTS", b" "],
)
def test_n8_n9_n12_odd_labels_are_ordinary_names(dnsd: Dnsd, label: bytes) -> None:
    name = bytes((len(label),)) + label + wire_name("svc.internal")

    reply = dnsd.raw(header() + question(name))

    assert reply is not None
    assert flag_word(reply) == 0x8403


def test_n9_an_apex_within_a_label_is_none_of_ours(dnsd: Dnsd) -> None:
    """The octets at the end are those of our zone, but no label begins there."""
    inner = b"\x03svc\x08internal\0"
    name = bytes((len(inner),)) + b"a" + inner

    reply = dnsd.raw(header() + question(name))

    assert reply is not None
    assert flag_word(reply) == 0x8005


@pytest.mark.parametrize(
    "name",
    [
        "example.org.",
        "internal.",
        ".",
        "localhost.",
        "payments.",
        "xsvc.internal.",
        "svc.internal2.",
    ],
)
@pytest.mark.parametrize("rtype", ["A", "SOA", "ANY"])
def test_l1_n10_y6_foreign_names_are_refused(dnsd: Dnsd, name: str, rtype: str) -> None:
    plain, spoken = dnsd.dig(name, rtype), dnsd.dig(name, rtype, edns=1232)

    for answer in (plain, spoken):
        assert outcome(answer) == "REFUSED"
        assert not answer.flags & dns.flags.AA
        assert not answer.answer + answer.authority + answer.additional
    assert plain.edns == -1
    assert ede(spoken) == [20]


@pytest.mark.parametrize("rtype", UNOFFERED)
@pytest.mark.parametrize("name", ["payments", "pay-1.payments", "_http._tcp.payments", "ns1"])
def test_l3_l12_l16_l23_v1_other_types_are_nodata(dnsd: Dnsd, name: str, rtype: str | int) -> None:
    answer = dnsd.dig(name, rtype)

    assert outcome(answer) == "NODATA"
    assert answer.flags & dns.flags.AA
    assert [s.rdtype for s in answer.authority] == [dns.rdatatype.SOA]


@pytest.mark.parametrize("rtype", ["DS", "DNSKEY", "RRSIG", "NSEC", "NSEC3PARAM", "CDS", "ZONEMD"])
def test_l17_l18_the_zone_is_unsigned(dnsd: Dnsd, rtype: str) -> None:
    assert outcome(dnsd.dig("svc.internal.", rtype, edns=1232, do=True)) == "NODATA"


@pytest.mark.parametrize("name", ["_tcp.payments", "_udp.payments", "_tcp", "_udp"])
@pytest.mark.parametrize("rtype", ["A", "SRV", "ANY", "TXT"])
def test_l4_empty_non_terminals_exist(dnsd: Dnsd, name: str, rtype: str) -> None:
    """NXDOMAIN would deny everything below (RFC 8020)."""
    assert outcome(dnsd.dig(name, rtype)) == "NODATA"


def test_l4_an_empty_non_terminal_goes_with_its_last_child() -> None:
    dnsd = Dnsd(instance("game", "g1", ports=(Port("game", 1, "udp"),)), instance())
    assert outcome(dnsd.dig("_tcp")) == "NODATA"

    dnsd.down("payments", "pay-1")
    assert outcome(dnsd.dig("_tcp")) == "NODATA", "still known"
    dnsd.forget("payments")

    assert outcome(dnsd.dig("_tcp")) == "NXDOMAIN"
    assert outcome(dnsd.dig("_udp")) == "NODATA"


@pytest.mark.parametrize(
    "name",
    [
        *("nothing", "a.nothing", "a.pay-1.payments", "pay-3.payments", "_sctp.payments"),
        *("_x._tcp.payments", "_http._udp.payments", "_game._tcp.payments", "_sctp", "_http._sctp"),
        *("_nothing._tcp", "_nmap-service._udp", "a._payments._tcp", "payments._tcp", "a._tcp"),
        *("a.ns1", "ns2", "_x._tcp", "a.b.c.d.payments", "x._http._tcp.payments"),
    ],
)
def test_l5_r13_nothing_at_the_name_nor_below(dnsd: Dnsd, name: str) -> None:
    for rtype in ("A", "SRV", "ANY", "HTTPS"):
        answer = dnsd.dig(name, rtype)

        assert outcome(answer) == "NXDOMAIN"
        assert answer.flags & dns.flags.AA
        assert [s.rdtype for s in answer.authority] == [dns.rdatatype.SOA]


LABELS = st.sampled_from(
    "payments PAYMENTS nmap_service pay-1 pay-2 _http _tcp _udp _game _payments ns1 none x".split()
)


@given(st.lists(LABELS, max_size=4), st.lists(LABELS, min_size=1, max_size=2))
def test_l6_below_a_name_that_does_not_exist_nothing_does(
    above: list[str], below: list[str]
) -> None:
    """And every name has exactly one of data, NODATA and NXDOMAIN."""
    dnsd = Dnsd(
        instance("payments", "pay-1", ("10.0.0.1",), PORTS),
        instance("nmap_service", "nmap_a", ("10.1.0.1",)),
    )
    upper = outcome(dnsd.dig(".".join([*above, "svc.internal."])))
    lower = outcome(dnsd.dig(".".join([*below, *above, "svc.internal."])))

    assert {upper, lower} <= {"NOERROR", "NODATA", "NXDOMAIN"}
    assert upper != "NXDOMAIN" or lower == "NXDOMAIN"


def test_l7_a_service_whose_last_instance_left_is_nodata_until_forgotten() -> None:
    dnsd = Dnsd(instance("payments", "pay-1", ports=PORTS))
    names = ["payments", "_tcp.payments", "_http._tcp.payments", "_payments._tcp", "_tcp"]
    names += ["service", "payments.service", "tag.payments", "x.tag.payments", "_http._tcp"]
    dnsd.down("payments", "pay-1")

    assert {outcome(dnsd.dig(n, t)) for n in names for t in ("A", "SRV")} == {"NODATA"}
    assert outcome(dnsd.dig("pay-1.payments")) == "NXDOMAIN"

    dnsd.forget("payments")
    assert {outcome(dnsd.dig(n, t)) for n in names for t in ("A", "SRV")} == {"NXDOMAIN"}


@pytest.mark.parametrize("state", ["draining", "maintenance", "waiting", "unhealthy"])
def test_r16_an_instance_out_of_service_leaves_every_answer_at_once(dnsd: Dnsd, state: str) -> None:
    dnsd.up(instance("payments", "pay-1", ("10.0.0.1",), PORTS, state=state))

    assert rdatas(dnsd.dig("payments")) == ["10.0.0.2"]
    answer = dnsd.dig("_http._tcp.payments", "SRV")
    assert rdatas(answer) == ["0 100 8080 pay-2.payments.svc.internal."]
    assert glue(answer) == ["pay-2.payments.svc.internal. 10.0.0.2"]
    assert outcome(dnsd.dig("pay-1.payments")) == "NXDOMAIN"

    dnsd.up(instance("payments", "pay-2", ("10.0.0.2",), PORTS, state=state))
    assert outcome(dnsd.dig("payments")) == "NODATA"
    assert outcome(dnsd.dig("_http._tcp.payments", "SRV")) == "NODATA"


def test_l9_aaaa_of_a_service_with_only_ipv4_is_nodata(dnsd: Dnsd) -> None:
    """musl drops the A answer too when the AAAA one is NXDOMAIN."""
    assert outcome(dnsd.dig("payments", "AAAA")) == "NODATA"
    assert outcome(dnsd.dig("pay-1.payments", "AAAA")) == "NODATA"


@pytest.mark.parametrize(
    ("name", "rtype"),
    [
        ("payments", "A"),
        ("pay-1.payments", "A"),
        ("_http._tcp.payments", "SRV"),
        ("svc.internal.", "SOA"),
        ("ns1", "A"),
    ],
)
def test_l10_any_is_one_rrset_over_every_transport(dnsd: Dnsd, name: str, rtype: str) -> None:
    for tcp in (False, True):
        answer = dnsd.dig(name, "ANY", tcp=tcp)

        assert [s.rdtype for s in answer.answer] == [dns.rdatatype.from_text(rtype)]
        assert not answer.additional


def test_l10_any_of_a_service_with_only_ipv6_is_aaaa() -> None:
    dnsd = Dnsd(instance(addresses=("2001:db8::1",)))

    assert rdatas(dnsd.dig("payments", "ANY")) == ["2001:db8::1"]


@pytest.mark.parametrize("qclass", ["CH", "HS", "NONE", "ANY", 0, 65280])
def test_l19_l20_l21_other_classes_are_refused(dnsd: Dnsd, qclass: str | int) -> None:
    for name in ("payments", "version.bind.", "id.server."):
        answer = dnsd.dig(name, "TXT", qclass=qclass, edns=1232)

        assert outcome(answer) == "REFUSED"
        assert not answer.flags & dns.flags.AA
        assert not ede(answer)


def test_l24_x2_transfers_are_for_nobody(dnsd: Dnsd) -> None:
    assert outcome(dnsd.dig("svc.internal.", "AXFR", edns=1232)) == "NOTIMP"
    over_tcp = [dnsd.raw(query("svc.internal.", t, edns=1232), LOCAL_TCP) for t in ("AXFR", "IXFR")]
    for reply in over_tcp:
        assert reply is not None
        assert flag_word(reply) == 0x8005
        assert reply.endswith(opt(rdata=b"\0\x0f\0\2\0\x12"))


@pytest.mark.parametrize("name", ["payments", "example.org."])
def test_x3_transfers_of_what_is_no_zone_of_ours_are_notauth(dnsd: Dnsd, name: str) -> None:
    answer = dnsd.dig(name, "AXFR")

    assert answer.rcode() == dns.rcode.NOTAUTH
    assert not answer.flags & dns.flags.AA


def test_l27_the_apex(dnsd: Dnsd) -> None:
    soa, ns = dnsd.dig("svc.internal.", "SOA"), dnsd.dig("svc.internal.", "NS")

    assert rdatas(soa) == ["ns1.svc.internal. hostmaster.svc.internal. 3 3600 600 86400 5"]
    assert not soa.authority
    assert glue(ns) == ["ns1.svc.internal. 192.0.2.53", "ns1.svc.internal. 2001:db8::53"]
    assert outcome(dnsd.dig("svc.internal.", "A")) == "NODATA"


def test_l28_the_deepest_zone_answers() -> None:
    dnsd = Dnsd(instance(), zones=("svc.internal.", "deep.svc.internal."))

    answer = dnsd.dig("nothing.deep.svc.internal.")

    assert answer.authority[0].name.to_text() == "deep.svc.internal."
    assert rdatas(dnsd.dig("payments.deep.svc.internal.")) == ["10.0.0.1"]


def test_several_zones_show_the_same_services_with_targets_in_the_first() -> None:
    dnsd = Dnsd(instance(), zones=("svc.internal.", "callboard.example."))

    answer = dnsd.dig("_http._tcp.payments.callboard.example.", "SRV")

    assert rdatas(answer) == ["0 100 8080 pay-1.payments.svc.internal."]
    assert glue(answer) == ["pay-1.payments.svc.internal. 10.0.0.1"]
    assert rdatas(dnsd.dig("callboard.example.", "SOA"))[0].startswith("ns1.callboard.example. ")


# --- section 4: negative answers ------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rtype"), [("payments", "AAAA"), ("nothing", "A"), ("_tcp", "A")])
def test_g1_g2_one_soa_of_the_apex_beside_a_negative_answer(
    dnsd: Dnsd, name: str, rtype: str
) -> None:
    answer = dnsd.dig(name, rtype)
    (soa,) = answer.authority

    assert soa.name.to_text() == "svc.internal."
    assert soa.ttl == soa[0].minimum == 5
    assert not answer.answer


def test_g3_the_soa_has_one_ttl_everywhere(dnsd: Dnsd) -> None:
    (answer,) = dnsd.dig("svc.internal.", "SOA").answer

    assert answer.ttl == answer[0].minimum


def test_g6_the_serial_is_the_low_half_of_the_revision(dnsd: Dnsd) -> None:
    dnsd.catalog.revision = (7 << 32) + 41
    dnsd.up(instance("more", "m1"))

    assert dnsd.dig("nothing").authority[0][0].serial == 42
    assert dnsd.dig("svc.internal.", "SOA").answer[0][0].serial == 42


# --- section 5: SRV, weights, TTLs ----------------------------------------------------------------


def test_r3_priority_weight_and_port_pass_through() -> None:
    dnsd = Dnsd(instance(priority=65535, weight=0, ports=(Port("http", 65535),)))

    assert rdatas(dnsd.dig("payments", "SRV")) == ["65535 0 65535 pay-1.payments.svc.internal."]


def test_the_default_port_is_http_else_the_only_one_else_the_first_by_name() -> None:
    for ports, expected in (
        ((Port("a", 1), Port("http", 2)), 2),
        ((Port("z", 3),), 3),
        ((Port("z", 4), Port("b", 5), Port("c", 6, "udp")), 5),
    ):
        answer = Dnsd(instance(ports=ports)).dig("payments", "SRV")
        assert rdatas(answer) == [f"0 100 {expected} pay-1.payments.svc.internal."]


def test_r6_addresses_are_of_the_lowest_priority_srv_lists_all() -> None:
    dnsd = Dnsd(
        instance(id="a", addresses=("10.0.0.1",), priority=10),
        instance(id="b", addresses=("10.0.0.2",), priority=20),
    )

    assert rdatas(dnsd.dig("payments")) == ["10.0.0.1"]
    assert len(rdatas(dnsd.dig("payments", "SRV"))) == 2
    assert rdatas(dnsd.dig("b.payments")) == ["10.0.0.2"]


def test_a_suspect_is_used_only_where_no_other_is_left() -> None:
    dnsd = Dnsd(
        instance(id="a", addresses=("10.0.0.1",), state="suspect"),
        instance(id="b", addresses=("10.0.0.2",)),
    )
    assert rdatas(dnsd.dig("payments")) == ["10.0.0.2"]
    assert rdatas(dnsd.dig("payments", "SRV")) == [
        "0 100 8080 b.payments.svc.internal.",
        "1000 100 8080 a.payments.svc.internal.",
    ]

    dnsd.down("payments", "b")
    assert rdatas(dnsd.dig("payments")) == ["10.0.0.1"]


def test_r8_two_instances_on_one_address_give_one_record() -> None:
    dnsd = Dnsd(*(instance(id=i, ports=(Port("http", 8000 + n),)) for n, i in enumerate("ab")))

    assert rdatas(dnsd.dig("payments")) == ["10.0.0.1"]
    assert len(rdatas(dnsd.dig("payments", "SRV"))) == 2


def test_r9_r11_a_set_has_the_least_ttl_and_glue_that_of_a_direct_question() -> None:
    dnsd = Dnsd(
        instance(id="a", addresses=("10.0.0.1",), record_ttl=3),
        instance(id="b", addresses=("10.0.0.2",), record_ttl=9),
        instance(id="c", addresses=("10.0.0.3",), record_ttl=1, state="draining"),
    )
    answer = dnsd.dig("payments", "SRV")

    assert answer.answer[0].ttl == 3
    assert dnsd.dig("payments").answer[0].ttl == 3
    for rrset in answer.additional:
        assert rrset.ttl == dnsd.dig(rrset.name.to_text()).answer[0].ttl
    assert {rrset.ttl for rrset in answer.additional} == {3, 9}


def test_r17_an_instance_without_an_address_is_not_published() -> None:
    dnsd = Dnsd(instance("payments", "pay-1", (), host="vertice-nmap"))
    assert outcome(dnsd.dig("payments")) == "NODATA"
    assert outcome(dnsd.dig("payments", "SRV")) == "NODATA"
    assert outcome(dnsd.dig("pay-1.payments")) == "NXDOMAIN"

    dnsd.up(instance("payments", "pay-1", (), host="vertice-nmap", found=("10.0.0.9",)))
    assert rdatas(dnsd.dig("payments")) == ["10.0.0.9"]


def test_r14_a_service_of_63_octets_has_no_form_with_an_underscore() -> None:
    long = "s" * 63
    dnsd = Dnsd(instance(long, "i" * 63))

    assert outcome(dnsd.dig(long)) == "NOERROR"
    assert outcome(dnsd.dig(f"_http._tcp.{long}", "SRV")) == "NOERROR"
    assert outcome(dnsd.dig(f"{'i' * 63}.{long}")) == "NOERROR"


# --- section 14: not ready, stale, failing --------------------------------------------------------


def test_s1_nothing_loaded_is_servfail_and_says_not_ready() -> None:
    dnsd = Dnsd(state="loading")

    for tcp in (False, True):
        answer = dnsd.dig("payments", edns=1232, tcp=tcp)
        assert outcome(answer) == "SERVFAIL"
        assert not answer.flags & dns.flags.AA
        assert ede(answer) == [14]
        assert not answer.authority
    assert dnsd.dig("payments").edns == -1
    assert outcome(dnsd.dig("example.org.")) == "REFUSED"


def test_s3_s4_stale_answers_go_on_and_say_so() -> None:
    dnsd = Dnsd(instance(record_ttl=60, lease_ttl=3600))
    dnsd.table.reset("stale")

    positive = dnsd.dig("payments", edns=1232)
    assert positive.answer[0].ttl == 30
    assert positive.flags & dns.flags.AA
    assert ede(positive) == [3]
    for name, rtype in (("nothing", "A"), ("payments", "AAAA")):
        negative = dnsd.dig(name, rtype, edns=1232)
        assert ede(negative) == [19]
        assert negative.authority[0].ttl <= 5
    assert dnsd.dig("payments").answer[0].ttl == 30


def test_s3_s5_before_the_bound_only_ttls_are_lower_and_afterwards_nothing() -> None:
    dnsd = Dnsd(instance(record_ttl=60, lease_ttl=3600))
    dnsd.table.reset("away")
    answer = dnsd.dig("payments", edns=1232)
    assert (answer.answer[0].ttl, ede(answer)) == (30, [])

    dnsd.table.reset("fresh")
    answer = dnsd.dig("payments", edns=1232)
    assert (answer.answer[0].ttl, ede(answer)) == (60, [])


def test_s7_an_error_within_is_servfail_with_question_and_opt() -> None:
    dnsd = Dnsd(instance())
    dnsd.catalog.service = None  # type: ignore[assignment,method-assign]

    reply = dnsd.responder.answer(query("payments.svc.internal.", edns=1232), LOCAL_TCP, 0.0)

    assert isinstance(reply.error, TypeError)
    assert reply.packet is not None
    assert flag_word(reply.packet) == 0x8002
    assert reply.packet.endswith(opt())


def test_a_service_that_cannot_be_compiled_takes_no_other_with_it() -> None:
    """The model refuses such an instance; whoever else wrote it, the others are served."""
    dnsd = Dnsd(instance("broken", "b1", ("not an address",)), instance())

    assert outcome(dnsd.dig("broken")) == "SERVFAIL"
    assert outcome(dnsd.dig("broken")) == "SERVFAIL"
    assert rdatas(dnsd.dig("payments")) == ["10.0.0.1"]
    assert [service for service, _ in dnsd.problems] == ["broken"], "said once a change"

    dnsd.up(instance("broken", "b1"))
    assert outcome(dnsd.dig("broken")) == "NOERROR"


def test_a_zone_too_long_for_names_in_it_is_refused() -> None:
    apex = "a" * 63 + "." + "b" * 63 + "."
    with pytest.raises(ValueError, match="at most 127"):
        AnswerTable([Zone(apex, SERVERS)], Dnsd().table._catalog)
