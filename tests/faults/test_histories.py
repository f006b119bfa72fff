"""What many clients saw, through two registrars, is what could have happened one call at a time."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator

import aiohttp
import pytest

from registrar.config import Config
from registrar.service import Service, build
from registry.runtime.config import Common, HostPort
from tests.support.histories import UNKNOWN, Call, Verb, is_linearizable
from tests.support.sentinels import MASTER, Watched
from tests.support.store import StoreServer
from tests.support.waiting import until

LEASE = 60.0
KEYS, CLIENTS = 8, 3
"""Instances, and clients of each that do not know of one another."""

ANSWER_SECONDS = 5.0


# --- the checker itself -----------------------------------------------------------------------


def call(verb: Verb, began: float, ended: float, found: bool | None) -> Call:
    return Call(verb, began, ended, found)


@pytest.mark.parametrize(
    ("history", "good"),
    [
        ([], True),
        ([call("register", 0, 1, False)], True),
        ([call("register", 0, 1, True)], False),
        ([call("renew", 0, 1, False)], True),
        ([call("register", 0, 1, False), call("renew", 2, 3, True)], True),
        ([call("register", 0, 1, False), call("renew", 2, 3, False)], False),
        # Calls at the same time have the order that explains them.
        ([call("register", 0, 5, False), call("renew", 1, 2, False)], True),
        ([call("register", 0, 5, False), call("renew", 1, 2, True)], True),
        ([call("register", 0, 5, False), call("register", 1, 2, False)], False),
        ([call("register", 0, 5, False), call("register", 1, 2, True)], True),
        # A departure is final, unless somebody registers again.
        (
            [
                call("register", 0, 1, False),
                call("deregister", 2, 3, True),
                call("renew", 4, 5, True),
            ],
            False,
        ),
        (
            [
                call("register", 0, 1, False),
                call("deregister", 2, 3, True),
                call("register", 4, 5, False),
            ],
            True,
        ),
        # A lease ends, but not early.
        ([call("register", 0, 1, False), call("renew", 59, 59.9, False)], False),
        ([call("register", 0, 1, False), call("renew", 59, 60.1, False)], True),
        # What was not answered may have happened, also late, or not.
        ([Call.unanswered("register", 0), call("renew", 2, 3, True)], True),
        ([Call.unanswered("register", 0), call("renew", 2, 3, False)], True),
        (
            [
                Call.unanswered("register", 0),
                call("renew", 2, 3, False),
                call("renew", 4, 5, True),
            ],
            True,
        ),
        (
            [
                Call.unanswered("register", 0),
                call("renew", 2, 3, True),
                call("renew", 4, 5, False),
            ],
            False,
        ),
    ],
)
def test_the_checker_knows_what_can_have_happened(history: list[Call], good: bool) -> None:
    assert is_linearizable(history, LEASE) is good


def test_a_history_that_begins_in_the_middle_may_begin_with_anything() -> None:
    history = [call("renew", 0, 1, True), call("deregister", 2, 3, True)]

    assert not is_linearizable(history, LEASE)
    assert is_linearizable(history, LEASE, UNKNOWN)
    assert not is_linearizable([*history, call("renew", 4, 5, True)], LEASE, UNKNOWN)


# --- histories --------------------------------------------------------------------------------


class Recorder:
    """Clients of two registrars, who write down what they asked and were told."""

    def __init__(self, urls: list[str], session: aiohttp.ClientSession) -> None:
        self._urls = urls
        self._session = session
        self.histories: dict[str, list[Call]] = defaultdict(list)

    async def ask(self, key: str, verb: Verb, rng: random.Random) -> bool | None:
        """One call about the instance *key*; whether it was there, None without an answer."""
        url = rng.choice(self._urls)
        name = {"service_name": "shared", "instance_id": key}
        # Other data each time: no registration is a mere renewal.
        body = {**name, "address": "10.0.0.7", "ports": {"http": rng.randrange(1, 65536)}}
        began = time.monotonic()
        match verb:
            case "register":
                request = self._session.post(url + "/register", json=body)
            case "renew":
                request = self._session.post(url + "/heartbeat", json=name)
            case "deregister":
                request = self._session.delete(url + f"/services/shared/instances/{key}")
        try:
            async with request as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            status = 503
        assert status in (200, 201, 404, 503), status
        if status == 503:
            self.histories[key].append(Call.unanswered(verb, began))
            return None
        found = status == 200
        self.histories[key].append(Call(verb, began, time.monotonic(), found))
        return found

    async def client(self, key: str, seed: int, ended: Callable[[], bool]) -> None:
        """Calls at random, one after the other."""
        rng = random.Random(seed)
        verbs: list[Verb] = ["register", "renew", "renew", "deregister"]
        while not ended():
            answered = await self.ask(key, rng.choice(verbs), rng)
            # Who is refused does not fill the history with guesses.
            await asyncio.sleep(rng.uniform(0.0, 0.03) if answered is not None else 0.4)

    async def run(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """All clients at once, until *meanwhile* is over."""
        over = False
        clients = [
            asyncio.create_task(self.client(f"i{n % KEYS}", n, lambda: over))
            for n in range(KEYS * CLIENTS)
        ]
        await meanwhile()
        over = True
        await asyncio.gather(*clients)


async def recording(config: Config, meanwhile: Callable[[Recorder], Awaitable[None]]) -> None:
    services: list[Service] = [build(config, Common()) for _ in range(2)]
    timeout = aiohttp.ClientTimeout(ANSWER_SECONDS)
    try:
        for service in services:
            await service.start()
        async with aiohttp.ClientSession(timeout=timeout) as session:
            urls = [f"http://{service.address}" for service in services]
            for url in urls:
                await until(lambda url=url: is_ready(session, url), seconds=20)  # type: ignore[misc]
            await meanwhile(Recorder(urls, session))
    finally:
        for service in services:
            await service.stop()


async def is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    async with session.get(url + "/health") as answer:
        document = await answer.json()
        return bool(document["status"] == "healthy")


def config_of(server: StoreServer) -> Config:
    return Config(listen=HostPort("127.0.0.1", 0), redis=server.url)


@pytest.fixture
def server() -> Iterator[StoreServer]:
    with StoreServer(append_only=True) as server:
        yield server


async def test_histories_are_linearizable(server: StoreServer) -> None:
    async def recorded(recorder: Recorder) -> None:
        await recorder.run(lambda: asyncio.sleep(2.0))

        assert len(recorder.histories) == KEYS
        for key, history in recorder.histories.items():
            assert len(history) > 20
            assert is_linearizable(history, LEASE), (key, history)

    await recording(config_of(server), recorded)


async def test_histories_are_linearizable_over_a_store_that_is_killed(
    server: StoreServer,
) -> None:
    """What it acknowledged it has again; what it did not may have happened or not."""

    async def kill_and_start() -> None:
        await asyncio.sleep(0.7)
        server.kill()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(3.0)

    async def recorded(recorder: Recorder) -> None:
        await recorder.run(kill_and_start)

        calls = [call for history in recorder.histories.values() for call in history]
        assert any(call.found is None for call in calls)
        for key, history in recorder.histories.items():
            assert is_linearizable(history, LEASE), (key, history)

    await recording(config_of(server), recorded)


async def test_after_a_fail_over_histories_are_linearizable_from_the_next_heartbeat_on() -> None:
    """The last writes may be lost with the primary; whoever renews is told so, and repairs it."""
    with Watched() as watched:
        config = Config(
            listen=HostPort("127.0.0.1", 0),
            redis="redis://127.0.0.1:1/0",
            sentinel=watched.sentinels,
            master=MASTER,
        )

        async def recorded(recorder: Recorder) -> None:
            await recorder.run(lambda: asyncio.sleep(0.7))
            killed_at = time.monotonic()
            watched.primary.kill()
            rng = random.Random(0)

            async def is_taken() -> bool:
                return await recorder.ask("probe", "register", rng) is not None

            await until(is_taken, seconds=40)
            back_at = time.monotonic()
            await recorder.run(lambda: asyncio.sleep(1.0))

            for n in range(KEYS):
                history = recorder.histories[f"i{n}"]
                before = [c for c in history if c.began < killed_at]
                after = [c for c in history if c.began >= back_at]
                assert is_linearizable(before, LEASE)
                assert is_linearizable(after, LEASE, UNKNOWN)

        await recording(config, recorded)
