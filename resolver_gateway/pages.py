"""The gateway's own pages: `/gateway/status`, and `/gateway/health-check/{service}`.

Both are for people and dashboards; each shows one worker's view.
"""

import asyncio
import time
from typing import Any, Final

from registry.runtime import http
from registry.runtime.metrics import callboard_version
from resolver_gateway.balancer import Upstream
from resolver_gateway.cache import Absent
from resolver_gateway.call import Call
from resolver_gateway.dnsclient import DnsClient
from resolver_gateway.handler import Handler, to_json
from resolver_gateway.retry import BREAKER_THRESHOLD
from resolver_gateway.routing import HealthCheck, StatusPage
from resolver_gateway.srv import Failed, Resolution

HEALTH_SECONDS: Final = 5.0
"""How long the result of a health check is shown without asking again."""

HEALTH_TIMEOUT: Final = 2.0
MAX_HEALTH_ENTRIES: Final = 1024
MAX_PROBED: Final = 16
"""Instances asked for one health check, all at the same time."""

MAX_HEALTH_BODY: Final = 64 * 1024
"""Octets read of a health answer; only its status counts."""

DEFAULT_HEALTH_PATH: Final = "/health"
"""Where an instance's TXT record says nothing else (`health=/path`)."""

MAX_SHOWN: Final = 200
"""Services listed with their upstreams on the status page."""


class Pages:
    """Answers both pages, and keeps the results of health checks."""

    def __init__(self, handler: Handler, client: DnsClient) -> None:
        self._handler = handler
        self._client = client
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
        services = cache.services(now)
        return {
            "gateway": "draining" if handler.draining else "operational",
            "version": callboard_version(),
            "circuit_breaker": self._breakers(now),
            "service_discovery_cache": {
                "size": len(services),
                "max_size": cache.capacity,
                "ttl": min((r.ttl for r in self._resolutions().values()), default=None),
                "services": sorted(services),
                "stale": sorted(name for name, left in services.items() if left < 0),
            },
            "health_cache": {
                "size": len(self._results),
                "max_size": MAX_HEALTH_ENTRIES,
                "ttl": HEALTH_SECONDS,
                "services": sorted(self._results),
            },
            "upstreams": {
                name: [handler.describe(u, now) for u in resolution.upstreams]
                for name, resolution in sorted(self._resolutions().items())[:MAX_SHOWN]
            },
            "connections": {
                "clients": len(handler.clients),
                "upstreams": len(handler.pool.connections),
                "idle_upstreams": handler.pool.idle_count,
            },
        }

    def _resolutions(self) -> dict[str, Resolution]:
        cache = self._handler.resolver.cache
        known = {name: cache.known(name) for name in cache.services(0.0)}
        return {name: resolution for name, resolution in known.items() if resolution is not None}

    def _breakers(self, now: float) -> dict[str, Any]:
        """All breakers as one: open when one is, with the most failures in a row of any."""
        wall = time.time() - now
        states = self._handler.states
        opened = {n: s.breaker for n, s in states.items() if s.breaker.is_open(now)}
        times = [b.opened_at for b in opened.values() if b.opened_at is not None]
        return {
            "open": bool(opened),
            "failures": max((s.breaker.failures for s in states.values()), default=0),
            "threshold": BREAKER_THRESHOLD,
            "opened_at": wall + max(times) if times else None,
            "services": sorted(opened),
        }

    # --- /gateway/health-check/{service}

    def _health(self, call: Call, page: HealthCheck) -> None:
        now = self._handler.clock()
        known = self._results.get(page.service)
        if known is not None and now < known[1]:
            cached = {**known[0], "cached": True, "cache_layer": "memory"}
            call.reply(200, to_json({**cached, "service_name": page.listed}))
            return
        self._handler.start(self._check(call, page))

    async def _check(self, call: Call, page: HealthCheck) -> None:
        answer, _ = await self._handler.resolver.resolve(page.service)
        if isinstance(answer, Resolution):
            document = await self._ask(page, answer)
            self._keep(page.service, document)
            if not call.over:
                call.reply(200, to_json(document))
        elif call.over:
            return
        elif isinstance(answer, Absent) and not answer.exists:
            call.refuse(404, "unknown-service", f"there is no service {page.service}")
        elif isinstance(answer, Absent):
            detail = f"{page.service} is known, and has no instance now"
            call.refuse(503, "no-instances", detail, answer.retry_after)
        else:
            assert isinstance(answer, Failed)
            detail = f"nobody told where {page.service} is: {answer.reason}"
            call.refuse(503, "discovery-unavailable", detail, 1.0)

    async def _ask(self, page: HealthCheck, resolution: Resolution) -> dict[str, Any]:
        """The health of every instance; that of the service is that of its best one."""
        upstreams = resolution.upstreams[:MAX_PROBED]
        found = await asyncio.gather(*(self._probe(upstream) for upstream in upstreams))
        best = max(found, key=lambda result: bool(result["healthy"]))
        return {
            "service_name": page.listed,
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
        url = f"http://{upstream.where}"
        result: dict[str, Any] = {
            "instance": upstream.instance,
            "url": url,
            "healthy": False,
            "status_code": None,
            "response_time_ms": None,
        }
        problem = self._handler.pool.problem_of(upstream)
        if problem is not None or not path.startswith("/"):
            return {**result, "error": problem or "its health path is no path"}
        began = self._handler.clock()
        try:
            response = await http.request(
                "GET", url + path, timeout=HEALTH_TIMEOUT, limit=MAX_HEALTH_BODY
            )
        except (OSError, TimeoutError, ValueError) as error:
            return {**result, "error": str(error) or type(error).__name__}
        took = self._handler.clock() - began
        result["healthy"] = 200 <= response.status < 300
        result["status_code"] = response.status
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
