"""Host names become addresses here: looked up by one registrar at a time, stored as changes.

So every replica of dnsd holds the same addresses at the same revision, and no
answer ever waits for a look-up.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

from registrar import endpoints
from registrar.endpoints import Network
from registrar.gate import Gate
from registrar.hosts import Answer, Failed, Found, HostBook, Missing
from registrar.view import View
from registry.errors import LeaseNotFound, RevisionConflict, StoreUnavailable
from registry.leases import LeaseStore
from registry.model import MAX_ADDRESSES, Instance
from registry.runtime import logs

ROLE = "lookups"

ROLE_SECONDS = 5.0
"""That the role is claimed for, each second anew: so soon another registrar takes over."""

ROUND_SECONDS = 1.0

FIRST_SECONDS = 2.0
"""That a registration waits for the first look-up of its host."""

LOOKUP_SECONDS = 8.0
"""After which a look-up counts as failed; its thread ends when the resolver gives up."""

MAX_LOOKUPS = 32
"""At once, each in a thread of its own: enough for 1,000 hosts at 250 ms an answer."""

MAX_WRITES = 200
"""Addresses written in one round, so that a renamed network does not hold up heartbeats."""

log = logs.get("registrar.lookups")

Resolve = Callable[[str], Awaitable[Answer]]


class Lookups:
    """Looks up the hosts of registered instances while it holds the role.

    *count* is told of each look-up: `found`, `refused`, `missing` or `failed`.
    """

    def __init__(
        self,
        store: LeaseStore,
        gate: Gate,
        view: View,
        *,
        zones: Sequence[str],
        allowed: Sequence[Network],
        holder: str,
        count: Callable[[str], None],
        resolve: Resolve | None = None,
    ) -> None:
        self._store = store
        self._gate = gate
        self._view = view
        self._zones = zones
        self._allowed = allowed
        self._holder = holder
        self._count = count
        self._resolve = resolve or Resolver()
        self._book = HostBook()
        self._asking: dict[str, asyncio.Future[Answer]] = {}
        self._said: dict[str, logs.Transition] = {}

    def __repr__(self) -> str:
        return f"<Lookups {self._book!r}, {len(self._asking)} under way>"

    async def run(self) -> None:
        """Claim the role and do a round, each second, for ever."""
        while True:
            with contextlib.suppress(StoreUnavailable):  # the gate says so
                if await self._gate(self._store.claim(ROLE, self._holder, ROLE_SECONDS)):
                    await self._round()
            await asyncio.sleep(ROUND_SECONDS)

    async def first(self, host: str) -> Answer:
        """What *host* has now, for a registration that is waiting for it."""
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                return await asyncio.shield(self._ask(host))
        except TimeoutError:
            return Failed(f"no answer in {FIRST_SECONDS:g} s")

    async def close(self) -> None:
        """Leave off whatever is under way."""
        asking = list(self._asking.values())
        for future in asking:
            future.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _round(self) -> None:
        wanted = self._wanted()
        for host in self._book.due(wanted, time.monotonic()):
            self._ask(host)
        self._said = {host: said for host, said in self._said.items() if host in wanted}
        changed = [
            (instance, found)
            for host, instances in wanted.items()
            if (found := self._book.addresses(host)) is not None
            for instance in instances
            if instance.found != found
        ]
        for instance, found in changed[:MAX_WRITES]:
            await self._write(instance, found)

    def _wanted(self) -> dict[str, list[Instance]]:
        """The instances with a host that may be asked for, by host."""
        wanted: dict[str, list[Instance]] = {}
        for _, service in self._view.catalog.services():
            for instance in service.instances.values():
                host = instance.registration.host
                # A host in our own zone is the question that its answer is to give (a loop).
                if host and not endpoints.is_inside(host, self._zones):
                    wanted.setdefault(host, []).append(instance)
        return wanted

    async def _write(self, instance: Instance, found: tuple[str, ...]) -> None:
        key = instance.registration.key
        # 1. Written.
        # 2. It left, or changed: the next round sees what it is then.
        with contextlib.suppress(LeaseNotFound, RevisionConflict):
            await self._gate(self._store.set_found(key, found, expected=instance.revision))
            log.info(
                "addresses changed",
                instance=key,
                host=instance.registration.host,
                addresses=",".join(found) or "none",
            )

    def _ask(self, host: str) -> "asyncio.Future[Answer]":
        """The look-up of *host* that is under way, or a new one."""
        asking = self._asking.get(host)
        if asking is None:
            asking = self._asking[host] = asyncio.ensure_future(self._look_up(host))
            asking.add_done_callback(lambda _: self._asking.pop(host, None))
        return asking

    async def _look_up(self, host: str) -> Answer:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                answer = await self._resolve(host)
        except TimeoutError:
            answer = Failed(f"no answer in {LOOKUP_SECONDS:g} s")
        if isinstance(answer, Found):
            answer = self._permitted(answer)
        self._book.told(host, answer)
        self._report(host, answer)
        return answer

    def _permitted(self, answer: Found) -> Found:
        """Checked at use, not only when registered: a name may resolve to anything later."""
        refused = tuple(
            address
            for address in answer.addresses
            if endpoints.problem_of_address(address, self._allowed) is not None
        )
        kept = (address for address in answer.addresses if address not in refused)
        return Found(tuple(kept)[:MAX_ADDRESSES], refused)

    def _report(self, host: str, answer: Answer) -> None:
        match answer:
            case Found(_, refused) if refused:
                state, message = "refused", "host has addresses that may not be registered"
                fields = {"refused": ",".join(refused)}
            case Found():
                state, message, fields = "found", "host found again", {}
            case Missing():
                state, message, fields = "missing", "host does not exist", {}
            case Failed(reason):
                state, message, fields = "failed", "host look-up failed", {"error": reason}
        self._count(state)
        if host in self._book:  # others are strangers to this log until they are registered
            said = self._said.setdefault(host, logs.Transition(log, "found"))
            level = "info" if state == "found" else "warning"
            said.enter(state, message, level=level, host=host, **fields)


class Resolver:
    """The system's resolver, asked in threads.

    They are daemons, and not those of the loop's executor: a resolver that hangs for half a
    minute must not hold up the end of the process.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MAX_LOOKUPS)

    async def __call__(self, host: str) -> Answer:
        """The addresses of *host*, sorted; an answer whatever happens."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def finish(answer: Answer) -> None:
            self._free.release()
            if not future.done():
                future.set_result(answer)

        def work() -> None:
            answer = _getaddrinfo(host)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, answer)

        threading.Thread(target=work, name=f"lookup {host}", daemon=True).start()
        return await future


def _getaddrinfo(host: str) -> Answer:
    try:
        # As octets: Python would put text through IDNA first.
        infos = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        missing = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
        return Missing() if error.errno in missing else Failed(error.strerror or str(error))
    except (OSError, UnicodeError) as error:
        return Failed(str(error))
    found = {endpoints.canonical_address(str(sockaddr[0])) for *_, sockaddr in infos}
    addresses = sorted(
        (ipaddress.ip_address(a) for a in found if a is not None), key=lambda a: (a.version, int(a))
    )
    return Found(tuple(map(str, addresses))) if addresses else Missing()
