"""Build the image, bring up docker-compose.yml, and try it with dig inside and curl outside.

    python3 deploy/compose_test.py [--start-engine] [--base IMAGE] [--keep]

Where no Docker engine answers, --start-engine (or START_DOCKERD=1) starts one of its own by
hand, as root, and stops it at the end.  The base image is python:3.13-slim where an image
registry is reachable, else one made with debootstrap.  Every command is printed with what
came out; the last line counts what passed; exit status 1 when anything failed.
"""

import argparse
import contextlib
import http.client
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import fetch_wheels

ROOT = Path(__file__).resolve().parent.parent
PUBLIC_BASE = "python:3.13-slim"
OWN_BASE = "callboard-base:test"
IMAGE = "callboard:test"
PROJECT = "callboardtest"
PACKAGES = "python3,python3-venv,dnsutils,ca-certificates"
NETWORK = "172.30.54"
"""First three numbers of the test's services network; not the default's, which may be in use."""

DNSD, ELSEWHERE = f"{NETWORK}.53", f"{NETWORK}.54"
NMAP, EUREKA = "nmap-service.svc.internal", "maximus-eureka-service.svc.internal"

LEAVING = 90.0
"""Seconds within which a stopped service must be out of DNS: a lease of 60 s and its grace."""


def main() -> int:
    """Run the whole of it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", help=f"base image with python3, venv and dig (else {OWN_BASE})")
    parser.add_argument("--start-engine", action="store_true", help="where none answers")
    parser.add_argument("--keep", action="store_true", help="leave containers and engine running")
    options = parser.parse_args()
    start = options.start_engine or os.environ.get("START_DOCKERD") == "1"
    began = time.monotonic()
    report = Report()
    try:
        with contextlib.ExitStack() as stack:
            if not engine_answers():
                if not start:
                    say("no Docker engine answers; START_DOCKERD=1 starts one by hand (root)")
                    return 1
                stack.enter_context(own_engine(options.keep))
            build_image(options.base or base_image())
            compose = stack.enter_context(project(options.keep))
            try_it(compose, report)
    except (Failed, OSError) as error:
        report.check("the whole of it ran", False, str(error))
    say(f"took {time.monotonic() - began:.0f} s")
    say(f"{report.passed} passed, {len(report.failures)} failed")
    return 1 if report.failures else 0


class Failed(Exception):
    """A command without which nothing further makes sense."""


@dataclass
class Report:
    """What passed and what did not, said as it happens."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)

    def check(self, what: str, holds: bool, seen: str = "") -> None:
        """Count and print one check."""
        say(f"{'ok  ' if holds else 'FAIL'} {what}" + (f" ({seen})" if seen else ""))
        if holds:
            self.passed += 1
        else:
            self.failures.append(what)


def say(text: str) -> None:
    """One line, at once: a long build is watched."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(*command: str, timeout: float = 60.0, quiet: bool = False) -> tuple[int, str]:
    """Exit status and output of *command*, both printed; status 124 when it takes too long."""
    if not quiet:
        say("$ " + shlex.join(command))
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return 124, f"no end after {timeout:.0f} s"
    except FileNotFoundError as error:
        return 127, str(error)
    if not quiet and done.stdout.strip():
        say("    " + done.stdout.strip().replace("\n", "\n    "))
    return done.returncode, done.stdout


def must(*command: str, timeout: float = 60.0) -> str:
    """The output of a command that has to succeed; Failed otherwise."""
    status, output = run(*command, timeout=timeout)
    if status != 0:
        raise Failed(f"{' '.join(command[:4])} … ended with {status}: {output.strip()[-300:]}")
    return output


# --- the engine -------------------------------------------------------------------------------


def engine_answers() -> bool:
    """Whether `docker` reaches an engine, as DOCKER_HOST or the default has it."""
    return run("docker", "info", "--format", "{{.ServerVersion}}", quiet=True)[0] == 0


@contextlib.contextmanager
def own_engine(keep: bool) -> Iterator[None]:
    """An engine of our own with all its state in one folder, gone again afterwards."""
    room = Path(tempfile.mkdtemp(prefix="callboard-engine-"))
    bridge_was_there = Path("/sys/class/net/docker0").exists()
    rules = packet_filter()
    command = ["dockerd", "--data-root", f"{room}/data", "--exec-root", f"{room}/exec"]
    command += ["--pidfile", f"{room}/pid", "-H", f"unix://{room}/docker.sock"]
    say("$ " + " ".join(command))
    with open(room / "log", "wb") as log:
        engine = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    os.environ["DOCKER_HOST"] = f"unix://{room}/docker.sock"
    try:
        if not until(engine_answers, 60.0):
            lines = (room / "log").read_text(errors="replace").splitlines()
            raise Failed("dockerd does not answer:\n" + "\n".join(lines[-10:]))
        must("docker", "info", "--format", "{{.ServerVersion}} {{.Driver}} {{.CgroupDriver}}")
        yield
    finally:
        if keep:
            say(f"left running: DOCKER_HOST=unix://{room}/docker.sock (pid {engine.pid})")
        else:
            engine.terminate()
            engine.wait(30.0)
            if not bridge_was_there:
                run("ip", "link", "delete", "docker0", quiet=True)
            subprocess.run(["iptables-restore"], input=rules, text=True, check=False)
            shutil.rmtree(room, ignore_errors=True)
            say("the engine is stopped")


def packet_filter() -> str:
    """The packet filter's rules for `iptables-restore`: an engine forbids forwarding for good."""
    saved = run("iptables-save", quiet=True)[1]
    chains = {"filter": "INPUT FORWARD OUTPUT", "nat": "PREROUTING INPUT OUTPUT POSTROUTING"}
    for table, names in chains.items():
        if f"*{table}\n" not in saved:
            accept = "".join(f":{name} ACCEPT [0:0]\n" for name in names.split())
            saved += f"*{table}\n{accept}COMMIT\n"
    return saved


# --- the image --------------------------------------------------------------------------------


def base_image() -> str:
    """A base with python3, venv and dig: the official image and dig, or our own of debootstrap."""
    if run("docker", "image", "inspect", OWN_BASE, quiet=True)[0] == 0:
        return OWN_BASE
    if run("docker", "pull", PUBLIC_BASE, timeout=300.0)[0] == 0:
        recipe = f"FROM {PUBLIC_BASE}\nRUN apt-get update && apt-get install -y dnsutils\n"
        with tempfile.TemporaryDirectory() as context:
            Path(context, "Dockerfile").write_text(recipe, encoding="utf-8")
            must("docker", "build", "-q", "-t", OWN_BASE, context, timeout=300.0)
        return OWN_BASE
    say("no image registry is reachable: the base is made with debootstrap (about a minute)")
    with tempfile.TemporaryDirectory(prefix="callboard-base-") as place:
        root = f"{place}/root"
        codename = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
        suite = codename[1] if codename else "bookworm"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, root]
        say("$ " + " ".join(command))
        if run(*command, timeout=600.0, quiet=True)[0] != 0:
            raise Failed(f"debootstrap failed; {root}/debootstrap/debootstrap.log says why")
        for leftover in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc"):
            shutil.rmtree(f"{root}/{leftover}", ignore_errors=True)
        must("sh", "-c", f"tar -C {root} -c . | docker import - {OWN_BASE}", timeout=300.0)
    return OWN_BASE


def build_image(base: str) -> None:
    """The image, from wheels fetched here: a build may reach no package index from inside."""
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    command = ["docker", "run", "--rm", "--network=none", "--entrypoint=python3", base]
    version = must(*command, "-c", asked).strip()
    count = fetch_wheels.fetch(version, "[up]")
    say(f"{count} wheels for Python {version}")
    try:
        command = ["docker", "build", "--network=none", "-t", IMAGE, "--build-arg", f"BASE={base}"]
        command += ["--build-arg", "EXTRAS=[up]", "."]
        say("$ " + " ".join(command))
        status, output = run(*command, timeout=600.0, quiet=True)
        if status != 0:
            raise Failed(f"the build ended with {status}:\n{output[-3000:]}")
        say("    " + output.strip().rpartition("\n")[2])
    finally:
        fetch_wheels.clear()
    form = "{{.Config.User}} {{.Config.Entrypoint}} {{.Config.StopSignal}} {{.Size}}"
    must("docker", "image", "inspect", IMAGE, "--format", form)


# --- the project ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compose:
    """The project that is up, and where it is published."""

    command: tuple[str, ...]
    registrar: int
    gateway: int

    def __call__(self, *words: str, timeout: float = 120.0) -> tuple[int, str]:
        return run(*self.command, *words, timeout=timeout)

    def container(self, service: str) -> str:
        """The id of the container of *service*, as short as Docker prints it."""
        return run(*self.command, "ps", "-q", service, quiet=True)[1].strip()[:12]

    def inside(self, *words: str) -> str:
        """What *words* print in the client's container."""
        return run("docker", "exec", self.container("client"), *words)[1]

    def dig(self, *words: str) -> str:
        """dig at dnsd, from the client's container; one space where dig aligns with several."""
        output = self.inside("dig", f"@{DNSD}", "+time=2", "+tries=2", *words)
        return re.sub(r"[ \t]+", " ", output)

    def curl(self, port: int, path: str) -> tuple[int, str]:
        """Status and body of a GET from outside all containers."""
        url = f"http://127.0.0.1:{port}{path}"
        output = run("curl", "-sS", "-m", "10", "-w", r"\n%{http_code}", url)[1]
        body, _, status = output.rpartition("\n")
        return (int(status) if status.isdigit() else 0), body

    def address(self, service: str) -> str:
        """The address of *service* on the services' network."""
        form = f'{{{{(index .NetworkSettings.Networks "{PROJECT}_services").IPAddress}}}}'
        return self.inspect(service, form)

    def is_healthy(self, service: str) -> bool:
        """Whether the health check of *service* passed last time."""
        return self.inspect(service, "{{.State.Health.Status}}") == "healthy"

    def inspect(self, service: str, form: str) -> str:
        """What `docker inspect` says of the container of *service*."""
        container = self.container(service)
        return run("docker", "inspect", "-f", form, container, quiet=True)[1].strip()


@contextlib.contextmanager
def project(keep: bool) -> Iterator[Compose]:
    """The compose project, up with every health check passed; down again afterwards."""
    registrar, gateway = free_ports(2)
    os.environ |= {
        "DEPLOY_IMAGE": IMAGE,
        "DEPLOY_REGISTRAR_PORT": str(registrar),
        "DEPLOY_GATEWAY_PORT": str(gateway),
        "DEPLOY_SUBNET": f"{NETWORK}.0/24",
        "DEPLOY_IP_RANGE": f"{NETWORK}.128/25",
        "DEPLOY_DNSD_ADDRESS": DNSD,
        "DEPLOY_ELSEWHERE_ADDRESS": ELSEWHERE,
    }
    plugin = run("docker", "compose", "version", quiet=True)[0] == 0
    program = ("docker", "compose") if plugin else ("docker-compose",)
    files = ("-p", PROJECT, "-f", "docker-compose.yml", "-f", "deploy/compose.test.yml")
    compose = Compose((*program, *files), registrar, gateway)
    try:
        status, _ = compose("up", "-d", "--no-build", timeout=180.0)
        if status != 0:
            for service in ("redis", "registrar", "dnsd", "gateway"):
                compose("logs", "--tail=20", service)
                run("docker", "inspect", "-f", "{{json .State}}", compose.container(service))
            raise Failed(f"compose up ended with {status}")
        yield compose
    finally:
        if not keep:
            compose("down", "-v", "-t", "5", timeout=180.0)


def free_ports(count: int) -> list[int]:
    """Ports free at this moment, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether *holds* came true within *seconds*; asked four times a second."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.25)
    return True


# --- what is tried ----------------------------------------------------------------------------


def try_it(compose: Compose, report: Report) -> None:
    """Every check, in an order in which the first that fails says most."""
    report.check("both services are registered", until(lambda: registered(compose), 60.0))
    health(compose, report)
    answers(compose, report)
    resolver(compose, report)
    outside(compose, report)
    departures(compose, report)
    compose("ps")
    if report.failures:
        compose("logs", "--no-color", "--tail=40", "registrar", "dnsd", "gateway")


def registered(compose: Compose) -> bool:
    """Whether the registrar lists both services."""
    _, body = get(compose.registrar, "/services")
    return "nmap_service" in body and "maximus_eureka_service" in body


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET, without a word: for asking again and again; 0 when it failed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return 0, ""


def health(compose: Compose, report: Report) -> None:
    """Every part's own health check passes, and says so; none of them is root."""
    for service in ("registrar", "dnsd", "gateway", "sidecar-nmap", "sidecar-eureka"):
        healthy = until(partial(compose.is_healthy, service), 60.0)
        last = compose.inspect(service, "{{json (index .State.Health.Log 0).Output}}")
        report.check(f"{service} is healthy", healthy, last)
        user = run("docker", "exec", compose.container(service), "id", "-u")[1].strip()
        report.check(f"{service} is not root", user == "65532", user)


def answers(compose: Compose, report: Report) -> None:
    """dig inside a container: address, SRV with glue, NODATA, refusal, both transports."""
    for name, service in ((NMAP, "vertice-nmap"), (EUREKA, "vertice-maximus_eureka")):
        address = compose.address(service)
        output = compose.dig("+short", name, "A")
        report.check(f"{name} A is the container's address", output.split() == [address], address)
    address = compose.address("vertice-nmap")
    for transport in ("+notcp", "+tcp"):
        output = compose.dig(transport, f"_http._tcp.{NMAP}", "SRV")
        holds = all(part in output for part in ("status: NOERROR", " aa ", " 8047 "))
        report.check(f"SRV with glue ({transport})", holds and f"IN A {address}" in output)
    output = compose.dig(NMAP, "AAAA")
    nodata = "status: NOERROR" in output and "ANSWER: 0" in output and "IN SOA " in output
    report.check("AAAA is NODATA with the SOA", nodata)
    output = compose.dig("nobody.svc.internal", "A")
    report.check("an unknown name is NXDOMAIN", "status: NXDOMAIN" in output)
    output = compose.dig("example.org", "A")
    report.check("a foreign name is refused", "status: REFUSED" in output)


def resolver(compose: Compose, report: Report) -> None:
    """The client's own resolver, as a program in a container uses it."""
    run("docker", "exec", compose.container("client"), "cat", "/etc/resolv.conf")
    address = compose.address("vertice-nmap")
    output = compose.inside("getent", "hosts", NMAP)
    report.check("getent finds the service", address in output.split())
    output = compose.inside("getent", "hosts", "gateway")
    report.check("names of the engine still resolve", compose.address("gateway") in output.split())
    foreign = "nmap-service.elsewhere.test"
    output = compose.inside("getent", "hosts", foreign)
    report.check("a foreign name falls through to the next server", address in output.split())


def outside(compose: Compose, report: Report) -> None:
    """curl from outside, through what is published."""
    status, body = compose.curl(compose.registrar, "/services")
    both = "nmap_service" in body and "maximus_eureka_service" in body
    report.check("the registrar lists both", status == 200 and both)
    status, body = compose.curl(compose.registrar, "/services/nmap_service")
    report.check("and knows where one is", status == 200 and "vertice-nmap" in body)
    for service in ("nmap_service", "maximus_eureka_service"):
        status, _ = compose.curl(compose.gateway, f"/v2/{service}/health")
        report.check(f"the gateway reaches {service}", status == 200)
    status, _ = compose.curl(compose.gateway, "/v2/nobody/")
    report.check("and answers 404 for an unknown one", status == 404)


def departures(compose: Compose, report: Report) -> None:
    """A service that stops leaves; a sidecar that stops takes its service along."""
    compose("stop", "-t", "2", "vertice-nmap")
    report.check("a stopped service leaves DNS", *gone(compose, NMAP, LEAVING))
    report.check("the other stays", "IN A " in compose.dig(EUREKA, "A"))
    path = "/v2/nmap_service/health"
    noticed = until(lambda: get(compose.gateway, path)[0] == 503, 10.0)
    compose.curl(compose.gateway, path)
    report.check("the gateway says 503", noticed)
    compose("stop", "-t", "10", "sidecar-eureka")
    report.check("a stopped sidecar deregisters", *gone(compose, EUREKA, 5.0))


def gone(compose: Compose, name: str, seconds: float) -> tuple[bool, str]:
    """Whether *name* lost its addresses within *seconds*, and how long it took."""
    began = time.monotonic()
    command = ("docker", "exec", compose.container("client"), "dig", f"@{DNSD}", "+short", name)
    left = until(lambda: run(*command, quiet=True) == (0, ""), seconds)
    took = f"{time.monotonic() - began:.1f} s after the stop had returned"
    compose.dig(name, "A")
    return left, took


if __name__ == "__main__":
    sys.exit(main())
