"""The same questions to dnsd, and to Knot and NSD that transferred its zone: they must agree.

Compared are code, AA, TC, the answer as a set with its TTLs, and the SOA of negative answers.
Where good servers differ among themselves, DECIDED says what we do and why.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import dns.message
import dns.name
import dns.query
import dns.rdatatype
import dns.tsigkeyring
import dns.zone
import pytest

from registry.model import Port, Registration
from tests.support.dns import wire_name
from tests.support.lab import program
from tests.support.peers import KEY, KEYS_FILE, PEERS, SECRET, secondary
from tests.support.questions import COMMON, ODD, Asking, Question, Seen, names_of
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.xdist_group("peers")

ZONE = "svc.internal."

HTTP, GRPC, METRICS = Port("http", 8080), Port("grpc", 9090), Port("metrics", 9100)
DNS_UDP = Port("dns", 53, "udp")
LONG = "x" * 63


def registered(service: str, id: str, *addresses: str, **more: object) -> Registration:
    """An instance of the zone."""
    given = {"ports": (HTTP,), "lease_ttl": 3600, **more}
    return Registration(service, id, addresses=addresses, **given)  # type: ignore[arg-type]


REGISTRATIONS = (
    registered("payments", "pay-1", "10.0.0.1", weight=10, version="v1.0.1", zone="eu-1"),
    registered("payments", "pay-2", "10.0.0.2", "2001:db8::2", weight=0, tags=("canary", "blue")),
    registered("payments", "pay-3", "10.0.0.3", priority=10, ports=(HTTP, GRPC, METRICS)),
    registered("orders", "one", "2001:db8::1", record_ttl=30, metadata={"team": "red", "a": "b"}),
    registered("resolver", "r1", "10.0.0.53", ports=(DNS_UDP,)),
    registered("resolver", "r2", "10.0.0.54", ports=(DNS_UDP, GRPC)),
    registered("nmap_service", "scan_1", "10.0.0.61"),
    registered(LONG, LONG, "10.0.0.62"),
    *(registered("sixty", f"one-{n}", f"10.60.0.{n}") for n in range(1, 61)),
)

DRAINING = (
    registered("payments", "pay-4", "10.0.0.4", ports=(HTTP, Port("admin", 9999))),
    registered("idle", "i-1", "10.0.0.5"),
)
GONE = (registered("gone", "g-1", "10.0.0.6", ports=(HTTP, DNS_UDP)),)


TYPES = (
    *(0, 2, 5, 10, 13, 15, 35, 39, 41, 43, 46, 47, 48, 52, 64, 65, 99, 128, 248, 249, 250, 253),
    *(254, 256, 257, 65535),
)
"""NS, CNAME … and numbers that no type has, or none that may be asked."""

USUAL_TYPES = (1, 6, 12, 16, 28, 33, 255, 1000)
"""A, SOA, PTR, TXT, AAAA, SRV, ANY, and one that nobody has."""

MANY = re.compile(r"\bone-(?!1\b|60\b)\d+")
"""Names of the sixty, of which two will do."""

SELECTORS = frozenset((b"tag", b"version", b"zone", b"state", b"prefer"))

SELECTED = [
    wire_name(name + ZONE)
    for name in (
        *("v1-0-1.version.eu-1.zone.payments.", "blue.tag.canary.tag.payments."),
        *("eu-1.prefer.payments.", "_http._tcp.eu-1.prefer.payments.", "nowhere.zone.payments."),
    )
]
"""Names that choose among the instances of a service."""

EMPTY = [
    wire_name(name + ZONE)
    for name in (
        *("gone.", "_tcp.gone.", "_udp.gone.", "_http._tcp.gone.", "_gone._udp.", "idle."),
        *("_admin._tcp.payments.", "_idle._tcp."),
    )
]
"""Names of services and ports that no instance has any more, or none that serves."""

ABSENT = [
    wire_name(name + ZONE)
    for name in (
        *("g-1.gone.", "_x._tcp.gone.", "i-1.idle.", "pay-4.payments.", "_x.payments."),
        *("x.tag.absent.", "eu-1.prefer.absent.", "tag.", "a.b.c.d.e.f.g.h."),
    )
]
"""Names of instances that have left or are about to, and of what never was."""

FOREIGN = [wire_name(n) for n in ("", "internal.", "xsvc.internal.", "www.example.org.", "com.")]


def common_questions(owners: Iterable[dns.name.Name]) -> Iterator[Question]:
    """Every name that exists with the usual types in two shapes, and with some others; every
    near-miss; what is listed above.  Types and shapes come in turns."""
    there, near = names_of(ZONE, owners)
    shapes = itertools.cycle((*COMMON, *list(COMMON)[::-1]))
    usual, others = itertools.cycle(USUAL_TYPES), itertools.cycle(TYPES)
    for name in there:
        for qtype in (*USUAL_TYPES, *USUAL_TYPES, *itertools.islice(others, 7)):
            yield Question(name, qtype, next(shapes))
    for name in near:
        yield Question(name, next(usual), next(shapes))
    for name in SELECTED + EMPTY + ABSENT + FOREIGN:
        for qtype in USUAL_TYPES:
            yield Question(name, qtype, next(shapes))


ODD_NAMES = [
    *(wire_name(name + ZONE) for name in ("", "payments.", "_http._tcp.sixty.", "absent.")),
    wire_name("www.example.org."),
]

UNREADABLE = frozenset(
    (
        *("two questions", "no question", "no question, cookie"),
        *("name cut", "pointer to itself", "label of 64", "name of 256"),
    )
)
"""Shapes in which the name does not matter."""


def odd_questions() -> Iterator[Question]:
    """Every odd shape of a few names, over UDP and TCP."""
    for shape in ODD:
        for name in ODD_NAMES[:1] if shape in UNREADABLE else ODD_NAMES:
            yield Question(name, dns.rdatatype.SRV, shape, tcp=False)
            yield Question(name, dns.rdatatype.SRV, shape, tcp=True)


# --- decisions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """A question that two servers answer differently; `names` are those of the zone, folded."""

    asked: Question
    ours: Seen
    theirs: Seen
    names: frozenset[bytes]

    def __str__(self) -> str:
        return f"{self.asked}\n  dnsd {self.ours}\n  peer {self.theirs}"


@dataclass(frozen=True, slots=True)
class Decided:
    """A difference that is meant: with whom, what it looks like, where and why it was decided."""

    peers: str
    is_this: Callable[[Difference], bool]
    why: str


def truncated(d: Difference) -> bool:
    """The same, but for records in an answer that says it is cut short."""
    return d.ours.tc and not d.theirs.answer and d.ours._replace(answer=frozenset()) == d.theirs


def any_type(d: Difference) -> bool:
    """One record set each, of different types; the larger may not fit."""
    heads = {(s.rcode, s.aa, s.opt) for s in (d.ours, d.theirs)}
    sets = [{record.split()[3] for record in s.answer} for s in (d.ours, d.theirs)]
    return d.asked.qtype == dns.rdatatype.ANY and len(heads) == 1 and max(map(len, sets)) == 1


def type_0(d: Difference) -> bool:
    return d.asked.qtype == 0 and d.theirs.rcode == "NOTIMP" and d.ours.rcode != "NOTIMP"


def spelled_otherwise(d: Difference) -> bool:
    """A name that is one of the zone's when `_` and `-` are one."""
    exists = fold(d.asked.name) in d.names
    return exists and (d.ours.rcode, d.theirs.rcode) == ("NOERROR", "NXDOMAIN")


def emptied(d: Difference) -> bool:
    """A name that nobody stands for at the moment."""
    nodata = d.ours.rcode == "NOERROR" and not d.ours.answer and d.ours.soa == d.theirs.soa
    return d.asked.name in EMPTY and nodata and d.theirs.rcode == "NXDOMAIN"


def selected(d: Difference) -> bool:
    """A name that chooses among instances, in another way than by one value that some has."""
    labels = dns.name.from_wire(d.asked.name.lower(), 0)[0].labels
    codes = (d.ours.rcode, d.theirs.rcode)
    return not SELECTORS.isdisjoint(labels) and codes == ("NOERROR", "NXDOMAIN")


OF_NAMES = (
    Decided("knot nsd", truncated, "19.1: clients without TCP live on the records that fit"),
    Decided("knot nsd", any_type, "19.4, L10: which set stands for all is each one's own"),
    Decided("knot", type_0, "L3: by existence, like every other type"),
    Decided("knot nsd", spelled_otherwise, "X9: a copy has the spellings that were registered"),
    Decided("knot nsd", selected, "L8, X9: a copy cannot hold every choice, nor deny a value"),
    Decided("knot nsd", emptied, "L7, X9: a copy cannot say that a service is empty"),
)


def shape(rcode: str, *shapes: str) -> Callable[[Difference], bool]:
    """Differences of questions of these *shapes*, to which we say *rcode*."""
    return lambda d: d.asked.shape in shapes and d.ours.rcode == rcode and not d.ours.aa


def opt_in_formerr(d: Difference) -> bool:
    """Both say FORMERR, we with an OPT."""
    return d.ours.rcode == "FORMERR" and d.ours == d.theirs._replace(opt=True)


def taken_as_it_is(*shapes: str) -> Callable[[Difference], bool]:
    """Differences of *shapes* that we answer, and the peer rejects."""
    return lambda d: (
        d.asked.shape in shapes and d.theirs.rcode == "FORMERR" and d.ours.rcode != "FORMERR"
    )


OF_SHAPES = (
    OF_NAMES[0],
    Decided("knot nsd", shape("REFUSED", "class any"), "19.5: we hold one class"),
    Decided("knot nsd", shape("NOTIMP", "notify"), "19.11: RFC 1996, 3.12; we are no secondary"),
    Decided("knot", shape("NOTIMP", "update"), "19.12"),
    Decided(
        "knot",
        shape("FORMERR", "name cut", "pointer to itself", "label of 64", "name of 256"),
        "19.13: silence there; an answer lets clients stop waiting",
    ),
    Decided("knot", shape("FORMERR", "two questions"), "H5: silence there"),
    Decided("knot", shape("NOERROR", "no question, cookie"), "H7: a cookie alone may be asked for"),
    Decided("nsd", shape("FORMERR", "no question"), "H6: it closes the connection"),
    Decided("knot nsd", opt_in_formerr, "19.14, E5, E6, E9: RFC 6891, section 7, wants the OPT"),
    Decided("knot", shape("FORMERR", "opt with an owner"), "E7: it takes any owner"),
    Decided(
        "knot", shape("BADVERS", "edns 1, broken options"), "19.15: an unknown form is no fault"
    ),
    Decided(
        "knot nsd",
        shape("FORMERR", "cookie of 7", "cookie of 41"),
        "E14: both are without cookies as Debian sets them up",
    ),
    Decided(
        "knot nsd",
        shape("FORMERR", "zoneversion with data"),
        "E35: RFC 9660, 3.2; neither knows the option",
    ),
    Decided("knot", taken_as_it_is("octets behind"), "19.18"),
    Decided("nsd", taken_as_it_is("a record too many"), "19.19"),
    Decided("nsd", taken_as_it_is("rcode"), "H4: a code in a query means nothing"),
)

SILENT = {
    "knot": UNREADABLE - {"no question", "no question, cookie"},
    "nsd": frozenset({"no question"}),
}
"""Shapes that a peer may meet with silence."""


# --- tests -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dnsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server that lets its zone be transferred."""
    directory = tmp_path_factory.mktemp("dnsd")
    keys = directory / "keys.toml"
    keys.write_text(KEYS_FILE)
    options = ("--tsig-keys", str(keys))
    with serving(directory, ZONE, REGISTRATIONS, *options, draining=DRAINING, gone=GONE) as dnsd:
        yield dnsd


@pytest.fixture(scope="module", params=PEERS, ids=lambda peer: peer.name)
def peer(
    request: pytest.FixtureRequest, dnsd: Serving, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Asking]]:
    """The name of a server with a copy of the zone, and how to ask dnsd and it."""
    found = request.param
    if not program(found.program):
        pytest.skip(f"not installed: {found.name}")
    with (
        secondary(found, dnsd, tmp_path_factory.mktemp(found.name)) as address,
        Asking(dnsd.address, address) as asking,
    ):
        yield found.name, asking


@pytest.fixture(scope="module")
def owners(dnsd: Serving) -> list[dns.name.Name]:
    """Every owner name of the zone, save most of the sixty."""
    keyring = dns.tsigkeyring.from_text({KEY: SECRET})
    zone = dns.zone.Zone(ZONE, relativize=False)
    query = dns.message.make_query(ZONE, "AXFR")
    query.use_tsig(keyring)
    dns.query.inbound_xfr(dnsd.address.host, zone, query, port=dnsd.address.port, timeout=10)
    return [name for name in zone.nodes if not MANY.search(name.to_text())]


def fold(name: bytes) -> bytes:
    """*name* as dnsd compares services and instances."""
    return name.lower().replace(b"_", b"-")


def judge(
    peer: str,
    asking: Asking,
    questions: Iterable[Question],
    decisions: Iterable[Decided],
    names: Iterable[bytes] = (),
) -> tuple[list[Difference], list[str]]:
    """(differences that nobody decided, decisions of which there was no case)."""
    mine = [decided for decided in decisions if peer in decided.peers]
    unmet = {decided.why for decided in mine}
    folded = frozenset(map(fold, names))
    undecided = []
    for asked in questions:
        ours, theirs = asking.ask(asked, silent=asked.shape in SILENT[peer])
        if ours == theirs:
            continue
        found = Difference(asked, ours, theirs, folded)
        of_this = {decided.why for decided in mine if decided.is_this(found)}
        unmet -= of_this
        if not of_this:
            undecided.append(found)
    return undecided, sorted(unmet)


def assert_all_decided(undecided: list[Difference], unmet: list[str]) -> None:
    """Neither a difference without a decision, nor a decision without a difference."""
    if undecided:
        pytest.fail(f"{len(undecided)}, such as\n" + "\n".join(map(str, undecided[:10])))
    assert not unmet


def test_every_name_and_near_miss(peer: tuple[str, Asking], owners: list[dns.name.Name]) -> None:
    name, asking = peer
    there, _ = names_of(ZONE, owners)
    questions = list(common_questions(owners))
    assert len(questions) > 3000

    undecided, unmet = judge(name, asking, questions, OF_NAMES, there)

    assert_all_decided(undecided, unmet)


def test_odd_questions(peer: tuple[str, Asking]) -> None:
    name, asking = peer

    undecided, unmet = judge(name, asking, odd_questions(), OF_SHAPES)

    assert_all_decided(undecided, unmet)


def test_l29_answers_over_udp_are_parts_of_those_over_tcp(peer: tuple[str, Asking]) -> None:
    """T12: over TCP they are whole, and the same as the copy's."""
    _, asking = peer
    for name in (f"sixty.{ZONE}", f"_http._tcp.sixty.{ZONE}"):
        for qtype in (dns.rdatatype.A, dns.rdatatype.SRV, dns.rdatatype.TXT):
            whole, copy = asking.ask(Question(wire_name(name), qtype, "plain", tcp=True))
            part, _ = asking.ask(Question(wire_name(name), qtype, "plain"))

            assert whole == copy
            assert not whole.tc
            assert part.answer <= whole.answer
            assert part.tc == (len(part.answer) < len(whole.answer))
