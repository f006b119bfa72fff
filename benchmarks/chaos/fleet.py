"""Instances that register and renew as sidecars do, and somebody who asks DNS for all of them.

Services of one instance and of five, as in life; ten instances share a list of heartbeats, as
sidecars with several services send them.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
from dnslib import QTYPE, DNSRecord

from benchmarks.asking import question
from benchmarks.chaos.world import ZONE
from tests.support.waiting import until

A_LIST = 10
"""Instances whose heartbeats go together."""

ANSWER_SECONDS = 2.5
"""For an answer of a registrar; its own bound towards the store is 2 s."""

BACK_OFF = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts of whoever is not answered, as sidecars have them."""

ASKED_A_SECOND = 200
"""Questions of the prober."""

LOST_AFTER = 1.0
"""Seconds without an answer after which a datagram counts as lost."""


@dataclass(slots=True, eq=False)
class Instance:
    """One instance: what is known of it here, in seconds of the monotonic clock."""

    service: str
    id: str
    address: str
    alive: bool = True
    acked_at: float = 0.0
    died_at: float = 0.0
    last_seen: float = 0.0
    gone_at: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.service}/{self.id}"


@dataclass(slots=True)
class Seen:
    """What the prober saw: answers that lacked somebody alive, and those that held nobody."""

    asked: int = 0
    unanswered: int = 0
    missing: dict[str, float] = field(default_factory=dict)
    empty: dict[str, float] = field(default_factory=dict)


class Fleet:
    """*count* instances at the registrars *urls*, with leases of *lease* seconds."""

    def __init__(self, urls: list[str], count: int, lease: int, seed: int = 1) -> None:
        self._urls = urls
        self._lease = lease
        self._rng = random.Random(seed)
        self.instances = list(_instances(count))
        self.seen = Seen()
        self.refused = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<Fleet of {len(self.instances)}>"

    async def __aenter__(self) -> "Fleet":
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(ANSWER_SECONDS), connector=aiohttp.TCPConnector(limit=0)
        )
        for group in _batched(self.instances, A_LIST):
            self._tasks.append(asyncio.create_task(self._keep(group)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._session is not None
        await self._session.close()

    async def registered(self, within: float = 60.0) -> None:
        """Wait until each was acknowledged once."""
        await until(lambda: all(i.acked_at for i in self.instances), seconds=within)

    def die(self, count: int) -> list[Instance]:
        """So many, drawn by lot from services of one instance, end without a word."""
        alone = [i for i in self.instances if i.alive and i.service.startswith("one-")]
        return self.end(self._rng.sample(alone, count))

    def end(self, instances: Iterable[Instance]) -> list[Instance]:
        """These end without a word."""
        dead = list(instances)
        for instance in dead:
            instance.alive, instance.died_at = False, time.monotonic()
        return dead

    # --- renewing ---------------------------------------------------------------------------

    async def _keep(self, group: list[Instance]) -> None:
        """Register a group and renew it for ever, at whichever registrar answers."""
        turn = self._rng.randrange(len(self._urls))
        failures = 0
        unregistered = {i.name for i in group}
        while True:
            alive = [i for i in group if i.alive]
            url = self._urls[turn % len(self._urls)]
            try:
                for instance in alive:
                    if instance.name in unregistered:
                        await self._register(url, instance)
                        unregistered.discard(instance.name)
                lost = await self._renew(url, [i for i in alive if i.name not in unregistered])
                unregistered |= lost
                failures = 0
            except (OSError, TimeoutError, aiohttp.ClientError, _Refused):
                self.refused += 1
                turn += 1
                wait = BACK_OFF[min(failures, len(BACK_OFF) - 1)]
                failures += 1
                await asyncio.sleep(min(wait, self._lease / 5) * self._rng.uniform(0.8, 1.0))
                continue
            if not unregistered:
                await asyncio.sleep(self._lease * 5 / 12 * self._rng.uniform(0.8, 1.0))

    async def _register(self, url: str, instance: Instance) -> None:
        body = {
            "service_name": instance.service,
            "instance_id": instance.id,
            "address": instance.address,
            "ports": {"http": 8080},
            "lease_ttl": self._lease,
        }
        await self._post(url + "/register", body)
        instance.acked_at = time.monotonic()

    async def _renew(self, url: str, instances: list[Instance]) -> set[str]:
        """Renew these; the names of those that the registrar does not know."""
        if not instances:
            return set()
        beats = [{"service_name": i.service, "instance_id": i.id} for i in instances]
        results = (await self._post(url + "/heartbeat", beats))["results"]
        now, lost, failed = time.monotonic(), set(), False
        for instance, result in zip(instances, results, strict=True):
            match result["status"]:
                case 200:
                    instance.acked_at = now
                case 404:
                    lost.add(instance.name)
                case _:
                    failed = True
        if failed:
            raise _Refused
        return lost

    async def _post(self, url: str, body: Any) -> Any:
        assert self._session is not None
        async with self._session.post(url, json=body) as answer:
            if answer.status not in (200, 201):
                raise _Refused
            return await answer.json()


class _Refused(Exception):
    """A registrar answered that it cannot now."""


def _batched(items: list[Instance], size: int) -> Iterator[list[Instance]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _instances(count: int) -> Iterator[Instance]:
    """Half of them in services of one, half in services of five."""
    numbers = itertools.count(1)
    for n in range(count):
        service = f"one-{n}" if n < count // 2 else f"five-{(n - count // 2) // 5}"
        number = next(numbers)
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        yield Instance(service, f"i{n}", address)


class Prober(asyncio.DatagramProtocol):
    """Asks dnsd for every service in turn, for the dead ones oftener, and compares."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        self._fleet = fleet
        self._port = port
        self._asked: dict[int, tuple[str, float]] = {}
        self._by_service: dict[str, list[Instance]] = {}
        for instance in fleet.instances:
            self._by_service.setdefault(instance.service, []).append(instance)
        self._packets = {s: question(f"_http._tcp.{s}.{ZONE}", "SRV")[2:] for s in self._by_service}
        self._ids = itertools.count()
        self._transport: asyncio.DatagramTransport | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Prober":
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, remote_addr=("127.0.0.1", self._port)
        )
        self._task = asyncio.create_task(self._ask_for_ever())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        assert self._transport is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._transport.close()

    async def _ask_for_ever(self) -> None:
        everything = itertools.cycle(self._packets)
        while True:
            began = time.monotonic()
            dying = [i.service for i in self._fleet.instances if i.died_at and not i.gone_at]
            some = [*dying[: ASKED_A_SECOND // 20], *itertools.islice(everything, 20)]
            for service in dict.fromkeys(some):
                self._ask(service)
            self._count_lost(began)
            await asyncio.sleep(max(0.0, began + 20 / ASKED_A_SECOND - time.monotonic()))

    def _ask(self, service: str) -> None:
        number = next(self._ids) & 0xFFFF
        self._asked[number] = service, time.monotonic()
        self._fleet.seen.asked += 1
        assert self._transport is not None
        self._transport.sendto(number.to_bytes(2, "big") + self._packets[service])

    def _count_lost(self, now: float) -> None:
        late = [n for n, (_, asked) in self._asked.items() if now - asked > LOST_AFTER]
        for number in late:
            del self._asked[number]
            self._fleet.seen.unanswered += 1

    def datagram_received(self, data: bytes, addr: Any) -> None:
        service, asked_at = self._asked.pop(int.from_bytes(data[:2], "big"), ("", 0.0))
        if service:
            records = [rr for rr in DNSRecord.parse(data).rr if rr.rtype == QTYPE.SRV]
            ids = {str(rr.rdata.target).partition(".")[0] for rr in records}
            self._compare(service, asked_at, ids)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there just now: the question counts as lost in its time."""

    def _compare(self, service: str, asked_at: float, found: set[str]) -> None:
        now, seen = time.monotonic(), self._fleet.seen
        # Who was acknowledged less than a second before the question may not be there yet.
        serving = [i for i in self._by_service[service] if i.alive and i.acked_at > 0]
        settled = [i for i in serving if i.last_seen or i.acked_at < asked_at - 1.0]
        if settled and not found:
            seen.empty.setdefault(service, now)
        for instance in settled:
            if instance.id not in found:
                seen.missing.setdefault(instance.name, now)
        for instance in self._by_service[service]:
            if instance.id in found:
                instance.last_seen, instance.gone_at = now, 0.0
            elif instance.died_at and not instance.gone_at:
                instance.gone_at = now
