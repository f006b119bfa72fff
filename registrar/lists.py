"""The calls that show something: services, events, targets for Prometheus, explanations.

Each is answered from the catalog in memory; only lease times are asked of the store.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from registrar import explain, prometheus_sd
from registrar.calls import Call, Reply, Stream, reply
from registrar.errors import ServiceNotFound, ViewNotReady
from registrar.queries import filters_of, flag_of, is_match, list_tag, service_tag, wait_of
from registrar.questions import parse_question
from registrar.reads import Reads, stamp_of
from registrar.view import View
from registrar.watchers import Watchers
from registry import names
from registry.catalog import Service
from registry.errors import InvalidInstance, Problem

INDEX: Final = "X-Callboard-Index"
"""Header with the revision that a reader gives as `index` to wait for what comes after."""

SLICE = 200
"""Services gone through between two turns of the loop, some 2 ms."""

_EVENT_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would wait for a buffer to fill
}


class Lists:
    """The calls that show something, over one view of the store."""

    def __init__(
        self, view: View, reads: Reads, watchers: Watchers, zones: tuple[str, ...]
    ) -> None:
        self._view = view
        self._reads = reads
        self._watchers = watchers
        self._zones = zones

    # --- services ---------------------------------------------------------------------------

    async def list_services(self, call: Call) -> Reply:
        """GET /services: names, or documents with `detail=true`; filters hold for instances."""
        require_loaded(self._view)
        filters = filters_of(call.query)
        detailed = flag_of(call.query, "detail")
        headers = await self._when_changed(call, None)
        if is_known(call, headers):
            return Reply(304, b"", headers)
        if detailed:
            shown = await self._reads.listing(filters)
            return Reply(200, f"[{', '.join(shown)}]".encode(), headers)
        if not any(filters.values()):
            return Reply(200, self._reads.names(), headers)
        matching = self._reads.matching(filters)
        return reply(200, [service.name for service, _ in matching], headers)

    async def get_service(self, call: Call) -> Reply:
        """GET /services/{service}."""
        require_loaded(self._view)
        name = call.names["service"]
        headers = await self._when_changed(call, name)
        if is_known(call, headers):
            return Reply(304, b"", headers)
        text = await self._reads.service(name)
        if text is None:
            raise ServiceNotFound(_not_listed(name, self._view.catalog.service(name)))
        return Reply(200, text.encode(), headers)

    async def _when_changed(self, call: Call, name: str | None) -> dict[str, str]:
        """Wait as *call* wishes for a change of the service *name*, of anything without one.

        The headers of what is shown then: they may be older than that, never newer, so that no
        change is missed by whoever comes back with them.
        """
        wait = wait_of(call.query)
        if wait is not None:
            await self._watchers.changed(name, wait, call.caller, call.gone)
        catalog, current = self._view.catalog, self._view.current
        service = None if name is None else catalog.service(name)
        folded = None if name is None else names.fold(name)
        headers = {INDEX: str(self._watchers.index_of(folded)), "Cache-Control": "no-cache"}
        if name is None:
            headers["ETag"] = list_tag(catalog.revision, catalog.unconfirmed, current)
        elif service is not None and service.instances:
            headers["ETag"] = service_tag(stamp_of(service.instances), service.answers, current)
        return headers

    # --- events -----------------------------------------------------------------------------

    async def events(self, call: Call) -> Stream:
        """GET /events: every change as it comes, as Server-Sent Events."""
        require_loaded(self._view)
        release = self._watchers.admit(call.caller)
        try:
            # A browser cannot set the header on its first connection, only on later ones.
            index = dict(call.query).get("index", "")
            start = await self._watchers.start_for(call.headers.get("Last-Event-ID") or index)
        except BaseException:
            release()
            raise
        return Stream(self._watchers.events(start), _EVENT_HEADERS, release)

    # --- for Prometheus ---------------------------------------------------------------------

    async def prometheus(self, call: Call) -> Reply:
        """GET /sd/prometheus: targets as http_sd takes them; none is 200 and an empty list."""
        require_loaded(self._view)
        filters = filters_of(call.query)
        port = dict(call.query).get("port")
        if port is not None and (problem := names.problem_of_port_name(port)) is not None:
            raise InvalidInstance([Problem("port", problem)])
        headers = await self._when_changed(call, None)
        if is_known(call, headers):
            return Reply(304, b"", headers)
        targets: list[prometheus_sd.TargetGroup] = []
        for count, (service, instances) in enumerate(self._reads.matching(filters), start=1):
            for instance in sorted(instances, key=lambda i: i.id):
                target = prometheus_sd.target_of(service.name, instance, port or "")
                if target is not None:
                    targets.append(target)
            if count % SLICE == 0:
                await asyncio.sleep(0)
        return reply(200, targets, headers)

    # --- why --------------------------------------------------------------------------------

    async def explain(self, call: Call) -> Reply:
        """GET /explain?name=&type=: why DNS answers a name as it does."""
        require_loaded(self._view)
        given = dict(call.query)
        question = parse_question(given.get("name", ""), given.get("type", "A"), self._zones)
        view, loop = self._view, asyncio.get_running_loop()
        source = explain.Source(view.current, max(0.0, view.age(loop.time())), view.error)
        document = explain.explained(question, view.catalog, source)
        return reply(200, document, {"Cache-Control": "no-store"})


def require_loaded(view: View) -> None:
    """ViewNotReady while nothing can be shown."""
    if not view.loaded:
        raise ViewNotReady(f"the catalog is not loaded yet ({view.error or 'loading'}); come back")


def is_known(call: Call, headers: Mapping[str, str]) -> bool:
    """Whether the caller has already what would be shown under the ETag of *headers*."""
    return "ETag" in headers and is_match(call.headers.get("If-None-Match", ""), headers["ETag"])


def _not_listed(name: str, service: Service | None) -> str:
    if service is None:
        return f"no service {name[:64]!r} is registered"
    return f"the last instance of {service.name} has left"
