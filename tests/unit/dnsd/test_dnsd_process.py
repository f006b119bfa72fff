"""dnsd as a process, without a store: what it binds, who replaces whom, how it ends."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.edns
import dns.message
import dns.rcode
import pytest

from registry.runtime import http
from registry.runtime.config import HostPort
from tests.support.dns import ask, ede
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

NOBODY = "redis://127.0.0.1:1/0"


@dataclass(slots=True)
class Running:
    """A dnsd: where it is, and its supervisor."""

    dns: HostPort
    admin: HostPort
    process: asyncio.subprocess.Process

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def get(self, path: str) -> http.Response:
        return await http.request("GET", f"http://{self.admin}{path}", timeout=3.0)


async def start(*options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dnsd", "--redis", NOBODY, "--admin", "127.0.0.1:0", *options),
        stderr=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def running(tmp_path: Path, *options: str) -> AsyncIterator[Running]:
    file = tmp_path / "address.json"
    process = await start("--listen", "127.0.0.1:0", "--address-file", str(file), *options)
    try:
        await until(file.exists, 15)
        found = json.loads(file.read_text())
        dnsd = Running(HostPort.parse(found["dns"]), HostPort.parse(found["admin"]), process)
        await until(lambda: answers(dnsd), 15)
        yield dnsd
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def answers(dnsd: Running) -> bool:
    with contextlib.suppress(Exception):
        answer = await ask(dnsd.dns, "payments.svc.internal.", edns=1232)
        return answer.rcode() == dns.rcode.SERVFAIL
    return False


async def test_s1_without_a_store_it_answers_servfail_and_says_what_is_missing(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as dnsd:
        for tcp in (False, True):
            answer = await ask(dnsd.dns, "payments.svc.internal.", edns=1232, tcp=tcp)
            assert answer.rcode() == dns.rcode.SERVFAIL
            assert ede(answer) == [14]
        refused = await ask(dnsd.dns, "example.org.")
        assert refused.rcode() == dns.rcode.REFUSED

        ready: Any = await dnsd.get("/readyz")
        assert ready.status == 503
        await until(lambda: is_missing(dnsd, "the store has not been read"))
        assert (await dnsd.get("/healthz")).status == 200
        metrics = (await dnsd.get("/metrics")).body.decode()
        assert 'dnsd_queries_total{rcode="REFUSED",transport="udp",type="A"} 1.0' in metrics


async def is_missing(dnsd: Running, what: str) -> bool:
    return what in (await dnsd.get("/readyz")).body.decode()


async def test_a_second_one_on_the_same_address_is_told_so(tmp_path: Path) -> None:
    async with running(tmp_path) as dnsd:
        second = await start("--listen", str(dnsd.dns))
        _, errors = await second.communicate()

        assert second.returncode == 1
        assert f"{dnsd.dns} (--listen) is in use" in errors.decode()
        assert await answers(dnsd)


async def test_u13_a_killed_worker_is_replaced_on_the_same_sockets(tmp_path: Path) -> None:
    """What waited in its socket is answered by the next one."""
    async with running(tmp_path, "--workers", "2") as dnsd:
        await until(lambda: len(dnsd.workers()) == 2)
        before = dnsd.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        answer = await ask(dnsd.dns, "payments.svc.internal.")

        assert answer.rcode() == dns.rcode.SERVFAIL
        await until(lambda: len(dnsd.workers()) == 2)
        assert not set(before) & set(dnsd.workers())


async def test_workers_die_with_their_supervisor(tmp_path: Path) -> None:
    async with running(tmp_path, "--workers", "2") as dnsd:
        await until(lambda: len(dnsd.workers()) == 2)
        workers = dnsd.workers()
        dnsd.process.kill()
        await dnsd.process.wait()

        await until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))


async def test_sigterm_ends_it_in_order(tmp_path: Path) -> None:
    async with running(tmp_path, "--workers", "2") as dnsd:
        await until(lambda: len(dnsd.workers()) == 2)
        workers = dnsd.workers()
        dnsd.process.terminate()

        assert await dnsd.process.wait() == 0
        assert not any(Path(f"/proc/{pid}/exe").exists() for pid in workers)


CLIENT = b"a client"
OLD, NEW = "11" * 16, "22" * 16


async def cookies_of(dnsd: Running, sent: bytes, times: int = 16) -> set[bytes]:
    """The cookies that *sent* gets, from so many ports that every worker is asked."""
    asked = dns.message.make_query("payments.svc.internal.", "A")
    option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, sent)
    asked.use_edns(0, 0, 1232, options=[option])
    found = set()
    for _ in range(times):
        reply = await dns.asyncquery.udp(asked, dnsd.dns.host, 3.0, dnsd.dns.port)
        found.add(reply.options[-1].to_wire() or b"")
    return found


async def test_e24_workers_and_their_replacements_know_each_others_cookies(
    tmp_path: Path,
) -> None:
    """By a secret that the supervisor drew, and that nobody finds on a command line."""
    async with running(tmp_path, "--workers", "2") as dnsd:
        await until(lambda: len(dnsd.workers()) == 2)
        held = min(await cookies_of(dnsd, CLIENT, 1))
        assert await cookies_of(dnsd, held) == {held}

        before = dnsd.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: len(set(dnsd.workers()) - set(before)) == 2)
        assert await cookies_of(dnsd, held) == {held}
        for pid in dnsd.workers():
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            (secret,) = (e for e in environ if e.startswith(b"CALLBOARD_DNSD_COOKIE_SECRET="))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert secret.partition(b"=")[2] not in command


async def test_e24_a_new_secret_is_read_on_sighup(tmp_path: Path) -> None:
    config = tmp_path / "callboard.toml"
    config.write_text(f'[dnsd]\ncookie_secret = "{OLD}"\n')
    async with running(tmp_path, "--config", str(config)) as dnsd:
        held = min(await cookies_of(dnsd, CLIENT, 1))
        config.write_text(f'[dnsd]\ncookie_secret = ["{NEW}", "{OLD}"]\n')
        dnsd.process.send_signal(signal.SIGHUP)

        async def is_renewed() -> bool:
            return await cookies_of(dnsd, held, 1) != {held}

        await until(is_renewed)
        renewed = min(await cookies_of(dnsd, held, 1))
        config.write_text('[dnsd]\ncookie_secret = "not one"\n')
        dnsd.process.send_signal(signal.SIGHUP)
        assert await cookies_of(dnsd, renewed) == {renewed}
        assert await answers(dnsd)
