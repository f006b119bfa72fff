"""Resolvers that stand between dnsd and everybody else on a machine: they ask it, and keep answers.

Each runs at 127.0.0.1 on a machine of its own, whose other programs know only it.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import SIXTY
from tests.support.lab import (
    DNSD,
    ELSEWHERE,
    FOREIGN,
    FOREIGN_ADDRESS,
    LOADING,
    STRICT,
    ZONE,
    Lab,
    eventually,
    program,
)
from tests.support.netns import Namespace, Program

pytestmark = pytest.mark.xdist_group("clients")

RESOLVED_VARIABLE = "RESOLVED_ROOT"
"""Environment variable that names where Debian's package systemd-resolved was unpacked, because
installing it takes a machine's resolv.conf away."""

ALONE, WITH_OTHER, NOT_READY, LIMITED = (DNSD,), (DNSD, ELSEWHERE), (LOADING, DNSD), (STRICT,)
"""Servers that a forwarder is given."""

DEPARTURE_SECONDS = 15.0
"""Bound of a departure: a TTL of 1 s, and whatever a busy machine adds."""

Upstreams = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forwarder:
    """A program, where it is (empty: nowhere), and how to start it on a machine."""

    name: str
    program: str
    start: Callable[["Forwarder", Namespace, Upstreams], Program]

    def __str__(self) -> str:
        return self.name


def start_unbound(unbound: Forwarder, machine: Namespace, upstreams: Upstreams) -> Program:
    """Our zone as a stub, the rest forwarded; it checks the case of the names that come back."""
    servers = {
        option: "\n".join(f"  {option}: {address}" for address in upstreams)
        for option in ("stub-addr", "forward-addr")
    }
    configuration = f"""
server:
  interface: 127.0.0.1
  do-daemonize: no
  use-syslog: no
  logfile: ""
  chroot: ""
  username: ""
  pidfile: ""
  directory: "{machine.directory("unbound")}"
  module-config: "iterator"
  use-caps-for-id: yes
remote-control:
  control-enable: no
stub-zone:
  name: "{ZONE}"
{servers["stub-addr"]}
forward-zone:
  name: "."
{servers["forward-addr"]}
"""
    return machine.start(
        unbound.program, "-d", "-c", str(machine.file("unbound.conf", configuration))
    )


def start_dnsmasq(dnsmasq: Forwarder, machine: Namespace, upstreams: Upstreams) -> Program:
    """Servers in their order, so that the first one is asked first."""
    options = ("--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts")
    where = ("--listen-address=127.0.0.1", "--bind-interfaces", "--user=root", "--pid-file=")
    servers = (f"--server={address}" for address in upstreams)
    return machine.start(dnsmasq.program, *options, *where, "--strict-order", *servers)


def start_bind(bind: Forwarder, machine: Namespace, upstreams: Upstreams) -> Program:
    """Everything forwarded; the zone is unsigned, so nothing is validated."""
    servers = "".join(f"{address}; " for address in upstreams)
    configuration = f"""
options {{
  directory "{machine.directory("named")}";
  listen-on {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  pid-file none;
  session-keyfile none;
  dnssec-validation no;
  recursion yes;
  forward only;
  forwarders {{ {servers}}};
}};
controls {{ }};
"""
    return machine.start(bind.program, "-g", "-c", str(machine.file("named.conf", configuration)))


def start_resolved(resolved: Forwarder, machine: Namespace, upstreams: Upstreams) -> Program:
    """Without a service manager and a bus: it then has what its own settings say."""
    machine.run("mount", "-t", "tmpfs", "tmpfs", "/run")
    users = Path("/etc/passwd").read_text()
    if "systemd-resolve:" not in users:
        machine.replace("/etc/passwd", f"{users}systemd-resolve:x:65530:65534::/:/bin/false\n")
    settings = f"""[Resolve]
DNS={" ".join(upstreams)}
FallbackDNS=
LLMNR=no
MulticastDNS=no
DNSSEC=no
DNSStubListenerExtra=127.0.0.1
"""
    file = machine.file("resolved.conf", settings)
    for words in (
        ("mkdir", "-p", "/run/systemd/resolve", "/run/systemd/resolved.conf.d"),
        ("chown", "systemd-resolve:65534", "/run/systemd/resolve"),
        ("cp", str(file), "/run/systemd/resolved.conf.d/"),
    ):
        machine.run(*words)
    root = Path(resolved.program).parents[2]
    libraries = ":".join(str(found.parent) for found in root.glob("usr/lib/*/systemd/libsystemd-*"))
    return machine.start(resolved.program, environ={"LD_LIBRARY_PATH": libraries})


def resolved_program() -> str:
    """Where systemd-resolved is: unpacked, else installed."""
    root = Path(os.environ.get(RESOLVED_VARIABLE, "/"))
    found = [p for p in ("lib", "usr/lib") if (root / p / "systemd/systemd-resolved").exists()]
    return str(root / found[0] / "systemd/systemd-resolved") if found else ""


FORWARDERS = (
    Forwarder("unbound", program("unbound"), start_unbound),
    Forwarder("dnsmasq", program("dnsmasq"), start_dnsmasq),
    Forwarder("bind", program("named"), start_bind),
    Forwarder("systemd-resolved", resolved_program(), start_resolved),
)


class Machines:
    """A machine for each forwarder and the servers that it is given, made when first wanted."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self._lab = lab
        self._stack = stack
        self._made: dict[tuple[str, Upstreams], Namespace] = {}

    def of(self, forwarder: Forwarder, upstreams: Upstreams) -> Namespace:
        key = forwarder.name, upstreams
        if key not in self._made:
            machine = self._stack.enter_context(self._lab.client("127.0.0.1"))
            running = forwarder.start(forwarder, machine, upstreams)
            eventually(lambda: status(machine, ZONE) or not running.running, running.text)
            assert running.running, running.text()
            self._made[key] = machine
        return self._made[key]


@pytest.fixture(scope="module")
def machines(lab: Lab) -> Iterator[Machines]:
    """All of them end together."""
    with ExitStack() as stack:
        yield Machines(lab, stack)


@pytest.fixture(params=FORWARDERS, ids=str)
def forwarder(request: pytest.FixtureRequest) -> Forwarder:
    """Each in turn."""
    found: Forwarder = request.param
    if not found.program or not program("dig"):
        pytest.skip(f"not installed: {'dig' if found.program else found.name}")
    return found


def dig(machine: Namespace, name: str, rtype: str = "A") -> str:
    """What dig says on the machine.

    Without a cookie: dnsmasq does not go on to the next server for a question that has one.
    """
    options = ("+nocookie", "+tries=1", "+timeout=5")
    return machine.run("dig", *options, name, rtype, check=False).stdout


def status(machine: Namespace, name: str, rtype: str = "A") -> str:
    """The code that comes back; empty when nothing does."""
    found = re.search(r"status: (\w+)", dig(machine, name, rtype))
    return found[1] if found else ""


def addresses(machine: Namespace, name: str) -> set[str]:
    """What a program gets by getaddrinfo."""
    done = machine.run("getent", "ahosts", name, check=False)
    return {line.split()[0] for line in done.stdout.splitlines()}


def targets(machine: Namespace, name: str) -> set[str]:
    """Targets of the SRV records of *name*."""
    return set(re.findall(r"SRV\s\d+ \d+ \d+ (\S+)", dig(machine, name, "SRV")))


def test_cl1_l9_a_service_with_ipv4_alone(forwarder: Forwarder, machines: Machines) -> None:
    machine = machines.of(forwarder, ALONE)

    assert addresses(machine, f"v4only.{ZONE}") == {"10.0.0.7"}
    assert status(machine, f"v4only.{ZONE}", "AAAA") == "NOERROR"
    assert addresses(machine, f"both.{ZONE}") == {"10.0.0.8", "2001:db8::8"}
    assert targets(machine, f"_http._tcp.v4only.{ZONE}") == {f"one-1.v4only.{ZONE}."}


def test_cl1_t5_sixty_instances(forwarder: Forwarder, machines: Machines) -> None:
    machine = machines.of(forwarder, ALONE)

    assert addresses(machine, f"sixty.{ZONE}") == set(SIXTY)
    assert targets(machine, f"_http._tcp.sixty.{ZONE}") == {
        f"one-{number}.sixty.{ZONE}." for number in range(1, 61)
    }


def test_n7_letters_of_any_case(forwarder: Forwarder, machines: Machines) -> None:
    machine = machines.of(forwarder, ALONE)

    assert addresses(machine, f"V4oNLY.{ZONE.upper()}") == {"10.0.0.7"}


def test_l5_l6_a_name_that_is_not_there(forwarder: Forwarder, machines: Machines) -> None:
    machine = machines.of(forwarder, ALONE)

    assert status(machine, f"absent.{ZONE}") == "NXDOMAIN"
    assert status(machine, f"below.absent.{ZONE}") == "NXDOMAIN"


def test_l4_no_answer_about_a_name_between_hides_those_below(
    forwarder: Forwarder, machines: Machines
) -> None:
    """A resolver that takes NXDOMAIN for all that is below asks for `_tcp.both` first."""
    machine = machines.of(forwarder, ALONE)

    assert status(machine, f"_tcp.both.{ZONE}") == "NOERROR"
    assert targets(machine, f"_http._tcp.both.{ZONE}")


def test_cl1_l1_a_foreign_name_is_left_to_the_next_server(
    forwarder: Forwarder, machines: Machines
) -> None:
    machine = machines.of(forwarder, WITH_OTHER)

    assert addresses(machine, FOREIGN) == {FOREIGN_ADDRESS}


def test_cl1_s1_a_server_that_is_not_ready_is_passed_over(
    lab: Lab, forwarder: Forwarder, machines: Machines
) -> None:
    """A forwarder may choose among its servers, so it is asked until it has tried that one."""
    asked = lab.servfails()
    machine = machines.of(forwarder, NOT_READY)

    for number, address in enumerate(SIXTY, 1):
        assert addresses(machine, f"one-{number}.sixty.{ZONE}") == {address}
        if lab.servfails() > asked:
            return
    pytest.fail("it never asked the server that is not ready")


def test_b5_e19_a_stranger_has_its_answers(
    lab: Lab, forwarder: Forwarder, machines: Machines
) -> None:
    """Negative ones, of which all names of a zone share one budget: by TCP once they are limited.

    BIND sends the cookie that it was given, and is never limited.
    """
    machine = machines.of(forwarder, LIMITED)
    limited = lab.limited()

    for number in range(1, 21):
        assert status(machine, f"one-{number}.sixty.{ZONE}", "AAAA") == "NOERROR"
    assert (lab.limited() > limited) != (forwarder.name == "bind")


def test_r16_who_leaves_is_gone_after_the_ttl(
    lab: Lab, forwarder: Forwarder, machines: Machines
) -> None:
    service = f"brief-{forwarder}"
    lab.register(service, "10.1.0.1", "10.1.0.2", record_ttl=1)
    machine = machines.of(forwarder, ALONE)
    assert addresses(machine, f"{service}.{ZONE}") == {"10.1.0.1", "10.1.0.2"}

    lab.leave(service, 2)

    eventually(
        lambda: addresses(machine, f"{service}.{ZONE}") == {"10.1.0.1"},
        seconds=DEPARTURE_SECONDS,
    )
