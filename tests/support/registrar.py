"""A registrar on a real socket over a store in memory, and a client for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp

from registrar.config import Config
from registrar.hosts import Answer, Missing
from registrar.service import Service
from registrar.tokens import Tokens
from registry.catalog import Catalog
from registry.changes import Change
from registry.errors import StoreUnavailable
from registry.leases import LeaseStore
from registry.memory import MemoryStore
from registry.runtime.config import HostPort, networks

LOOPBACK = networks("127.0.0.0/8,::1/128")
ANY_PORT = HostPort("127.0.0.1", 0)

VERBS = frozenset(
    "register renew deregister deregister_service set_state set_answers owner_of set_found sweep"
    " lease_times snapshot begin_epoch release_guard claim ping".split()
)


class Clock:
    """The store's clock, in milliseconds; it stands still until a test moves it."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.ms


class SwitchedStore:
    """A store that a test can take away; then every call is StoreUnavailable.

    `calls` names the verbs asked of it so far, those that were refused included.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.away = False
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if name not in VERBS:
            return found

        async def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if self.away:
                raise StoreUnavailable("the test took it away")
            return await found(*args, **options)

        return call


class MemoryView:
    """The view of a store in memory: it knows each change as soon as somebody looks."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._catalog = Catalog()
        self.loaded = True
        self.current = True
        self.error = ""
        self.stale_for = 0.0
        self._heard: Callable[[Change | None], None] = lambda change: None

    @property
    def catalog(self) -> Catalog:
        if self.current:
            for change in self._store.changes_after(self._catalog.revision):
                self._catalog.apply(change)
                self._heard(change)
        return self._catalog

    def listen(self, heard: Callable[[Change | None], None]) -> None:
        self._heard = heard

    def forget_all(self) -> None:
        """Another catalog in place of this one, as after a snapshot: no change tells how."""
        self._catalog = Catalog.of(self.catalog.snapshot())
        self._heard(None)

    def age(self, now: float) -> float:
        return 0.0 if self.current else self.stale_for

    async def reached(self, revision: int, timeout: float) -> bool:
        return self.catalog.revision >= revision

    def lose(self, seconds: float) -> None:
        """From now on it hears nothing, and was last current *seconds* ago."""
        self.current, self.error, self.stale_for = False, "feed lost", seconds

    async def follow(self) -> None:
        """Look again and again, so that whoever waits for a change hears of it."""
        while True:
            _ = self.catalog
            await asyncio.sleep(0.002)


@dataclass(slots=True)
class Response:
    """Status, JSON (or text) of the body, headers."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def fields(self) -> set[str]:
        """The fields that a 422 names."""
        return {error["field"] for error in self.body["errors"]}


@dataclass(slots=True)
class Registrar:
    """What a test has in hand: the registrar's insides, and `call` to speak to it from outside."""

    service: Service
    store: SwitchedStore
    clock: Clock
    view: MemoryView
    session: aiohttp.ClientSession
    hosts: dict[str, Answer] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.service.address}"

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """One request; *raw* is sent as JSON without being any."""
        kinds: dict[str, Any] = {"json": body} if body is not None else {}
        if raw is not None:
            kinds = {"data": raw}
            headers = {"Content-Type": "application/json", **(headers or {})}
        async with self.session.request(method, self.url + path, headers=headers, **kinds) as r:
            is_json = "json" in r.headers.get("Content-Type", "")
            return Response(
                r.status, await r.json(content_type=None) if is_json else await r.text(), r.headers
            )

    async def register(self, service: str, instance: str | None = None, **more: Any) -> Any:
        """Register at 10.0.0.7:8080 unless *more* says otherwise; the answer's body."""
        body = {"service_name": service, "address": "10.0.0.7", "ports": {"http": 8080}, **more}
        if instance is not None:
            body["instance_id"] = instance
        answer = await self.call("POST", "/register", body)
        assert answer.status in (200, 201), answer
        return answer.body

    async def advance(self, seconds: int) -> None:
        """Let so many seconds pass, with the sweep of each."""
        for _ in range(seconds):
            self.clock.ms += 1000
            await self.store.store.sweep()


@contextlib.asynccontextmanager
async def a_registrar(
    tokens: Tokens | None = None, tokens_file: Path | None = None, **settings: Any
) -> AsyncIterator[Registrar]:
    """A registrar with these settings; hosts are looked up in its `hosts`, nowhere else.

    It judges by *tokens*, and reads them again from *tokens_file*.
    """
    clock = Clock()
    memory = MemoryStore(clock)
    store, view = SwitchedStore(memory), MemoryView(memory)
    hosts: dict[str, Answer] = {}

    async def resolve(host: str) -> Answer:
        return hosts.get(host, Missing())

    if tokens_file is not None:
        settings["tokens"] = str(tokens_file)
    config = Config(**{"listen": ANY_PORT, **settings})
    service = Service(
        config, cast(LeaseStore, store), view, view.follow, resolve=resolve, tokens=tokens
    )
    try:
        await service.start()
        async with aiohttp.ClientSession() as session:
            yield Registrar(service, store, clock, view, session, hosts)
    finally:
        await service.stop()
