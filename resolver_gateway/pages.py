"""The gateway's own pages: `/gateway/status`, and `/gateway/health-check/{service}`.

Both are for people and dashboards; each shows one worker's view.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from registry.runtime.metrics import callboard_version
from resolver_gateway.balancer import Upstream
from resolver_gateway.cache import Absent, Status
from resolver_gateway.call import Call
from resolver_gateway.dnsclient import DnsClient
from resolver_gateway.handler import Handler
from resolver_gateway.probe import status_of
from resolver_gateway.replies import to_json
from resolver_gateway.retry import BREAKER_THRESHOLD
from resolver_gateway.routing import HealthCheck, Named, StatusPage
from resolver_gateway.srv import Failed, Resolution

HEALTH_SECONDS: Final = 5.0
"""How long the result of a health check is shown without asking again."""

HEALTH_TIMEOUT: Final = 2.0
MAX_HEALTH_ENTRIES: Final = 1024
MAX_PROBED: Final = 16
"""Instances asked for one health check, all at the same time."""

DEFAULT_HEALTH_PATH: Final = "/health"
"""Where an instance's TXT record says nothing else (`health=/path`)."""

MAX_SHOWN: Final = 200
"""Names listed with their upstreams on the status page."""


def no_events() -> dict[str, Any] | None:
    """What is shown of a subscription that there is none of."""
    return None


class Pages:
    """Answers both pages, and keeps the results of health checks."""

    def __init__(
        self,
        handler: Handler,
        client: DnsClient,
        events: Callable[[], dict[str, Any] | None] = no_events,
    ) -> None:
        self._handler = handler
        self._client = client
        self._events = events
        self._results: dict[str, tuple[dict[str, Any], float]] = {}
        handler.pages[StatusPage] = self._status
        handler.pages[HealthCheck] = self._health

    # --- /gateway/status

    def _status(self, call: Call, _page: StatusPage) -> None:
        call.reply(200, to_json(self.status_document(self._handler.clock())))

    def status_document(self, now: float) -> dict[str, Any]:
        """What the gateway knows and leaves out, as the status page says it."""
        handler = self._handler
        cache = handler.resolver.cache
        left = cache.services(now)
        shown = {
            name: status
            for name in sorted(left)[:MAX_SHOWN]
            if (status := cache.status(name, now)) is not None
        }
        return {
            "gateway": "draining" if handler.draining else "operational",
            "version": callboard_version(),
            "circuit_breaker": self._breakers(now),
            "service_discovery_cache": {
                "size": len(left),
                "max_size": cache.capacity,
                "ttl": min((s.resolution.ttl for s in shown.values()), default=None),
                "services": sorted(left),
                "stale": sorted(name for name, seconds in left.items() if seconds < 0),
            },
            "health_cache": {
                "size": len(self._results),
                "max_size": MAX_HEALTH_ENTRIES,
                "ttl": HEALTH_SECONDS,
                "services": sorted(self._results),
            },
            "discovery": self._discovery(),
            "services": {name: self._service(name, status, now) for name, status in shown.items()},
            "upstreams": {
                name: [handler.learner.describe(u, now) for u in status.resolution.upstreams]
                for name, status in shown.items()
            },
            "limits": {
                service: {
                    "under_way": gate.inside,
                    "max_requests": gate.limit,
                    "waiting": gate.waiting,
                    "queue": gate.room,
                }
                for service, gate in handler.limiter.gates.items()
            },
            "connections": {
                "clients": len(handler.clients),
                "upstreams": len(handler.pool.connections),
                "idle_upstreams": handler.pool.idle_count,
            },
        }

    def _discovery(self) -> dict[str, Any]:
        """Whom we ask, and how that goes."""
        return {
            "state": self._handler.resolver.discovery or "not asked yet",
            "servers": [str(server) for server in self._client.servers],
            "answered_last": str(self._client.first),
            "queries": dict(self._client.outcomes),
            "events": self._events(),
        }

    def _service(self, name: str, status: Status, now: float) -> dict[str, Any]:
        """How old what is known of *name* is, and what its standing is."""
        standing = self._handler.learner.standings.by_name.get(name)
        told: dict[str, Any] = {
            "state": "fresh" if status.left > 0 else "stale",
            "age": round(status.age, 1),
            "ttl_remaining": round(status.left, 1),
            "instances": len(status.resolution.upstreams),
        }
        if standing is not None:
            told["breaker"] = standing.breaker.state(now)
            told["breaker_failures"] = standing.breaker.failures
            told["requests"] = standing.budget.requests
            told["retries"] = standing.budget.retries
        return told

    def _breakers(self, now: float) -> dict[str, Any]:
        """All breakers as one: open when one is, with the most failures in a row of any."""
        wall = time.time() - now
        standings = self._handler.learner.standings.by_name
        opened = {n: s.breaker for n, s in standings.items() if s.breaker.is_open(now)}
        times = [b.opened_at for b in opened.values() if b.opened_at is not None]
        return {
            "open": bool(opened),
            "failures": max((s.breaker.failures for s in standings.values()), default=0),
            "threshold": BREAKER_THRESHOLD,
            "opened_at": wall + max(times) if times else None,
            "services": sorted(opened),
        }

    # --- /gateway/health-check/{service}

    def _health(self, call: Call, page: HealthCheck) -> None:
        now = self._handler.clock()
        known = self._results.get(page.named.name)
        if known is not None and now < known[1]:
            cached = {**known[0], "cached": True, "cache_layer": "memory"}
            call.reply(200, to_json({**cached, "service_name": page.listed}))
            return
        self._handler.start(self._check(call, page.named, page.listed))

    async def _check(self, call: Call, named: Named, listed: str) -> None:
        answer, _ = await self._handler.resolver.resolve(named.name)
        if isinstance(answer, Resolution):
            document = await self._ask(listed, answer)
            self._keep(named.name, document)
            if not call.over:
                call.reply(200, to_json(document))
        elif call.over:
            return
        elif isinstance(answer, Absent) and not answer.exists:
            call.refuse(404, "unknown-service", f"there is no service {named.service}")
        elif isinstance(answer, Absent):
            detail = f"{named} is known, and has no instance now"
            call.refuse(503, "no-instances", detail, answer.retry_after)
        else:
            assert isinstance(answer, Failed)
            detail = f"nobody told where {named} is: {answer.reason}"
            call.refuse(503, "discovery-unavailable", detail, 1.0)

    async def _ask(self, listed: str, resolution: Resolution) -> dict[str, Any]:
        """The health of every instance; that of the service is that of its best one."""
        upstreams = resolution.upstreams[:MAX_PROBED]
        found = await asyncio.gather(*(self._probe(upstream) for upstream in upstreams))
        best = max(found, key=lambda result: bool(result["healthy"]))
        return {
            "service_name": listed,
            "service_url": best["url"],
            "healthy": best["healthy"],
            "status_code": best["status_code"],
            "response_time_ms": best["response_time_ms"],
            "cached": False,
            "cache_layer": None,
            "timestamp": time.time(),
            "instances": found,
        }

    async def _probe(self, upstream: Upstream) -> dict[str, Any]:
        """GET the health path of one instance; the same addresses are refused as for requests."""
        text = await self._client.query_text(upstream)
        path = text.get("health", DEFAULT_HEALTH_PATH)
        result: dict[str, Any] = {
            "instance": upstream.instance,
            "url": f"{'https' if upstream.tls_name else 'http'}://{upstream.where}",
            "healthy": False,
            "status_code": None,
            "response_time_ms": None,
        }
        pool = self._handler.pool
        problem = pool.problem_of(upstream)
        if problem is not None or not path.startswith("/"):
            return {**result, "error": problem or "its health path is no path"}
        began = self._handler.clock()
        try:
            tls = pool.tls_context() if upstream.tls_name else None
            status = await status_of(upstream, path, tls, HEALTH_TIMEOUT)
        except (OSError, TimeoutError, ValueError) as error:
            return {**result, "error": str(error) or type(error).__name__}
        took = self._handler.clock() - began
        result["healthy"] = 200 <= status < 300
        result["status_code"] = status
        result["response_time_ms"] = round(took * 1000, 3)
        return result

    def _keep(self, service: str, document: dict[str, Any]) -> None:
        if len(self._results) >= MAX_HEALTH_ENTRIES:
            self._results.clear()
        self._results[service] = document, self._handler.clock() + HEALTH_SECONDS

    def tick(self, now: float) -> None:
        """Forget results that are too old to be shown."""
        for service in [s for s, (_, until) in self._results.items() if now >= until]:
            del self._results[service]
