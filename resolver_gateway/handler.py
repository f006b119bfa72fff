"""What happens to a request, in order: route, resolve, admit, pick, forward, record.

This is the only place with that order.  What needs no waiting happens within the call that
brought the request; a task is started only to ask DNS or to connect.
"""

import asyncio
import json
import random
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import count
from math import ceil
from typing import Any, Final

from registry.runtime import logs
from resolver_gateway import balancer, headers, problems
from resolver_gateway.addresses import Network
from resolver_gateway.balancer import Upstream
from resolver_gateway.cache import Absent, Fresh, Stale
from resolver_gateway.call import Call
from resolver_gateway.downstream import Downstream
from resolver_gateway.exchange import Exchange, access_line
from resolver_gateway.fallback import Policy
from resolver_gateway.metrics import Counts
from resolver_gateway.outlier import OutlierDetector
from resolver_gateway.pool import ConnectFailed, Pool
from resolver_gateway.request import Refusal, RequestParser
from resolver_gateway.resolver import Resolver
from resolver_gateway.retry import (
    IDEMPOTENT,
    MAX_ATTEMPTS,
    NEVER_LEFT,
    Breaker,
    Failure,
    RetryBudget,
    may_retry,
)
from resolver_gateway.routing import Climbs, HealthCheck, NoRoute, Router, StatusPage, ToService
from resolver_gateway.srv import Failed, Resolution

MAX_DIALS: Final = 10
"""Attempts of one request while none has left: connecting costs an instance little."""

MAX_SERVICES: Final = 4096
"""Services with a breaker and a budget; as many as the cache keeps."""

GATEWAY_FAILURES: Final = frozenset({502, 503, 504})
"""Answers that count against their instance: it, or what it stands before, cannot serve.  A 500
does not: a request that makes every instance fail must not have half of them ejected."""

FAILURE_STATUS: Final = {Failure.TIMEOUT: 504, Failure.CONNECT_TIMEOUT: 504}
"""What a client is told when nothing is left to try; 502 for the others."""

log = logs.get("gateway")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may use."""

    head_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 60.0
    tunnel_timeout: float = 3600.0
    min_body_rate: int = 240
    """Octets a second; 0: none."""
    connections: int = 10_000
    connections_per_client: int = 2_048


@dataclass(slots=True)
class ServiceState:
    """What is remembered of a service between requests, beside its instances."""

    breaker: Breaker = field(default_factory=Breaker)
    budget: RetryBudget = field(default_factory=RetryBudget)


class Handler:
    """Everything a request meets; one a worker."""

    def __init__(
        self,
        resolver: Resolver,
        pool: Pool,
        outliers: OutlierDetector,
        counts: Counts,
        clock: Callable[[], float],
        *,
        limits: Limits,
        pseudonym: str,
        policy: Policy = Policy.PREFER_DNS,
        trusted: Sequence[Network] = (),
        access_log: str = "off",
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.parser = RequestParser()
        self.resolver = resolver
        self.pool = pool
        self.outliers = outliers
        self.counts = counts
        self.clients: set[Downstream] = set()
        self.draining = False
        self.quiet = asyncio.Event()
        """Set when it drains and the last client is gone."""
        self.pages: dict[type, Callable[[Call, Any], None]] = {}
        """Who answers the gateway's own paths; `pages.py` enters itself here."""
        self.states: dict[str, ServiceState] = {}
        self._per_client: Counter[str] = Counter()
        self._pseudonym = pseudonym.encode()
        self._own_hop = b"1.1 " + self._pseudonym
        self._policy = policy
        self._trusted = tuple(trusted)
        self._access_log = access_log
        self._router = Router()
        self._random = random.Random(secrets.randbits(64)).random
        self._id_prefix = secrets.token_hex(6).encode()
        self._ids = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Handler {len(self.clients)} clients, {self.pool!r}, {self.resolver!r}>"

    # --- hops 1 and 2: a request arrives; which service does it name?

    def handle(self, call: Call) -> None:
        """Take up *call*; it ends by `finished`, in its own time."""
        head = call.head
        known = self._router.known(head.target)
        if known is not None and head.max_forwards is None:
            call.service, call.target, call.prefix = known
            self._resolve(call)
            return
        if head.target == b"*" or (
            head.max_forwards == 0 and head.method in (b"OPTIONS", b"TRACE")
        ):
            call.reply(200, b"")  # for the server itself, or to go no further
            return
        route = self._router.service_for(head.target)
        if isinstance(route, ToService):
            call.service = route.service
            call.target = route.target
            call.prefix = route.prefix
            self._resolve(call)
        elif isinstance(route, Climbs):
            call.refuse(400, "path-climbs", "the path leaves /v2/{service}/ when it is decoded")
        elif isinstance(route, NoRoute):
            call.refuse(404, route.cause, route.detail)
        elif head.method in (b"GET", b"HEAD"):
            assert isinstance(route, StatusPage | HealthCheck)
            self.pages[type(route)](call, route)
        else:
            call.refuse(405, "method-not-allowed", "this page can only be read: GET or HEAD")

    # --- hop 3: where is it?

    def _resolve(self, call: Call) -> None:
        found = self.resolver.lookup(call.service, call.began)
        if type(found) is Fresh:
            call.how = "hit"
            self._admit(call, found.resolution, call.began)
        elif isinstance(found, Stale) and not found.ask:
            call.how = "stale"
            self._admit(call, found.resolution, call.began)
        elif isinstance(found, Absent):
            call.how = "hit"
            self._absent(call, found)
        else:
            self.start(self._wait_for(call))

    async def _wait_for(self, call: Call) -> None:
        answer, call.how = await self.resolver.resolve(call.service)
        if call.over:
            return
        if isinstance(answer, Resolution):
            self._admit(call, answer, self.clock())
        elif isinstance(answer, Absent):
            self._absent(call, answer)
        else:
            self._unresolved(call, answer)

    def _absent(self, call: Call, absent: Absent) -> None:
        if self._policy is Policy.PREFER_DNS and self.resolver.has_fallback(call.service):
            self.start(self._fall_back(call))
        elif absent.exists:
            call.refuse(
                503,
                "no-instances",
                f"{call.service} is known, and has no instance now",
                absent.retry_after,
            )
        else:
            call.refuse(404, "unknown-service", f"there is no service {call.service}")

    def _unresolved(self, call: Call, failed: Failed) -> None:
        if self._policy is not Policy.NEVER and self.resolver.has_fallback(call.service):
            self.start(self._fall_back(call))
        else:
            detail = f"nobody told where {call.service} is: {failed.reason}"
            call.refuse(503, "discovery-unavailable", detail, 1.0)

    async def _fall_back(self, call: Call) -> None:
        resolution = await self.resolver.fall_back(call.service)
        if call.over:
            return
        if resolution is None:
            detail = f"the fallback for {call.service} cannot be found"
            call.refuse(503, "fallback-unavailable", detail, 1.0)
            return
        call.how = "fallback"
        call.resolution = resolution
        call.state = self._state(call.service)
        now = self.clock()
        call.state.budget.count(now)
        self._attempt(call, now)

    # --- hops 4 to 6: leave out the sick, choose, pass it on

    def _admit(self, call: Call, resolution: Resolution, now: float) -> None:
        state = call.state = self._state(call.service)
        if state.breaker.opened_at is not None and not state.breaker.admits(now):
            self._broken_circuit(call, resolution, state.breaker.retry_after(now), now)
            return
        state.budget.count(now)
        call.resolution = resolution
        self._attempt(call, now)

    def _broken_circuit(
        self, call: Call, resolution: Resolution, retry_after: float, now: float
    ) -> None:
        if self._policy is not Policy.NEVER and self.resolver.has_fallback(call.service):
            self.start(self._fall_back(call))
            return
        call.refuse(
            503,
            "breaker-open",
            f"every instance of {call.service} failed; they are left alone for a while",
            retry_after,
            instances=[self.describe(u, now) for u in resolution.upstreams[:16]],
        )

    def _attempt(self, call: Call, now: float) -> None:
        upstream = self._choose(call, now)
        call.attempts += 1
        call.upstream = upstream
        head = self._head_for(call, upstream)
        if head is None:
            call.refuse(508, "loop", "the request has passed this gateway before (Via)")
            return
        connection = None
        if not call.fresh_only:
            careful = call.head.method not in IDEMPOTENT
            connection = self.pool.take(upstream, now, careful=careful)
        if connection is not None:
            call.send(connection, head, now)
        else:
            self.start(self._dial(call, upstream, head))

    def _choose(self, call: Call, now: float) -> Upstream:
        """The upstream for the next attempt: none that was tried, while there are others."""
        assert call.resolution is not None
        if not call.tried and self.outliers.all_well:
            return call.resolution.ballot.pick(self._random)
        tried = call.tried
        upstreams = call.resolution.upstreams
        admitted = [u for u in self.outliers.admit(upstreams, now) if u.key not in tried]
        candidates = admitted or [u for u in upstreams if u.key not in tried] or upstreams
        upstream = balancer.pick(candidates, self._random)
        self.outliers.chosen(upstream, now)
        return upstream

    def _head_for(self, call: Call, upstream: Upstream) -> bytes | None:
        """The request's head as it goes to *upstream*; None when it has been here before."""
        head, client = call.head, call.client
        if head.via or not client.stranger:
            hops = headers.hops(head, self._pseudonym)
            if hops is None:
                return None
            said = self._said(call, hops, trusted=not client.stranger)
        else:
            # The same for every request of a connection, as long as these three are.
            key = head.host, call.prefix, head.minor
            if client.said_for != key:
                hops = headers.hops(head, self._pseudonym)
                assert hops is not None
                client.said = self._said(call, hops, trusted=False)
                client.said_for = key
            said = client.said
        target = upstream.base + call.target if upstream.base else call.target
        host = head.host or upstream.where.encode()
        return headers.request_head(head, target, host, said, call.request_id)

    def _said(self, call: Call, hops: bytes, *, trusted: bool) -> bytes:
        said = headers.forwarding(call.client.peer, call.head, trusted=trusted)
        return said + b"Via: %b\r\nX-Forwarded-Prefix: %b\r\n" % (hops, call.prefix)

    async def _dial(self, call: Call, upstream: Upstream, head: bytes) -> None:
        try:
            connection = await self.pool.dial(upstream)
        except ConnectFailed as error:
            if not call.over:
                self.attempt_failed(call, error.failure, error.detail, reused=False)
            return
        if call.over:
            self.pool.give(connection, self.clock())
        elif connection.transport.is_closing():
            self.attempt_failed(call, Failure.CLOSED, "closed at once", reused=False)
        else:
            call.send(connection, head, self.clock())

    # --- hop 7: learn

    def attempt_failed(self, call: Call, failure: Failure, detail: str, *, reused: bool) -> None:
        """An attempt of *call* failed before anything was answered: try again, or give up."""
        now = self.clock()
        assert call.upstream is not None
        assert call.resolution is not None
        self.counts.failures[failure.value] += 1
        again = may_retry(
            failure, call.head.method, answering=call.informed, replayable=call.replayable
        )
        if failure is Failure.CLOSED and reused and not call.fresh_only:
            # It was being closed while we sent: no fault of the instance, and no extra load.
            call.fresh_only = True
            if again:
                self._retry(call, now)
                return
        else:
            self._learn_failure(call, now)
        if again and self._may_try_again(call, failure, now):
            self._retry(call, now)
        else:
            self._give_up(call, failure, detail, now)

    def _learn_failure(self, call: Call, now: float) -> None:
        assert call.upstream is not None
        assert call.resolution is not None
        call.tried |= {call.upstream.key}
        if self.outliers.record(call.upstream, False, now, call.resolution.upstreams):
            self.counts.ejections += 1
            log.info("instance ejected", service=call.service, upstream=call.upstream.where)

    def _may_try_again(self, call: Call, failure: Failure, now: float) -> bool:
        assert call.resolution is not None
        untried = any(u.key not in call.tried for u in call.resolution.upstreams)
        if failure in NEVER_LEFT:
            return untried and call.attempts < MAX_DIALS
        return call.attempts < MAX_ATTEMPTS and self._state(call.service).budget.allows(now)

    def _retry(self, call: Call, now: float) -> None:
        self.counts.retries += 1
        self._attempt(call, now)

    def _give_up(self, call: Call, failure: Failure, detail: str, now: float) -> None:
        assert call.resolution is not None
        self._learn_defeat(call, now)
        call.refuse(FAILURE_STATUS.get(failure, 502), failure.value, detail)

    def _learn_defeat(self, call: Call, now: float) -> None:
        assert call.resolution is not None
        if call.resolution.source != "dns":
            return  # a fallback's failure says nothing about the instances
        breaker = self._state(call.service).breaker
        nothing_left = self.outliers.all_failing(call.resolution.upstreams)
        was_closed = breaker.opened_at is None
        if breaker.failure(now, nothing_left=nothing_left) and was_closed:
            self.counts.breaker_opens += 1
            log.warning("breaker opened", service=call.service, failures=breaker.failures)

    def broken(self, call: Call, failure: Failure) -> None:
        """An answer broke off after it had begun."""
        now = self.clock()
        self.counts.failures[failure.value] += 1
        self._learn_failure(call, now)
        call.status = 0
        self._learn_defeat(call, now)
        self._observe(call, failure.value, now)

    def finished(self, call: Call, cause: str, now: float) -> None:
        """*call* is over; *cause* is empty when an upstream's answer went out whole."""
        upstream, state = call.upstream, call.state
        if upstream is not None and state is not None:
            assert call.resolution is not None
            if not cause:
                ok = call.status not in GATEWAY_FAILURES
                if self.outliers.record(upstream, ok, now, call.resolution.upstreams):
                    self.counts.ejections += 1
                    log.info("instance ejected", service=call.service, upstream=upstream.where)
                if state.breaker.failures and call.resolution.source == "dns":
                    self._healed(call.service, state.breaker)
            elif cause in ("client-gone", "body-timeout"):
                state.breaker.abandoned()
        self._observe(call, cause, now)

    def _healed(self, service: str, breaker: Breaker) -> None:
        if breaker.opened_at is not None:
            log.info("breaker closed", service=service)
        breaker.success()

    # --- hop 8: say so once

    def _observe(self, call: Call, cause: str, now: float) -> None:
        head = call.head
        exchange = Exchange(
            call.request_id,
            call.client.peer,
            head.method,
            head.target,
            call.service,
            call.upstream.where if call.upstream is not None else "",
            call.attempts,
            call.how,
            call.status,
            cause,
            now - call.began,
        )
        self.counts.observe(exchange)
        if self._access_log != "off":
            sys.stderr.write(access_line(exchange, self._access_log) + "\n")

    # --- what calls and clients ask of it

    def new_request_id(self) -> bytes:
        return b"%b-%x" % (self._id_prefix, next(self._ids))

    def problem(
        self,
        call: Call,
        status: int,
        cause: str,
        detail: str,
        keep: bool,
        retry_after: float | None,
        further: dict[str, object],
    ) -> bytes:
        """A problem as the answer to *call*."""
        request_id = call.request_id.decode()
        fields = {"X-Request-Id": request_id}
        if status in problems.RETRY_STATUSES:
            fields["Retry-After"] = str(max(1, ceil(retry_after or 1.0)))
        if status == 405:
            fields["Allow"] = "GET, HEAD"
        return problems.response(
            status,
            problems.body(status, cause, detail, request_id=request_id, **further),
            cause=cause,
            keep=keep,
            date=formatdate(usegmt=True),
            fields=fields,
            head_only=call.head.method == b"HEAD",
        )

    def page(self, call: Call, status: int, content: bytes, keep: bool) -> bytes:
        """A page of our own as the answer to *call*."""
        return problems.response(
            status,
            content,
            media_type="application/json",
            keep=keep,
            date=formatdate(usegmt=True),
            fields={"X-Request-Id": call.request_id.decode(), "Cache-Control": "no-store"},
            head_only=call.head.method == b"HEAD",
        )

    def refused(self, client: Downstream, refusal: Refusal) -> None:
        """A head that was not taken: answered, counted, and the connection ends."""
        status, cause, detail = refusal
        self.counts.unanswered["4xx" if status < 500 else "5xx", cause] += 1
        # A refused method is CONNECT; what else is allowed depends on the service.
        fields = {"Allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"} if status == 405 else {}
        client.write(
            problems.response(
                status,
                problems.body(status, cause, detail),
                cause=cause,
                keep=False,
                date=formatdate(usegmt=True),
                fields=fields,
            )
        )

    def connected(self, client: Downstream) -> None:
        """A client connected: within the limits, or told so and closed."""
        self.clients.add(client)
        self._per_client[client.origin] += 1
        client.stranger = not headers.is_trusted(client.peer, self._trusted)
        if len(self.clients) > self.limits.connections:
            self._turn_away(client, 503, "connections")
        elif self._per_client[client.origin] > self.limits.connections_per_client:
            self._turn_away(client, 429, "connections-per-client")

    def _turn_away(self, client: Downstream, status: int, limit: str) -> None:
        self.counts.refused_connections[limit] += 1
        client.write(
            problems.response(
                status,
                problems.body(status, "too-many-connections", f"the limit of {limit} is reached"),
                cause="too-many-connections",
                keep=False,
                date=formatdate(usegmt=True),
                fields={"Retry-After": "1"},
            )
        )
        client.transport.close()

    def disconnected(self, client: Downstream) -> None:
        self.clients.discard(client)
        self._per_client[client.origin] -= 1
        if not self._per_client[client.origin]:
            del self._per_client[client.origin]
        if self.draining and not self.clients:
            self.quiet.set()

    def upstreams_left(self, service: str, keys: Collection[str]) -> None:
        """These upstreams of *service* are not in DNS any more."""
        self.pool.close_those_of(keys)
        self.outliers.forget(keys)

    def describe(self, upstream: Upstream, now: float) -> dict[str, object]:
        """An upstream as the status page and problems show it."""
        health = self.outliers.health(upstream)
        ejected = self.outliers.is_ejected(upstream, now)
        return {
            "instance": upstream.instance,
            "address": upstream.where,
            "priority": upstream.priority,
            "weight": upstream.weight,
            "state": "ejected" if ejected else "serving",
            "failures": health.failures if health is not None else 0,
            "ejected_for": round(max(0.0, health.ejected_until - now), 1) if health else 0.0,
        }

    def _state(self, service: str) -> ServiceState:
        state = self.states.get(service)
        if state is None:
            if len(self.states) >= MAX_SERVICES:
                self.states.clear()
            state = self.states[service] = ServiceState()
        return state

    # --- its tasks and its end

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* beside; it is awaited by `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a request's task failed", error=repr(error))

    def tick(self, now: float) -> None:
        """Act on every deadline that has passed; the one timer of all connections."""
        for client in list(self.clients):
            client.tick(now)
        self.pool.tick(now)

    def drain(self) -> None:
        """Take no further requests; what is under way goes on."""
        self.draining = True
        for client in list(self.clients):
            client.drain()
        if not self.clients:
            self.quiet.set()

    async def close(self) -> None:
        """Cut everything off."""
        for client in list(self.clients):
            client.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.pool.close()


def to_json(document: object) -> bytes:
    """*document* as the body of a page."""
    return (json.dumps(document) + "\n").encode()
