"""The lease store in Redis: each verb is one Lua script, so that it happens whole or not at all.

Only Redis's clock decides what has expired.  See memory.py for what each verb means.
"""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from registry import lease
from registry.changes import Snapshot
from registry.errors import LeaseNotFound, LeaseSuperseded, OwnedByAnother, RevisionConflict
from registry.feed import read_all
from registry.keys import MAX_STREAM, keys_of
from registry.leases import Granted, Renewal, RenewalResult, Renewed, Sweep
from registry.model import FORMAT, Instance, Registration, decode_instance
from registry.redis_client import asking, connect

_CONSTANTS = {
    "MAX_STREAM": MAX_STREAM,
    "GRACE": lease.GRACE_MS,
    "OUTAGE_GAP": lease.OUTAGE_GAP_MS,
    "OUTAGE_HOLD": lease.OUTAGE_HOLD_MS,
    "KNOWN_LEASES": lease.KNOWN_LEASES,
    "STATIC_LEASE": lease.STATIC_LEASE_MS,
    "GUARD_MIN": lease.GUARD_MIN,
    "GUARD_HOLD": lease.GUARD_HOLD_MS,
    "MAX_EVICTIONS": lease.MAX_EVICTIONS,
    "MAX_EXAMINED": lease.MAX_EXAMINED,
    "EPOCH_STEP": lease.EPOCH_STEP,
}

_VERBS = ("register", "renew", "deregister", "amend", "settings", "evict", "epoch", "claim")


def _load_scripts() -> dict[str, str]:
    """Verb → script: the numbers of lease.py, what all share, and the verb's own part."""
    folder = files("registry") / "scripts"
    numbers = "".join(f"local {name} = {value}\n" for name, value in _CONSTANTS.items())
    common = numbers + (folder / "common.lua").read_text()
    return {verb: common + (folder / f"{verb}.lua").read_text() for verb in _VERBS}


class RedisStore:
    """The `LeaseStore` of one zone in the Redis or Valkey at *url*."""

    def __init__(self, url: str, zone: str) -> None:
        self._redis = connect(url)
        self._keys = keys_of(zone)
        self._scripts = {
            verb: self._redis.register_script(text) for verb, text in _load_scripts().items()
        }

    async def register(
        self,
        registration: Registration,
        *,
        lease_id: str,
        generation: int = 0,
        found: tuple[str, ...] = (),
    ) -> Granted:
        status, value, listed_as = await self._run(
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
        )
        if status == "owned":
            raise OwnedByAnother(f"{registration.service} belongs to {value}")
        if status == "superseded":
            raise LeaseSuperseded(f"generation {generation} is older than {value}")
        instance = decode_instance(value, listed_as)
        return Granted(instance, created=status == "created", changed=status != "renewed")

    async def renew(self, renewals: Sequence[Renewal]) -> list[RenewalResult]:
        if not renewals:
            return []
        script = self._scripts["renew"]
        async with asking():
            try:
                results = await self._renew_all(script.sha, renewals)
            except NoScriptError:
                # The script cache was flushed, or this is another server than before.
                await self._redis.script_load(script.script)
                results = await self._renew_all(script.sha, renewals)
        return [_renewal_result(r, result) for r, result in zip(renewals, results, strict=True)]

    async def _renew_all(self, sha: str, renewals: Sequence[Renewal]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for renewal in renewals:
                pipe.evalsha(sha, len(self._keys), *self._keys, renewal.key, renewal.lease_id or "")
            return await pipe.execute()

    async def deregister(self, key: str, *, lease_id: str | None = None) -> tuple[bool, int]:
        removed, *revision = await self._run("deregister", lease_id or "", "", key)
        if removed == -1:
            raise LeaseSuperseded(key)
        return removed > 0, int(revision[0])

    async def deregister_service(self, service: str, ids: Iterable[str]) -> tuple[int, int]:
        keys = [f"{service}/{i}" for i in dict.fromkeys(ids)]
        removed, revision = await self._run("deregister", "", service, *keys)
        return removed, int(revision)

    async def set_state(
        self, key: str, state: str, reason: str, *, expected: int | None = None
    ) -> Instance:
        line = f"{state} {reason}".rstrip()
        return await self._amend(key, "" if expected is None else expected, "state", line)

    async def set_answers(self, service: str, answers: int) -> int:
        match await self._run("settings", service, answers):
            case ["done", revision]:
                return int(revision)
        raise LeaseNotFound(service)

    async def set_found(self, key: str, found: tuple[str, ...], *, expected: int) -> Instance:
        return await self._amend(key, expected, "found", " ".join(found))

    async def _amend(self, key: str, expected: int | str, field: str, text: str) -> Instance:
        match await self._run("amend", key, expected, field, text):
            case ["missing"]:
                raise LeaseNotFound(key)
            case ["conflict", revision]:
                raise RevisionConflict(int(revision))
            case [_, value, listed_as]:
                return decode_instance(value, listed_as)
        raise AssertionError("amend.lua answers in one of three ways")

    async def sweep(self) -> Sweep:
        evicted, suspects, forgotten = await self._run("evict")
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

    async def begin_epoch(self, known_revision: int, unix_time_s: int) -> None:
        async with asking():
            info = await self._redis.info("replication")
        await self._run("epoch", info["master_replid"], known_revision, unix_time_s)

    async def claim(self, role: str, holder: str, seconds: float) -> bool:
        return bool(await self._run("claim", role, holder, int(seconds * 1000)))

    async def ping(self) -> None:
        async with asking():
            await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()

    async def _run(self, verb: str, *args: str | int) -> Any:
        async with asking():
            return await self._scripts[verb](keys=list(self._keys), args=list(args))


def _renewal_result(renewal: Renewal, result: list[str]) -> RenewalResult:
    match result:
        case ["renewed", lease_ms]:
            return Renewed(int(lease_ms) / 1000)
        case ["superseded"]:
            return LeaseSuperseded(renewal.key)
        case _:
            return LeaseNotFound(renewal.key)
