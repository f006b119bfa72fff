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
