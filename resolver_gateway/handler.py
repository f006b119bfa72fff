"""What happens to a request, in order: route, admit, find, attempt, learn, tell.

Finding is in `finding.py`, an attempt in `attempts.py`, what is learnt in `learning.py`.  What
needs no waiting happens within the call that brought the request; a task is started only to ask
DNS or to connect.
"""

import asyncio
import random
import secrets
import sys
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any, Final

from resolver_gateway import clients, replies
from resolver_gateway.addresses import Network
from resolver_gateway.attempts import Attempts
from resolver_gateway.call import Call
from resolver_gateway.door import Door, Limits
from resolver_gateway.downstream import Downstream
from resolver_gateway.exchange import Exchange, access_line
from resolver_gateway.fallback import Policy
from resolver_gateway.finding import Finder
from resolver_gateway.gate import Entry
from resolver_gateway.gcra import Rates
from resolver_gateway.learning import Learner
from resolver_gateway.limiter import Limiter
from resolver_gateway.metrics import Counts
from resolver_gateway.outgoing import HeadWriter
from resolver_gateway.outlier import OutlierDetector
from resolver_gateway.pool import Pool
from resolver_gateway.request import RequestParser
from resolver_gateway.resolver import Resolver
from resolver_gateway.retry import Failure
from resolver_gateway.routing import (
    BadVersion,
    Climbs,
    HealthCheck,
    Named,
    NoRoute,
    Router,
    StatusPage,
    ToService,
)
from resolver_gateway.tasks import Tasks

UPSTREAM_TIMEOUT: Final = 30.0
"""Seconds an upstream may be silent, where no setting says so."""


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
        router: Router | None = None,
        client_rates: Rates | None = None,
        scheme: str = "http",
        server_timing: bool = False,
        upstream_timeout: float = UPSTREAM_TIMEOUT,
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.parser = RequestParser()
        self.resolver = resolver
        self.pool = pool
        self.outliers = outliers
        self.counts = counts
        self.door = Door(limits, counts, trusted)
        self.connected = self.door.connected
        self.disconnected = self.door.disconnected
        self.refused = self.door.refused
        self.problem = replies.problem
        self.page = replies.page
        self.limiter = Limiter(client_rates, self.client_of)
        self.pages: dict[type, Callable[[Call, Any], None]] = {}
        """Who answers the gateway's own paths; `pages.py` enters itself here."""
        self.router = router or Router()
        self.server_timing = server_timing
        """Whether answers tell how long what took."""
        self._trusted = tuple(trusted)
        self._access_log = access_log
        self._random = random.Random(secrets.randbits(64)).random
        self._id_prefix = secrets.token_hex(6).encode()
        self._ids = count(1)
        self._tasks = Tasks()
        self.start = self._tasks.start
        self.learner = Learner(outliers, resolver.cache, counts)
        self.attempts = Attempts(
            resolver,
            pool,
            self.learner,
            HeadWriter(pseudonym.encode(), scheme),
            counts,
            clock,
            start=self.start,
            random=self._random,
            hash_key=self._hash_key,
            upstream_timeout=upstream_timeout,
            timed=server_timing,
        )
        self.attempt_failed = self.attempts.failed
        finder = Finder(
            resolver,
            self.attempts,
            self.learner,
            clock,
            start=self.start,
            random=self._random,
            hash_key=self._hash_key,
            policy=policy,
        )
        self._find = finder.find
        self._resolve = finder.resolve

    def __repr__(self) -> str:
        return f"<Handler {self.door!r}, {self.pool!r}, {self.resolver!r}>"

    @property
    def clients(self) -> set[Downstream]:
        return self.door.clients

    @property
    def draining(self) -> bool:
        return self.door.draining

    # --- hops 1 and 2: a request arrives; which service does it name?

    def handle(self, call: Call) -> None:
        """Take up *call*; it ends by `finished`, in its own time."""
        head, router = call.head, self.router
        if router.by_path_alone and head.max_forwards is None:
            route = head.route
            if route is None or route[0] is not router:
                known = router.known(head.target)
                route = head.route = None if known is None else (router, *known)
            if route is not None:
                _, named, call.target = route
                call.named = named
                if named.plain and not self.limiter.limits_clients:
                    self._resolve(call, named, call.began)
                else:
                    self._admit(call, named)
                return
        if head.target == b"*" or (
            head.max_forwards == 0 and head.method in (b"OPTIONS", b"TRACE")
        ):
            call.reply(200, b"")  # for the server itself, or to go no further
            return
        self._route(call)

    def _route(self, call: Call) -> None:
        route = self.router.route(call.head)
        if isinstance(route, ToService):
            call.named, call.target = route.named, route.target
            self._admit(call, route.named)
        elif isinstance(route, Climbs):
            call.refuse(400, "path-climbs", "the path leaves its service when it is decoded")
        elif isinstance(route, NoRoute):
            call.refuse(404, route.cause, route.detail)
        elif isinstance(route, BadVersion):
            detail = f"{route.value[:80]!r} is no VERSION, tag:TAG or zone:ZONE"
            call.refuse(400, "bad-version", detail)
        elif call.head.method in (b"GET", b"HEAD"):
            assert isinstance(route, StatusPage | HealthCheck)
            self.pages[type(route)](call, route)
        else:
            call.refuse(405, "method-not-allowed", "this page can only be read: GET or HEAD")

    # --- admission: how often may this client ask, and how much has the service to do?

    def _admit(self, call: Call, named: Named) -> None:
        now = call.began
        refused = self.limiter.refusal_of(call, named, now)
        if refused is not None:
            call.refuse(refused.status, refused.cause, refused.detail, refused.retry_after)
            return
        entry = self.limiter.enter(call, named, now)
        if entry is Entry.ENTERED:
            self._find(call, named, now)
        elif entry is Entry.FULL:
            detail = (
                f"{named.service} has {named.rule.max_requests} requests under way,"
                f" and {named.rule.queue} wait already"
            )
            call.refuse(503, "overloaded", detail, 1.0)

    def _take_turn(self, call: Call) -> None:
        """*call* waited for its turn, which has come; its client may be gone."""
        if not call.over:
            assert call.named is not None
            now = self.clock()
            call.spend("queue", now - call.began)
            self._find(call, call.named, now)

    # --- hop 7: learn

    def broken(self, call: Call, failure: Failure) -> None:
        """An answer broke off after it had begun."""
        now = self.clock()
        call.status = 0
        self.attempts.unload(call)
        self.learner.broken(call, failure, now)
        self._over(call, failure.value, now)

    def finished(self, call: Call, cause: str, now: float) -> None:
        """*call* is over; *cause* is empty when an upstream's answer went out whole."""
        if call.loads:
            self.attempts.unload(call)
        self.learner.ended(call, cause, now)
        self._over(call, cause, now)

    def _over(self, call: Call, cause: str, now: float) -> None:
        if call.gate is not None and (following := self.limiter.leave(call)) is not None:
            # Not at once: one that fails at once would call the next, and so on down the stack.
            asyncio.get_running_loop().call_soon(self._take_turn, following)
        self._observe(call, cause, now)

    # --- hop 8: say so once

    def _observe(self, call: Call, cause: str, now: float) -> None:
        head, named = call.head, call.named
        client = call.client
        exchange = Exchange(
            call.request_id,
            client.peer if client.stranger else self.client_of(call),
            head.method,
            head.target,
            named.service if named is not None else "",
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

    def client_of(self, call: Call) -> str:
        """The address of whoever asks, behind proxies of ours the one that they name."""
        client = call.client
        if client.stranger:
            return client.peer
        seen = (f.value for f in call.head.forwarding if f.name == b"x-forwarded-for")
        return clients.address_of(client.peer, seen, self._trusted)

    def _hash_key(self, call: Call) -> bytes | None:
        """What the same instance is chosen by; None when the request does not have it."""
        assert call.named is not None
        header = call.named.rule.balance.header
        return call.head.value(header) if header else self.client_of(call).encode()

    def timed(self, call: Call, head: bytes) -> bytes:
        """The *head* of an answer, with how long what took before it."""
        return head[:-2] + replies.server_timing(call, self.clock()) + b"\r\n"

    def upstreams_left(self, name: str, keys: Collection[str]) -> None:
        """These upstreams of *name* are not in DNS any more."""
        self.pool.close_those_of(keys)
        self.outliers.forget(keys)

    # --- its tasks and its end

    def tick(self, now: float) -> None:
        """Act on every deadline that has passed; the one timer of all connections."""
        self.door.tick(now)
        self.pool.tick(now)
        for call in self.limiter.overdue(now):
            assert call.named is not None
            detail = f"no turn came for it within {call.named.rule.queue_timeout:g} s"
            call.refuse(503, "queue-timeout", detail, 1.0)

    def drain(self) -> None:
        """Take no further requests; what is under way goes on."""
        self.door.drain()

    async def close(self) -> None:
        """Cut everything off."""
        self.door.close()
        await self._tasks.close()
        self.pool.close()
