"""The sidecar as a process: what it imports, what it says, how it stops."""

import signal
import subprocess
import sys
from pathlib import Path

from registry.runtime import http
from tests.support.fake_registrar import FakeRegistrar, FakeService
from tests.support.sidecar import a_sidecar, environment
from tests.support.waiting import until

HEAVY = (
    "aiohttp",
    "redis",
    "pydantic",
    "uvloop",
    "dnslib",
    "httptools",
    "ssl",
    "prometheus_client",
)

UNUSED = (
    *("sidecar.commands", "sidecar.children", "sidecar.docker", "sidecar.run", "sidecar.tls"),
    *("sidecar.metrics", "shlex", "tomllib", "difflib", "ctypes"),
)
"""What only some have a use for: it is imported when they do."""


async def test_sigterm_drains_deregisters_and_ends_with_status_0() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        options = ("--lease-ttl", "5", "--record-ttl", "1", "--health-interval", "0.2")
        environ = {
            "SERVICE_NAME": "payments",
            "SERVICE_HOST": "127.0.0.1",
            "SERVICE_PORT": str(web.port),
            "REGISTRY_URL": registrar.url,
        }
        async with a_sidecar(*options, **environ) as process:
            await until(lambda: registrar.entries, 20)
            process.signal(signal.SIGTERM)
            await until(lambda: "draining" in registrar.states().values(), 20)
            status = await process.ended()

    assert status == 0
    assert registrar.entries == {}
    announced, *_ = process.log.splitlines()
    assert "will register when healthy service=payments" in announced
    assert 'because="it was given as an address"' in announced


async def test_without_drain_it_deregisters_at_once() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        port = str(web.port)
        options = ("--name", "web", "--host", "localhost", "--port", port, "--no-drain")
        async with a_sidecar(*options, REGISTRY_URL=registrar.url) as process:
            await until(lambda: registrar.entries, 20)
            process.signal(signal.SIGTERM)
            status = await process.ended()

    assert status == 0
    assert registrar.entries == {}
    assert registrar.count("PUT", "/") == 0


async def test_sighup_reads_the_token_again(tmp_path: Path) -> None:
    """Tokens are rotated while two are valid; a restart would be a drain."""
    token = tmp_path / "token"
    token.write_text("first\n")
    async with FakeRegistrar(60, 0.5) as registrar, FakeService() as web:
        options = ("--name", "web", "--host", "127.0.0.1", "--port", str(web.port))
        environ = {"REGISTRY_URL": registrar.url, "REGISTRY_TOKEN_FILE": str(token)}
        async with a_sidecar(*options, **environ) as process:
            await until(lambda: registrar.entries, 20)
            token.write_text("second\n")
            process.signal(signal.SIGHUP)
            shown = "Bearer second"
            await until(lambda: registrar.calls[-1].headers["authorization"] == shown, 20)

    assert registrar.calls[0].headers["authorization"] == "Bearer first"


async def test_a_registrar_that_is_away_does_not_keep_it_from_stopping() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        options = ("--name", "web", "--host", "127.0.0.1", "--port", str(web.port), "--no-drain")
        async with a_sidecar(*options, REGISTRY_URL=registrar.url) as process:
            await until(lambda: registrar.entries, 20)
            await registrar.go_away()
            process.signal(signal.SIGTERM)
            status = await process.ended(9.5)

    assert status == 0


async def test_tables_of_a_file_are_kept_by_one_sidecar(tmp_path: Path) -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        file = tmp_path / "services.toml"
        file.write_text(
            f'registry_url = "{registrar.url}"\nhost = "auto"\n'
            f'[[service]]\nname = "web"\nport = {web.port}\n'
            f'[[service]]\nname = "admin"\nport = {web.port}\nprobe = "tcp"\n'
        )
        async with a_sidecar("--config", str(file), "--no-drain") as process:
            await until(lambda: len(registrar.entries) == 2)
            process.signal(signal.SIGTERM)
            await process.ended()

    assert {c.body["address"] for c in registrar.calls if c.path == "/register"} == {"127.0.0.1"}
    assert registrar.entries == {}


async def test_the_admin_side_tells_readiness_and_counts() -> None:
    async with FakeRegistrar() as registrar, FakeService() as web:
        options = ("--name", "web", "--host", "127.0.0.1", "--port", str(web.port))
        async with a_sidecar(
            *options, "--admin", "127.0.0.1:0", REGISTRY_URL=registrar.url
        ) as process:
            await until(lambda: "admin side listening" in process.log, 20)
            url = "http://" + process.log.split("address=")[1].split()[0]
            await until(lambda: registrar.entries, 20)
            ready = await http.request("GET", f"{url}/readyz", timeout=5)
            metrics = (await http.request("GET", f"{url}/metrics", timeout=5)).body.decode()

    assert ready.status == 200
    assert 'sidecar_registrations_total{status="success"} 1.0' in metrics
    assert 'sidecar_instances{state="serving"} 1.0' in metrics
    assert "sidecar_registrar_available 1.0" in metrics
    assert 'callboard_build_info{part="sidecar"' in metrics


def run(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *options],
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_every_problem_is_said_at_once_with_status_2(tmp_path: Path) -> None:
    file = tmp_path / "services.toml"
    file.write_text('[[service]]\nname = "pay.ments"\nhost = "web"\n[[service]]\nport = 0.5\n')

    done = run("--config", str(file), "--check-config")

    assert done.returncode == 2
    assert "[[service]] 1 pay.ments: service_name" in done.stderr
    assert "[[service]] 2 : name: required" in done.stderr
    assert "port: 0.5 is not a whole number" in done.stderr


def test_a_right_configuration_is_checked_without_a_word() -> None:
    done = run("--check-config", SERVICE_NAME="web", SERVICE_HOST="web")

    assert (done.returncode, done.stderr) == (0, "")


def test_it_imports_nothing_heavy() -> None:
    """Each of these would cost more than the whole sidecar may weigh, or a good part of it."""
    script = (
        "import os, runpy, signal, sys, threading, time\n"
        "def stop():\n"
        "    while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:\n"
        "        time.sleep(0.01)\n"
        "    time.sleep(0.3)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=stop).start()\n"
        "try:\n    runpy.run_module('sidecar', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as ended:\n    assert ended.code == 0, ended.code\n"
        f"print([name for name in {(*HEAVY, *UNUSED)!r} if sys.modules.get(name) is not None])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(SERVICE_NAME="web", SERVICE_HOST="127.0.0.1", REGISTER_UNHEALTHY="true"),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout.strip() == "[]"


def test_ssl_can_be_used_where_a_registrar_needs_it() -> None:
    script = (
        "import sys, sidecar.__main__ as m\n"
        "sys.argv[1:] = ['--check-config', '--name', 'web', '--host', 'web',"
        " '--registry-url', 'https://registrar']\n"
        "assert m.main() == 0\n"
        "import asyncio.sslproto\n"
        "print(asyncio.sslproto.ssl is not None)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout.strip() == "True"
