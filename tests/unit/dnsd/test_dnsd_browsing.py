"""DNS-SD (RFC 6763), the catalog, and what TXT records say."""

import dns.flags
import dns.rdatatype
import pytest

from dnsd.compiler import compile_rrset, compile_soa
from dnsd.query import SRV, TXT
from dnsd.table import MAX_BROWSED, State
from dnsd.texts import MAX_STRING, MAX_TEXT, SCHEMA_VERSION
from dnsd.zone import Rrset, Txt
from registry.model import Port
from tests.support.dnsd import (
    LOCAL_TCP,
    Dnsd,
    instance,
    outcome,
    query_of,
    rdatas,
    types_in,
    zones_of,
)

HTTP, GAME = Port("http", 8080), Port("game", 4000, "udp")
PORTS = (HTTP, Port("metrics", 9100), GAME)
LABEL = r"pay-1\.payments._http._tcp.svc.internal."
OTHER = r"nmap-a\.nmap-service._http._tcp.svc.internal."


@pytest.fixture
def dnsd() -> Dnsd:
    return Dnsd(
        instance("payments", "pay-1", ("10.0.0.1", "2001:db8::1"), PORTS, record_ttl=3),
        instance("nmap_service", "nmap_a", ("10.0.0.2",), (HTTP,)),
    )


# --- browsing ------------------------------------------------------------------------------------


def test_d1_d2_the_types_in_use_are_listed(dnsd: Dnsd) -> None:
    """Names of ports obey RFC 6335, so each is a type."""
    answer = dnsd.dig("_services._dns-sd._udp", "PTR")

    assert set(rdatas(answer)) == {
        "_http._tcp.svc.internal.",
        "_metrics._tcp.svc.internal.",
        "_game._udp.svc.internal.",
    }
    assert answer.flags & dns.flags.AA


def test_d1_a_type_is_listed_as_long_as_somebody_serves_it(dnsd: Dnsd) -> None:
    dnsd.down("nmap-service", "nmap-a")
    assert "_http._tcp.svc.internal." in rdatas(dnsd.dig("_services._dns-sd._udp", "PTR"))

    dnsd.down("payments", "pay-1")

    assert outcome(dnsd.dig("_services._dns-sd._udp", "PTR")) == "NODATA"
    assert outcome(dnsd.dig("_http._tcp", "PTR")) == "NODATA", "still known"
    dnsd.forget("payments")
    dnsd.forget("nmap-service")
    assert outcome(dnsd.dig("_http._tcp", "PTR")) == "NXDOMAIN"
    assert outcome(dnsd.dig("_services._dns-sd._udp", "PTR")) == "NODATA"


def test_d3_d4_a_type_lists_its_instances_in_one_label_each(dnsd: Dnsd) -> None:
    assert set(rdatas(dnsd.dig("_http._tcp", "PTR"))) == {LABEL, OTHER}
    assert rdatas(dnsd.dig("_game._udp", "PTR")) == [r"pay-1\.payments._game._udp.svc.internal."]


def test_d3_an_instance_whose_label_would_be_too_long_is_not_listed() -> None:
    fits, too_long = "s" * 32, "t" * 32
    dnsd = Dnsd(instance(fits, "i" * 30), instance(too_long, "i" * 31))

    (listed,) = rdatas(dnsd.dig("_http._tcp", "PTR"))

    assert listed == rf"{'i' * 30}\.{fits}._http._tcp.svc.internal."
    name = b"\x40" + b"i" * 31 + b"." + too_long.encode()
    assert len(name) == 65
    assert outcome(dnsd.dig(f"_{too_long}._sub._http._tcp", "PTR")) == "NODATA"


@pytest.mark.parametrize("label", [LABEL, LABEL.upper(), LABEL.replace("pay-1", "pay_1")])
def test_d5_there_are_one_srv_and_a_text_where_one_browses_to(dnsd: Dnsd, label: str) -> None:
    srv, text = dnsd.dig(label, "SRV"), dnsd.dig(label, "TXT")

    assert rdatas(srv) == ["0 100 8080 pay-1.payments.svc.internal."]
    assert types_in(srv) == [f"pay-1.payments.svc.internal. {t}" for t in ("A", "AAAA")]
    assert rdatas(text) == rdatas(dnsd.dig("pay-1.payments", "TXT"))
    assert not text.additional
    assert outcome(dnsd.dig(label, "A")) == "NODATA"
    assert rdatas(dnsd.dig(label, "ANY")) == rdatas(srv)


@pytest.mark.parametrize(
    "name",
    [
        *(r"nmap-a\.nmap-service._metrics._tcp", r"nobody\.payments._http._tcp"),
        *(r"pay-1\.nobody._http._tcp", "payments._http._tcp", r"pay-1\.payments._http._udp"),
        *(rf"x.{LABEL[:-1]}", "_sub._x._tcp", "_nobody._sub._http._tcp", "sub._http._tcp"),
        *("payments._sub._http._tcp", "x._payments._sub._http._tcp", "_payments._sub._x._tcp"),
        *("x._services._dns-sd._udp", "_x._dns-sd._udp", "x._dns-sd._udp", "x.b._dns-sd._udp"),
        *("pay-1.payments._http._tcp", r"\.._http._tcp", r"pay-1\.payments\.x._http._tcp"),
    ],
)
def test_l5_what_is_not_browsed_to_does_not_exist(dnsd: Dnsd, name: str) -> None:
    for rtype in ("PTR", "SRV", "ANY"):
        whole = name if name.endswith("internal") else f"{name}.svc.internal"
        assert outcome(dnsd.dig(f"{whole}.", rtype)) == "NXDOMAIN"


@pytest.mark.parametrize("state", ["draining", "unhealthy"])
def test_r16_who_does_not_serve_is_not_browsed_to(dnsd: Dnsd, state: str) -> None:
    dnsd.up(instance("payments", "pay-1", ports=PORTS, state=state))

    assert rdatas(dnsd.dig("_http._tcp", "PTR")) == [OTHER]
    assert rdatas(dnsd.dig("catalog", "PTR")) == ["nmap-service.svc.internal."]
    assert outcome(dnsd.dig(LABEL, "SRV")) == "NXDOMAIN"
    assert outcome(dnsd.dig("_payments._sub._http._tcp", "PTR")) == "NODATA"


def test_d9_a_subtype_lists_the_instances_of_one_service(dnsd: Dnsd) -> None:
    for spelled in ("_nmap-service", "_nmap_service", "_NMAP_Service"):
        assert rdatas(dnsd.dig(f"{spelled}._sub._http._tcp", "PTR")) == [OTHER]
    assert rdatas(dnsd.dig("_payments._sub._http._tcp", "PTR")) == [LABEL]
    assert outcome(dnsd.dig("_sub._http._tcp", "PTR")) == "NODATA"
    assert outcome(dnsd.dig("_nmap-service._sub._game._udp", "PTR")) == "NXDOMAIN"
    assert outcome(dnsd.dig("_payments._sub._http._tcp", "SRV")) == "NODATA"


@pytest.mark.parametrize("name", ["_http._tcp", "_payments._sub._http._tcp"])
def test_d10_srv_then_text_then_addresses_come_with_a_list(dnsd: Dnsd, name: str) -> None:
    answer = dnsd.dig(name, "PTR", tcp=True)
    listed = rdatas(answer)
    targets = [str(rrset[0].target) for rrset in answer.additional if rrset.rdtype == SRV]

    places = [line.rsplit(" ", 1) for line in types_in(answer)]
    assert [owner for owner, rtype in places if rtype == "SRV"] == listed
    assert [owner for owner, rtype in places if rtype == "TXT"] == listed
    addresses = [[f"{name} A", f"{name} AAAA"][: 2 if "pay" in name else 1] for name in targets]
    assert types_in(answer)[2 * len(listed) :] == [line for pair in addresses for line in pair]
    for rrset in answer.additional:
        direct = dnsd.dig(str(rrset.name), dns.rdatatype.to_text(rrset.rdtype)).answer[0]
        assert (rrset.ttl, set(rrset)) == (direct.ttl, set(direct))


def test_d10_what_does_not_fit_is_dropped_from_the_last_to_the_first() -> None:
    """Addresses first, then texts; of what is kept, whole targets from the front."""
    dnsd = Dnsd(*(instance("pay", f"p{n}", (f"10.0.0.{n}",)) for n in range(1, 8)))
    answer = dnsd.dig("_http._tcp", "PTR", edns=700)

    assert not answer.flags & dns.flags.TC
    assert len(rdatas(answer)) == 7
    places = [line.rsplit(" ", 1) for line in types_in(answer)]
    assert [owner for owner, rtype in places if rtype == "SRV"] == rdatas(answer)
    texts = [owner for owner, rtype in places if rtype == "TXT"]
    assert texts == rdatas(answer)[: len(texts)]
    assert 0 < len(texts) < 7
    assert not [rtype for _, rtype in places if rtype == "A"]


def test_d10_texts_and_addresses_have_no_further_records(dnsd: Dnsd) -> None:
    for name, rtype in (
        (LABEL, "TXT"),
        ("payments", "A"),
        ("payments", "AAAA"),
        ("catalog", "TXT"),
    ):
        assert not dnsd.dig(name, rtype).additional


def test_d10_beside_a_long_list_nothing_else_is_sent() -> None:
    """Making it would take longer than an answer may, and no datagram holds it."""
    many = MAX_BROWSED + 1
    dnsd = Dnsd(*(instance("pay", f"p{n}", (f"10.0.0.{n}",)) for n in range(many)))

    answer = dnsd.dig("_http._tcp", "PTR", tcp=True)

    assert len(rdatas(answer)) == many
    assert not answer.additional


@pytest.mark.parametrize("name", ["b", "lb"])
def test_d12_the_zone_says_that_it_is_to_be_browsed(dnsd: Dnsd, name: str) -> None:
    assert rdatas(dnsd.dig(f"{name}._dns-sd._udp", "PTR")) == ["svc.internal."]


@pytest.mark.parametrize("name", ["db", "r", "dr", "b", "lb", "_services"])
@pytest.mark.parametrize("rtype", ["A", "TXT", "SRV", "PTR"])
def test_d12_other_names_of_the_kind_are_nodata(dnsd: Dnsd, name: str, rtype: str) -> None:
    if rtype == "PTR" and name in ("b", "lb", "_services"):
        return
    assert outcome(dnsd.dig(f"{name}._dns-sd._udp", rtype)) == "NODATA"


@pytest.mark.parametrize("name", ["_dns-sd._udp", "_udp"])
def test_l4_what_is_above_them_exists_also_without_services(name: str) -> None:
    dnsd = Dnsd()
    for rtype in ("PTR", "A", "ANY"):
        assert outcome(dnsd.dig(name, rtype)) == "NODATA"


def test_a_name_may_be_a_service_s_and_a_type_s() -> None:
    """Each type of record has its own meaning there."""
    dnsd = Dnsd(instance("http", "a", ports=(Port("web", 80),)), instance("other", "b"))

    assert rdatas(dnsd.dig("_http._tcp", "SRV")) == ["0 100 80 a.http.svc.internal."]
    assert rdatas(dnsd.dig("_http._tcp", "PTR")) == [r"b\.other._http._tcp.svc.internal."]
    assert rdatas(dnsd.dig("_http._tcp", "ANY")) == ["0 100 80 a.http.svc.internal."]
    dnsd.up(instance("http", "a", ports=(Port("web", 80),), state="draining"))
    assert outcome(dnsd.dig("_http._tcp", "SRV")) == "NODATA"
    assert rdatas(dnsd.dig("_http._tcp", "ANY")) == [r"b\.other._http._tcp.svc.internal."]


def test_a_port_may_have_a_name_with_a_meaning_for_browsing() -> None:
    dnsd = Dnsd(instance("a", "x", ports=(Port("dns-sd", 1, "udp"), Port("sub", 2))))

    assert rdatas(dnsd.dig("_dns-sd._udp", "PTR")) == [r"x\.a._dns-sd._udp.svc.internal."]
    assert rdatas(dnsd.dig(r"x\.a._dns-sd._udp", "SRV")) == ["0 100 1 x.a.svc.internal."]
    assert rdatas(dnsd.dig("b._dns-sd._udp", "PTR")) == ["svc.internal."]
    assert rdatas(dnsd.dig("_a._sub._sub._tcp", "PTR")) == [r"x\.a._sub._tcp.svc.internal."]
    assert outcome(dnsd.dig("_a._sub._tcp", "PTR")) == "NXDOMAIN"


def test_each_zone_is_browsed_within_itself_and_leads_to_targets_in_the_first() -> None:
    dnsd = Dnsd(instance(), zones=("svc.internal.", "other.example."))

    assert rdatas(dnsd.dig("_services._dns-sd._udp.other.example.", "PTR")) == [
        "_http._tcp.other.example."
    ]
    (listed,) = rdatas(dnsd.dig("_http._tcp.other.example.", "PTR"))
    assert listed == r"pay-1\.payments._http._tcp.other.example."
    assert rdatas(dnsd.dig(listed, "SRV")) == ["0 100 8080 pay-1.payments.svc.internal."]
    assert rdatas(dnsd.dig("catalog.other.example.", "PTR")) == ["payments.other.example."]
    assert rdatas(dnsd.dig("b._dns-sd._udp.other.example.", "PTR")) == ["other.example."]


def test_names_in_a_list_point_into_the_question_whatever_its_case(dnsd: Dnsd) -> None:
    """RFC 1035 allows it for PTR; the names have the case of the question, and are the same."""
    name = b"\x05_hTTp\x04_tCP\x03sVC\x08inTERNAL\0"
    reply = dnsd.reply(query_of(name, "PTR"), LOCAL_TCP).packet

    assert reply is not None
    assert reply.count(b"\x0epay-1.payments\xc0\x0c") == 1


# --- catalog -------------------------------------------------------------------------------------


def test_the_catalog_lists_services_that_are_answered(dnsd: Dnsd) -> None:
    dnsd.up(instance("idle", "i1", state="draining"))

    answer = dnsd.dig("catalog", "PTR")

    assert set(rdatas(answer)) == {"payments.svc.internal.", "nmap-service.svc.internal."}
    for service in rdatas(answer):
        assert outcome(dnsd.dig(service)) == "NOERROR"
    dnsd.down("payments", "pay-1")
    assert rdatas(dnsd.dig("catalog", "PTR")) == ["nmap-service.svc.internal."]


def test_the_catalog_says_its_revision_whole(dnsd: Dnsd) -> None:
    dnsd.catalog.revision = (7 << 32) + 41
    dnsd.up(instance("more", "m1"))

    assert rdatas(dnsd.dig("catalog", "TXT")) == [f'"rev={(7 << 32) + 42}"']
    assert dnsd.dig("svc.internal.", "SOA").answer[0][0].serial == 42
    dnsd.up(instance("more", "m2"))
    assert rdatas(dnsd.dig("catalog", "TXT")) == [f'"rev={(7 << 32) + 43}"']


def test_the_catalog_of_nothing(dnsd: Dnsd) -> None:
    dnsd = Dnsd()
    assert outcome(dnsd.dig("catalog", "PTR")) == "NODATA"
    assert rdatas(dnsd.dig("catalog", "ANY")) == ['"rev=0"']
    assert outcome(dnsd.dig("catalog", "A")) == "NODATA"


@pytest.mark.parametrize(
    ("name", "rtype"),
    [("catalog", "PTR"), ("_http._tcp", "PTR"), ("_services._dns-sd._udp", "PTR")],
)
def test_l10_any_of_a_list_is_the_list_alone(dnsd: Dnsd, name: str, rtype: str) -> None:
    answer = dnsd.dig(name, "ANY", tcp=True)

    assert sorted(rdatas(answer)) == sorted(rdatas(dnsd.dig(name, rtype)))
    assert not answer.additional


def test_r9_r11_lists_have_one_ttl_that_no_instance_decides(dnsd: Dnsd) -> None:
    states: tuple[State, ...] = ("fresh", "stale")
    for state in states:
        dnsd.table.reset(state)
        for name in ("catalog", "_http._tcp", "_services._dns-sd._udp"):
            assert dnsd.dig(name, "PTR").answer[0].ttl == 5


# --- texts ---------------------------------------------------------------------------------------


def strings(dnsd: Dnsd, name: str = "pay-1.payments") -> list[bytes]:
    (record,) = dnsd.dig(name, "TXT", tcp=True).answer[0]
    return list(record.strings)


def test_d6_no_strings_are_one_empty_one() -> None:
    """TXT without any octet would be malformed (RFC 6763, section 6.1)."""
    soa = compile_soa(zones_of(["svc.internal."])[0])

    answer = compile_rrset(Rrset(TXT, 5, (Txt(()),)), "", soa, 0)

    assert answer.records[0].endswith(b"\0\x01\0")


def test_d7_strings_are_key_and_value_ours_first() -> None:
    dnsd = Dnsd(
        instance(
            metadata={
                "b": "2", "a": "x=y", "A": "again", "svc": "not ours", "TXTVERS": "9", "empty": "",
                "k=v": "no", "": "no", "ö": "no", "tab\t": "no", "last": "ö", "health": "/no",
            },
        )
    )  # fmt: skip

    assert strings(dnsd) == [
        b"txtvers=1",
        b"svc=payments",
        b"id=pay-1",
        b"A=again",
        b"b=2",
        b"empty=",
        "last=ö".encode(),
    ]


def test_d7_neither_hosts_nor_ports_stand_in_texts() -> None:
    dnsd = Dnsd(instance(ports=(Port("http", 48047),), host="vertice", metadata={"a": "b"}))

    said = b" ".join(strings(dnsd))

    assert b"48047" not in said
    assert b"vertice" not in said
    assert b"10.0.0.1" not in said


def test_d8_one_record_of_whole_strings_up_to_1300_octets() -> None:
    metadata = {f"key{n:02}": "v" * 200 for n in range(20)} | {"long": "x" * 252}
    dnsd = Dnsd(instance(metadata=metadata))

    found = strings(dnsd)

    assert found[3:] == [f"key{n:02}={'v' * 200}".encode() for n in range(6)]
    assert sum(len(s) + 1 for s in found) <= MAX_TEXT
    assert all(len(s) <= MAX_STRING for s in found)
    assert outcome(dnsd.dig("pay-1.payments", "TXT")) == "NODATA", "it does not fit; by TCP it does"


def test_d8_the_text_of_a_service_is_one_short_record() -> None:
    dnsd = Dnsd(
        *(instance("pay", f"p{n}", metadata={"k": "v" * 200}) for n in range(50)),
        instance("pay", "away", state="draining"),
    )

    assert strings(dnsd, "pay") == [b"txtvers=1", b"svc=pay", b"instances=50"]


@pytest.mark.parametrize(
    ("path", "told"),
    [("/health", None), ("/v1/sys/health", b"health=/v1/sys/health"), ("/" + "x" * 300, None)],
)
def test_a_health_path_is_told_where_it_is_not_the_usual_one(path: str, told: bytes | None) -> None:
    """The gateway asks for health there."""
    found = strings(Dnsd(instance(health_endpoint=path, metadata={"health": "mine"})))

    assert [s for s in found if s.startswith(b"health=")] == ([] if told is None else [told])


def test_metadata_may_say_the_version_where_the_registration_does_not() -> None:
    assert b"version=7" in strings(Dnsd(instance(metadata={"version": "7"})))
    assert b"version=8" in strings(Dnsd(instance(version="8", metadata={"version": "7"})))


def test_the_version_of_the_names_is_told(dnsd: Dnsd) -> None:
    assert rdatas(dnsd.dig("dns-version", "TXT")) == [f'"{SCHEMA_VERSION}"']
    assert outcome(dnsd.dig("dns-version", "A")) == "NODATA"
    assert outcome(dnsd.dig("x.dns-version", "TXT")) == "NXDOMAIN"
    assert f"dns-version={SCHEMA_VERSION}" in rdatas(dnsd.dig("svc.internal.", "TXT"))[0]
