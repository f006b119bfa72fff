"""What resolves names within programs: libraries and tools that read resolv.conf and ask.

CL1: each is given a service with IPv4 alone, one of 60 instances, a foreign name, and a server
that is not ready.  Where it differs from the others, the table says how.
"""

import functools
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import SIXTY, Machines
from tests.support.lab import FOREIGN, FOREIGN_ADDRESS, ZONE, Lab, program
from tests.support.netns import Namespace

pytestmark = pytest.mark.xdist_group("clients")

PROGRAMS = Path(__file__).parent / "programs"

ANSWERED = "answered"

PLAIN_UDP = 29
"""Addresses of `sixty` that fit 512 octets: 12 for the header, 24 for the question, 16 for each."""


@dataclass(frozen=True, slots=True)
class Client:
    """A resolver: how to run it for NAME and TYPE, and what it does where resolvers differ.

    `foreign` and `not_ready` are ANSWERED where it goes on to the next server, else what it
    says.  `tcp`: whether it asks again over TCP when an answer is truncated.  `fixed`: whether
    it always asks its first server first.  `srv`: whether it can ask for SRV records.
    """

    name: str
    command: str
    foreign: str = ANSWERED
    not_ready: str = ANSWERED
    absent: str = "NXDOMAIN"
    tcp: bool = True
    fixed: bool = True
    srv: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def program(self) -> str:
        return self.command.split()[0]


def tool(name: str, command: str, *, tcp: bool = True, fixed: bool = True) -> Client:
    """A client that shows what its server says, whatever that is."""
    return Client(name, command, "REFUSED", "SERVFAIL", tcp=tcp, fixed=fixed)


CLIENTS = (
    tool("dig", "dig {name} {type}"),
    Client("dig-nofail", "dig +nofail {name} {type}", foreign="REFUSED"),
    tool("kdig", "kdig {name} {type}"),
    # drill picks its server at random.
    tool("drill", "drill {name} {type}", tcp=False, fixed=False),
    tool("drill-fallback", "drill -a {name} {type}", fixed=False),
    # BIND's own want recursion: see the test of its own.
    Client("nslookup", "nslookup -type={type} {name}", fixed=False),
    Client("host", "host -t {type} {name}", fixed=False),
    tool("busybox", "busybox nslookup -type={type} {name}", tcp=False),
    Client("glibc", "getent ahosts {name}", absent="", srv=False),
    Client(
        "musl",
        "lookup-musl {name}",
        absent="Name does not resolve",
        tcp=False,  # until 1.2.4
        # It asks all servers at once and takes the first that says yes or no.
        fixed=False,
        srv=False,
    ),
    Client(
        "python-socket",
        "lookup.py socket {name}",
        absent="Name or service not known",
        srv=False,
    ),
    Client("dnspython", "lookup.py dnspython {name} {type}", absent="does not exist"),
    Client("c-ares", "lookup.py c-ares {name} {type}", absent="Domain name not found"),
    Client("go", "lookup-go {name} {type}", absent="no such host"),
    Client("node-lookup", "lookup.js lookup {name}", absent="ENOTFOUND", srv=False),
    Client(
        # It tells c-ares to take every answer as it comes (ARES_FLAG_NOCHECKRESP).
        "node-resolve",
        "lookup.js resolve {name} {type}",
        foreign="EREFUSED",
        not_ready="ESERVFAIL",
        absent="ENOTFOUND",
    ),
)


@pytest.fixture(params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest) -> Client:
    """Each resolver in turn."""
    found: Client = request.param
    if problem := missing(found):
        pytest.skip(problem)
    return found


@functools.cache
def missing(client: Client) -> str:
    """What there is not of all that *client* needs."""
    needed = {
        "lookup-musl": ("musl-gcc",),
        "lookup-go": ("go",),
        "lookup.js": ("node",),
        "lookup.py": (),
    }.get(client.program, (client.program,))
    absent = [name for name in needed if not program(name)]
    if client.name == "c-ares" and importlib.util.find_spec("pycares") is None:
        absent.append("pycares")
    return f"not installed: {', '.join(absent)}" if absent else ""


class Built:
    """Finds or makes the program that the first word of a command stands for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def words(self, word: str) -> list[str]:
        """How to start *word*."""
        match word:
            case "lookup.py":
                return [sys.executable, str(PROGRAMS / word)]
            case "lookup.js":
                return [program("node"), str(PROGRAMS / word)]
            case "lookup-musl":
                return [self._made(word, "musl-gcc", "-static", "lookup.c")]
            case "lookup-go":
                return [self._made(word, "go", "build", "lookup.go")]
        return [program(word)]

    def _made(self, name: str, compiler: str, option: str, source: str) -> str:
        made = self._directory / name
        if not made.exists():
            command = [program(compiler), option, "-o", str(made), str(PROGRAMS / source)]
            environ = {**os.environ, "CGO_ENABLED": "0"}  # Go's resolver is then the only one
            subprocess.run(command, check=True, capture_output=True, env=environ)
        return str(made)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Each program is compiled when it is first wanted."""
    return Built(tmp_path_factory.mktemp("programs"))


@dataclass(frozen=True, slots=True)
class Asking:
    """One resolver, wherever it is run."""

    client: Client
    built: Built

    def says(self, machine: Namespace, name: str, rtype: str = "A") -> str:
        """All that it prints."""
        first, *rest = self.client.command.split()
        words = [word.format(name=name, type=rtype) for word in rest]
        done = machine.run(*self.built.words(first), *words, check=False)
        return done.stdout + done.stderr

    def addresses(self, machine: Namespace, name: str) -> set[str]:
        """Those in what it prints, but for that of the server, which some print too."""
        found = re.findall(r"\b\d+(?:\.\d+){3}\b", self.says(machine, name))
        return {address for address in found if not address.startswith("10.53.")}

    def targets(self, machine: Namespace, service: str) -> set[str]:
        """Targets of the service's SRV records, without their zone."""
        said = self.says(machine, f"_http._tcp.{service}.{ZONE}", "SRV")
        return set(re.findall(rf"([\w-]+\.{service})\.{ZONE}\.?$", said, re.MULTILINE))


@pytest.fixture
def asking(client: Client, built: Built) -> Asking:
    """Each resolver in turn, ready to run."""
    return Asking(client, built)


def test_cl1_l9_a_service_with_ipv4_alone(machines: Machines, asking: Asking) -> None:
    """The question for AAAA that goes along is NODATA, which must not hide the A record."""
    assert asking.addresses(machines.alone, f"v4only.{ZONE}") == {"10.0.0.7"}


def test_names_that_choose_among_instances(machines: Machines, asking: Asking) -> None:
    """They are host names like others, with hyphens and letters alone."""
    tagged = asking.addresses(machines.alone, f"canary.tag.eu-1.zone.tagged.{ZONE}")
    near = asking.addresses(machines.alone, f"eu-2.prefer.tagged.{ZONE}")

    assert (tagged, near) == ({"10.0.1.1"}, {"10.0.1.2"})


def test_a_server_reached_by_ipv6(machines: Machines, asking: Asking) -> None:
    assert asking.addresses(machines.over_ipv6, f"v4only.{ZONE}") == {"10.0.0.7"}


def test_cl1_t5_sixty_addresses(machines: Machines, asking: Asking) -> None:
    """Truncated over UDP, whole over TCP; who does not ask again has what fits."""
    found = asking.addresses(machines.alone, f"sixty.{ZONE}")

    assert found <= set(SIXTY)
    assert len(found) == 60 if asking.client.tcp else len(found) >= PLAIN_UDP


@pytest.mark.parametrize("client", [c for c in CLIENTS if c.srv], ids=str, indirect=True)
def test_cl1_t5_sixty_services(machines: Machines, asking: Asking) -> None:
    assert asking.targets(machines.alone, "v4only") == {"one-1.v4only"}
    found = asking.targets(machines.alone, "sixty")
    assert found <= {f"one-{number}.sixty" for number in range(1, 61)}
    assert len(found) == 60 if asking.client.tcp else found


def test_cl1_l1_a_foreign_name_is_left_to_the_next_server(
    machines: Machines, asking: Asking
) -> None:
    client = asking.client
    if client.foreign == ANSWERED:
        assert asking.addresses(machines.with_other, FOREIGN) == {FOREIGN_ADDRESS}
    else:
        machine = machines.with_other if client.fixed else machines.alone
        assert client.foreign in asking.says(machine, FOREIGN)
    if client.fixed:
        assert asking.addresses(machines.with_other, f"v4only.{ZONE}") == {"10.0.0.7"}


def test_cl1_s1_a_server_that_is_not_ready_is_passed_over(
    machines: Machines, asking: Asking
) -> None:
    client = asking.client
    if client.not_ready == ANSWERED:
        assert asking.addresses(machines.not_ready, f"v4only.{ZONE}") == {"10.0.0.7"}
    else:
        machine = machines.not_ready if client.fixed else machines.only_not_ready
        assert client.not_ready in asking.says(machine, f"v4only.{ZONE}")


@pytest.mark.parametrize("client", [c for c in CLIENTS if c.tcp], ids=str, indirect=True)
def test_b5_e17_a_stranger_that_is_limited_has_its_answer(
    lab: Lab, machines: Machines, asking: Asking
) -> None:
    """By TCP after an empty answer with TC, or with the cookie that came with BADCOOKIE."""
    limited = lab.limited()

    for _ in range(20):
        assert asking.addresses(machines.stranger, f"v4only.{ZONE}") == {"10.0.0.7"}
        if lab.limited() > limited:
            return
    pytest.fail("it was never limited")


def test_l5_a_name_that_is_not_there(machines: Machines, asking: Asking) -> None:
    said = asking.says(machines.alone, f"absent.{ZONE}")

    assert asking.client.absent in said
    assert asking.addresses(machines.alone, f"absent.{ZONE}") == set()


@pytest.mark.parametrize("name", ["glibc", "musl", "python-socket", "go", "node-lookup"])
def test_a_short_name_is_completed(machines: Machines, built: Built, name: str) -> None:
    client = next(c for c in CLIENTS if c.name == name)
    if problem := missing(client):
        pytest.skip(problem)

    assert Asking(client, built).addresses(machines.search, "v4only") == {"10.0.0.7"}


@pytest.mark.parametrize("tool", ["nslookup", "host"])
def test_h20_tools_that_want_recursion_have_to_be_told(machines: Machines, tool: str) -> None:
    """RA is clear in an answer of ours: BIND's tools then ask the next server, if there is one."""
    if not program(tool):
        pytest.skip(f"not installed: {tool}")
    quiet = {"nslookup": "-norecurse", "host": "-r"}[tool]
    name = f"v4only.{ZONE}"

    assert "NXDOMAIN" in machines.with_other.run(tool, name, check=False).stdout
    assert "10.0.0.7" in machines.with_other.run(tool, quiet, name).stdout
