"""The calls of Consul's API that we answer: `X-Consul-Index`, and waiting with `index` and `wait`.

As there, a service that is not known has no instances, which is no error.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from registrar import consul
from registrar.calls import Call, Reply, reply
from registrar.lists import require_loaded
from registrar.queries import wait_of
from registrar.view import View
from registrar.watchers import Watchers
from registry import names
from registry.errors import InvalidInstance, Problem
from registry.model import Instance

UNSUPPORTED: Final = ("filter", "node-meta")
"""Parameters that leave something out: to ignore them would be to show too much."""

SLICE = 500
"""Services, or checks, gone through between two turns of the loop: some 2 ms."""

ALL_CHECKS_SECONDS = 1.0
"""Between two lists of all checks: each costs 10 µs an instance, and every change asks for one."""


INDEX: Final = "X-Consul-Index"


@dataclass(frozen=True, slots=True)
class _Checks:
    """All checks by their status, as JSON, at *index*."""

    index: int = 0
    made_at: float = float("-inf")
    by_status: Mapping[str, Sequence[str]] = field(default_factory=dict)


class ConsulReads:
    """Consul's reads over one view.  *version* is what `/v1/agent/self` says."""

    def __init__(self, view: View, watchers: Watchers, version: str) -> None:
        self._view = view
        self._watchers = watchers
        self._version = version
        self._services: tuple[object, int, bytes] = (None, -1, b"{}")
        self._checks = _Checks()
        self._checking = asyncio.Lock()

    async def agent_self(self, call: Call) -> Reply:
        """GET /v1/agent/self."""
        return reply(200, consul.agent_self(self._version))

    async def services(self, call: Call) -> Reply:
        """GET /v1/catalog/services: names with the tags of all their instances."""
        headers = await self._when_changed(call, None)
        catalog = self._view.catalog
        if self._services[0] is not catalog or self._services[1] != catalog.revision:
            revision, tags = catalog.revision, {}
            for count, (_, service) in enumerate(list(catalog.services()), start=1):
                if service.instances:
                    tags[service.name] = consul.union_of_tags(service.instances.values())
                if count % SLICE == 0:
                    await asyncio.sleep(0)
            self._services = catalog, revision, json.dumps(tags, sort_keys=True).encode()
        return Reply(200, self._services[2], headers)

    async def catalog_service(self, call: Call) -> Reply:
        """GET /v1/catalog/service/{service}: its instances, in whatever state."""
        headers = await self._when_changed(call, call.names["service"])
        entries = [consul.catalog_entry(*found) for found in self._instances(call)]
        return reply(200, entries, headers)

    async def health_service(self, call: Call) -> Reply:
        """GET /v1/health/service/{service}: its instances with their checks."""
        headers = await self._when_changed(call, call.names["service"])
        given = dict(call.query)
        # Consul takes the parameter alone, and any value that is not false.
        passing = given.get("passing", "false").lower() not in ("false", "0", "f")
        entries = [
            consul.health_entry(name, instance)
            for name, instance in self._instances(call)
            if not passing or consul.status_of(instance) == "passing"
        ]
        return reply(200, entries, headers)

    async def health_state(self, call: Call) -> Reply:
        """GET /v1/health/state/{state}: the checks that are in it; Traefik watches all of them."""
        wanted = call.names["state"]
        if wanted not in consul.STATES:
            known = ", ".join(consul.STATES)
            raise InvalidInstance([Problem("state", f"{wanted[:40]!r} is not one of {known}")])
        headers = await self._when_changed(call, None)
        async with self._checking:
            if self._checks.index < int(headers[INDEX]):
                pause = self._checks.made_at + ALL_CHECKS_SECONDS - time.monotonic()
                await asyncio.sleep(max(0.0, pause))
                self._checks = await self._all_checks()
            checks = self._checks
        chosen = checks.by_status if wanted == "any" else {wanted: checks.by_status[wanted]}
        body = ", ".join(text for texts in chosen.values() for text in texts)
        return Reply(200, f"[{body}]".encode(), {**headers, INDEX: str(checks.index)})

    async def _all_checks(self) -> "_Checks":
        index, made_at = self._watchers.index_of(None), time.monotonic()
        by_status: dict[str, list[str]] = {status: [] for status in consul.STATES[1:]}
        count = 0
        for _, service in sorted(self._view.catalog.services(), key=lambda item: item[0]):
            for instance in list(service.instances.values()):
                check = consul.check_of(service.name, instance)
                by_status[check["Status"]].append(json.dumps(check))
                count += 1
                if count % SLICE == 0:
                    await asyncio.sleep(0)
        return _Checks(max(1, index), made_at, by_status)

    def _instances(self, call: Call) -> list[tuple[str, Instance]]:
        """(name as listed, instance) of the service asked, those with all the tags asked."""
        service = self._view.catalog.service(call.names["service"])
        if service is None:
            return []
        wanted = [value for name, value in call.query if name == "tag"]
        return [
            (service.name, instance)
            for _, instance in sorted(service.instances.items())
            if consul.has_tags(instance, wanted)
        ]

    async def _when_changed(self, call: Call, name: str | None) -> dict[str, str]:
        """Wait as *call* wishes for a change; the headers of what is shown then."""
        require_loaded(self._view)
        for unsupported in UNSUPPORTED:
            if any(given == unsupported for given, _ in call.query):
                raise InvalidInstance([Problem(unsupported, "it is not known here; leave it out")])
        wait = wait_of(call.query)
        if wait is not None and wait.index > 0:
            await self._watchers.changed(name, wait, call.caller, call.gone)
        age = self._view.age(asyncio.get_running_loop().time())
        index = self._watchers.index_of(None if name is None else names.fold(name))
        return {
            INDEX: str(max(1, index)),  # 0 would mean that nobody waits
            "X-Consul-KnownLeader": "true" if self._view.current else "false",
            "X-Consul-LastContact": str(0 if age == float("inf") else int(age * 1000)),
        }
