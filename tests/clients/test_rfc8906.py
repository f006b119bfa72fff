"""RFC 8906, section 8: the eighteen tests of a name server, by the dig they were written for."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from registry.model import Port, Registration
from tests.support.lab import program
from tests.support.serving import Serving, serving

pytestmark = [
    pytest.mark.xdist_group("rfc8906"),
    pytest.mark.skipif(not program("dig"), reason="not installed: dig"),
]

ZONE = "svc.internal."
BIG = f"_http._tcp.sixty.{ZONE}"

NO_OPT = None
NSID, COOKIE, EXPIRE = "NSID", "COOKIE", "EXPIRE"


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, and what has to come back.

    `soa` is the section in which the SOA stands, empty for none.  `opt` are the flags of the OPT
    record, NO_OPT where there must be none; `options` those that may come back in it.
    """

    id: str
    section: str
    asked: str
    status: str = "NOERROR"
    flags: str = "qr aa"
    soa: str = "ANSWER"
    opt: str | None = ""
    options: frozenset[str] = frozenset()
    opcode: str = "QUERY"

    def __str__(self) -> str:
        return f"{self.id}-{self.section}"


def plain(id: str, section: str, asked: str, flags: str = "qr aa", soa: str = "ANSWER") -> Case:
    """A case without EDNS."""
    return Case(id, section, f"+noedns {asked}", flags=flags, soa=soa, opt=NO_OPT)


def version_1(id: str, section: str, more: str = "", opt: str = "") -> Case:
    """A case of a version of EDNS that there is not."""
    asked = f"+nocookie +edns=1 +noednsneg +noad {more} soa"
    return Case(id, section, asked, status="BADVERS", flags="qr", soa="", opt=opt)


CASES = (
    plain("TB1", "8.1.1", "+noad soa"),
    plain("TB2", "8.1.2", "+noad type1000", soa="AUTHORITY"),
    plain("TB3", "8.1.3.1", "+noad +cd soa"),
    plain("TB4", "8.1.3.2", "+ad soa"),
    plain("TB5", "8.1.3.3", "+noad +zflag soa"),
    plain("TB6", "8.1.3.4", "+noad +rec soa", flags="qr aa rd"),
    Case(
        "TB7",
        "8.1.4",
        "+noedns +noad +opcode=15 +header-only",
        status="NOTIMP",
        flags="qr",
        soa="",
        opt=NO_OPT,
        opcode="RESERVED15",
    ),
    plain("TB8", "8.1.5", "+noad +tcp soa"),
    Case("TE1", "8.2.1", "+nocookie +edns=0 +noad soa"),
    version_1("TE2", "8.2.2"),
    Case("TE3", "8.2.3", "+nocookie +edns=0 +noad +ednsopt=100 soa"),
    Case("TE4", "8.2.4", "+nocookie +edns=0 +noad +ednsflags=0x40 soa"),
    version_1("TE5", "8.2.5", "+ednsflags=0x40"),
    version_1("TE6", "8.2.6", "+ednsopt=100"),
    Case(
        "TE7",
        "8.2.7",
        "+dnssec +bufsize=512 +ignore dnskey",
        soa="AUTHORITY",
        opt="do",
        options=frozenset({COOKIE}),
    ),
    Case("TE8", "8.2.8", "+nocookie +edns=0 +noad +dnssec soa", opt="do"),
    version_1("TE9", "8.2.9", "+dnssec", opt="do"),
    Case(
        "TE10",
        "8.2.10",
        "+edns=0 +noad +cookie +nsid +expire +subnet=0.0.0.0/0 soa",
        options=frozenset({COOKIE, NSID, EXPIRE}),
    ),
)


@pytest.fixture(scope="module")
def dnsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server of a zone with one large record set."""
    instances = (
        Registration("sixty", f"one-{n}", (Port("http", 80),), (f"10.60.0.{n}",), lease_ttl=3600)
        for n in range(1, 61)
    )
    with serving(tmp_path_factory.mktemp("dnsd"), ZONE, instances) as dnsd:
        yield dnsd


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def server(request: pytest.FixtureRequest, dnsd: Serving) -> list[str]:
    """Where dig asks."""
    for address in dnsd.addresses:
        if ip_address(address.host).version == request.param:
            return [f"@{address.host}", "-p", str(address.port)]
    pytest.skip("this machine has no IPv6")


def dig(server: list[str], *words: str) -> str:
    """What dig prints."""
    command = [program("dig"), *server, "+norec", "+tries=1", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rfc8906_section_8(case: Case, server: list[str]) -> None:
    said = dig(server, ZONE, *case.asked.split())

    assert one(r"opcode: (\w+)", said) == case.opcode
    assert one(r"status: (\w+)", said) == case.status
    assert one(r"^;; flags: ([\w ]*);", said) == case.flags
    assert "MBZ" not in said
    sections = re.findall(r"^;; (\w+) SECTION:\n[^;\n]*\sSOA\s", said, re.MULTILINE)
    assert sections == ([case.soa] if case.soa else [])
    edns = re.findall(r"^; EDNS: version: (\d+), flags:([ \w]*);", said, re.MULTILINE)
    assert edns == ([] if case.opt is NO_OPT else [("0", f" {case.opt}".rstrip())])
    assert options(said) <= case.options
    warnings = re.findall(r"^;; WARNING: (.*)", said, re.MULTILINE)
    assert warnings == (["recursion requested but not available"] if "+rec" in case.asked else [])


def test_te7_a_large_answer_within_512_octets(server: list[str]) -> None:
    said = dig(server, BIG, *"+dnssec +bufsize=512 +ignore srv".split())

    assert one(r"^;; flags: ([\w ]*);", said) == "qr aa tc"
    assert one(r"^; EDNS: version: (\d+), flags: do;", said) == "0"
    assert 0 < int(one(r"MSG SIZE  rcvd: (\d+)", said)) <= 512


def one(pattern: str, said: str) -> str:
    """What *pattern* finds in its only place."""
    (found,) = re.findall(pattern, said, re.MULTILINE)
    return str(found)


def options(said: str) -> set[str]:
    """Names of the EDNS options that came back."""
    section = re.search(r"OPT PSEUDOSECTION:\n; EDNS.*\n((?:; .*\n)*)", said)
    return set(re.findall(r"^; ([\w-]+)", section[1], re.MULTILINE)) if section else set()
