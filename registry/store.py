"""The lease store in Redis: each verb is one Lua script, so that it happens whole or not at all.

Only Redis's clock decides what has expired.  See memory.py for what each verb means.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import NoScriptError

from registry import lease
from registry.address import StoreAddress, address_of
from registry.changes import Snapshot
from registry.errors import (
    LeaseNotFound,
    LeaseSuperseded,
    OwnedByAnother,
    RevisionConflict,
    StoreUnavailable,
)
from registry.feed import read_all
from registry.keys import MAX_STREAM, keys_of
from registry.leases import Granted, Renewal, RenewalResult, Renewed, Sweep
from registry.model import FORMAT, Instance, Registration, decode_instance
from registry.redis_client import asking, connect, let_go

_CONSTANTS = {
    "MAX_STREAM": MAX_STREAM,
    "GRACE": lease.GRACE_MS,
    "OUTAGE_GAP": lease.OUTAGE_GAP_MS,
    "OUTAGE_HOLD": lease.OUTAGE_HOLD_MS,
    "KNOWN_LEASES": lease.KNOWN_LEASES,
    "STATIC_LEASE": lease.STATIC_LEASE_MS,
    "GUARD_MIN": lease.GUARD_MIN,
    "MAX_EVICTIONS": lease.MAX_EVICTIONS,
    "MAX_EXAMINED": lease.MAX_EXAMINED,
    "EPOCH_STEP": lease.EPOCH_STEP,
    "LATE": lease.LATE_MS,
    "MAX_UNKNOWN": lease.MAX_UNKNOWN,
    "UNKNOWN_WINDOW": lease.UNKNOWN_WINDOW_MS,
}

_VERBS = (
    *("register", "renew", "deregister", "amend", "settings", "evict", "release", "epoch"),
    "claim",
)

MAX_RENEWALS = 500
"""Of one script call: some 2 ms in which nobody else is served."""

BEGINNINGS = 3
"""Times that one call begins the store's epoch.  A life that ends in between is one too many."""

WAIT_MS = 500
"""That a write waits for replicas, where it is to: thrice (a script to load, an epoch to begin) and
the call is still answered in its time."""

_UNBORN: Final = ["unborn"]


def _load_scripts() -> dict[str, str]:
    """Verb → script: the numbers of lease.py, what all share, and the verb's own part."""
    folder = files("registry") / "scripts"
    numbers = "".join(f"local {name} = {value}\n" for name, value in _CONSTANTS.items())
    common = numbers + (folder / "common.lua").read_text()
    return {verb: common + (folder / f"{verb}.lua").read_text() for verb in _VERBS}


class RedisStore:
    """The `LeaseStore` of one zone in the Redis or Valkey at *store*.

    *known_revision* is the highest that this process has seen: a store below it has lost writes,
    and grants nothing before it is raised.  Guards hold for *guard_hold* seconds.  A write is
    answered when *wait_replicas* replicas have it; StoreUnavailable when they do not in time.
    """

    def __init__(
        self,
        store: str | StoreAddress,
        zone: str,
        *,
        known_revision: Callable[[], int] = lambda: 0,
        guard_hold: float = lease.GUARD_HOLD_MS / 1000,
        wait_replicas: int = 0,
    ) -> None:
        self._redis = connect(store)
        self._has_sentinels = bool(address_of(store).sentinels)
        self._keys = keys_of(zone)
        self._known_revision = known_revision
        self._guard_hold_ms = int(guard_hold * 1000)
        self._wait_replicas = wait_replicas
        self._use(_load_scripts())

    def _use(self, scripts: dict[str, str]) -> None:
        self._scripts = scripts
        self._shas = {verb: sha1(text.encode()).hexdigest() for verb, text in scripts.items()}

    async def register(
        self,
        registration: Registration,
        *,
        lease_id: str,
        generation: int = 0,
        found: tuple[str, ...] = (),
        state: str = "serving",
        reason: str = "",
    ) -> Granted:
        status, value, listed_as = await self._write(
            "register",
            registration.key,
            registration.service,
            lease_id,
            generation,
            registration.lease_ttl * 1000,
            " ".join(found),
            registration.to_json(),
            FORMAT,
            registration.owner,
            "" if state == "serving" else f"{state} {reason}".rstrip(),
        )
        if status == "owned":
            raise OwnedByAnother(f"{registration.service} belongs to {value}")
        if status == "superseded":
            raise LeaseSuperseded(f"generation {generation} is older than {value}")
        instance = decode_instance(value, listed_as)
        return Granted(instance, created=status == "created", changed=status != "renewed")

    async def renew(self, renewals: Sequence[Renewal]) -> list[RenewalResult]:
        results: list[RenewalResult] = []
        for start in range(0, len(renewals), MAX_RENEWALS):
            some = renewals[start : start + MAX_RENEWALS]
            flat = [text for r in some for text in (r.key, r.lease_id or "")]
            for renewal, result in zip(some, await self._run("renew", *flat), strict=True):
                results.append(_renewal_result(renewal, result))
        return results

    async def deregister(self, key: str, *, lease_id: str | None = None) -> tuple[bool, int]:
        removed, *revision = await self._write("deregister", lease_id or "", "", key)
        if removed == -1:
            raise LeaseSuperseded(key)
        return removed > 0, int(revision[0])

    async def deregister_service(self, service: str, ids: Iterable[str]) -> tuple[int, int]:
        keys = [f"{service}/{i}" for i in dict.fromkeys(ids)]
        removed, revision = await self._write("deregister", "", service, *keys)
        return removed, int(revision)

    async def set_state(
        self, key: str, state: str, reason: str, *, expected: int | None = None
    ) -> Instance:
        line = f"{state} {reason}".rstrip()
        return await self._amend(key, "" if expected is None else expected, "state", line)

    async def set_answers(self, service: str, answers: int) -> int:
        match await self._write("settings", service, answers):
            case ["done", revision]:
                return int(revision)
        raise LeaseNotFound(service)

    async def owner_of(self, service: str) -> str:
        async with self._asking():
            owner: Any = await self._redis.hget(self._keys.meta, f"owner:{service}")
            return str(owner or "")

    async def set_found(self, key: str, found: tuple[str, ...], *, expected: int) -> Instance:
        return await self._amend(key, expected, "found", " ".join(found))

    async def _amend(self, key: str, expected: int | str, field: str, text: str) -> Instance:
        match await self._write("amend", key, expected, field, text):
            case ["missing"]:
                raise LeaseNotFound(key)
            case ["conflict", revision]:
                raise RevisionConflict(int(revision))
            case [_, value, listed_as]:
                return decode_instance(value, listed_as)
        raise AssertionError("amend.lua answers in one of three ways")

    async def sweep(self) -> Sweep:
        evicted, suspects, forgotten = await self._run("evict", self._guard_hold_ms)
        return Sweep(tuple(evicted), tuple(suspects), tuple(forgotten))

    async def lease_times(self, keys: Sequence[str]) -> list[float | None]:
        if not keys:
            return []
        async with asking(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zmscore(self._keys.deadlines, list(keys))
            (seconds, micros), scores = await pipe.execute()
        now = seconds + micros / 1e6
        return [None if s is None else max(0.0, float(s) / 1000 - now) for s in scores]

    async def snapshot(self) -> Snapshot:
        loaded = await read_all(self._redis, self._keys)
        return loaded.catalog.snapshot(loaded.dead)

    async def begin_epoch(self, known_revision: int) -> None:
        async with asking():
            await self._call("epoch", known_revision)

    async def release_guard(self, service: str, ids: Iterable[str]) -> tuple[int, int]:
        keys = [f"{service}/{i}" for i in dict.fromkeys(ids)]
        match await self._write("release", service, self._guard_hold_ms, *keys):
            case [int(evicted), revision]:
                return evicted, int(revision)
        raise LeaseNotFound(service)

    async def claim(self, role: str, holder: str, seconds: float) -> bool:
        return bool(await self._run("claim", role, holder, int(seconds * 1000)))

    async def ping(self) -> None:
        async with self._asking():
            await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()

    # --- scripts --------------------------------------------------------------------------

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """As `asking`; and whoever did not answer, or was the primary once, is left."""
        try:
            async with asking():
                yield
        except StoreUnavailable:
            if self._has_sentinels:
                await let_go(self._redis)
            raise

    async def _run(self, verb: str, *args: str | int) -> Any:
        """What the script of *verb* returns, in an epoch that has begun."""
        async with self._asking():
            return await self._run_in_epoch(verb, *args)

    async def _write(self, verb: str, *args: str | int) -> Any:
        """The same, and the replicas have what it wrote."""
        async with self._asking():
            return await self._run_in_epoch(verb, *args, wait=self._wait_replicas)

    async def _run_in_epoch(self, verb: str, *args: str | int, wait: int = 0) -> Any:
        for _ in range(BEGINNINGS):
            known = self._known_revision()
            result = await self._call(verb, known, *args, wait=wait)
            if result != _UNBORN:
                return result
            await self._call("epoch", known)
        raise StoreUnavailable("the store lost its data again and again while it was written")

    async def _call(self, verb: str, *args: str | int, wait: int = 0) -> Any:
        try:
            return await self._evaluate(verb, args, wait)
        except NoScriptError:
            # The script cache was flushed, or this is another server than before.
            await self._redis.script_load(self._scripts[verb])
            return await self._evaluate(verb, args, wait)

    async def _evaluate(self, verb: str, args: Sequence[str | int], wait: int) -> Any:
        keys, words = len(self._keys), (*self._keys, *map(str, args))
        if not wait:
            return await self._redis.evalsha(self._shas[verb], keys, *words)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.evalsha(self._shas[verb], keys, *words)
            pipe.execute_command("WAIT", wait, WAIT_MS)
            result, reached = await pipe.execute()
        if reached < wait and result != _UNBORN:
            raise StoreUnavailable(f"{reached} of {wait} replicas had it after {WAIT_MS} ms")
        return result


def _renewal_result(renewal: Renewal, result: int) -> RenewalResult:
    match result:
        case -1:
            return LeaseNotFound(renewal.key)
        case -2:
            return LeaseSuperseded(renewal.key)
    return Renewed(result / 1000)
