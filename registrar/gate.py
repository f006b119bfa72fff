"""The only way from here to the lease store: through the breaker, within a time, counted."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from registrar.breaker import CLOSED, OPEN, Breaker
from registry.errors import CallboardError, StoreUnavailable
from registry.leases import LeaseStore
from registry.runtime import logs

T = TypeVar("T")

CALL_SECONDS = 3.0
"""For one call.  The store has shorter time-outs of its own; this one holds whatever it does."""

PING_SECONDS = 1.0
"""Between pings while the breaker is not closed."""

MAX_CALLS = 1024
"""Under way at once.  More callers than that are told to come back: a queue without end would
answer each of them too late."""

_REFUSAL = "the store did not answer of late; it is tried again soon"

log = logs.get("registrar.store")


class Gate:
    """Makes calls to a store.  *failed* is told of each that was not answered."""

    def __init__(
        self, store: LeaseStore, failed: Callable[[], None], breaker: Breaker | None = None
    ) -> None:
        self._store = store
        self._tell = failed
        self._breaker = breaker or Breaker()
        self._calls = 0
        self._said = logs.Transition(log, CLOSED)

    @property
    def state(self) -> str:
        """The breaker's state: closed, open or half-open."""
        return self._breaker.state(time.monotonic())

    def require(self) -> None:
        """StoreUnavailable when a call would be refused now: before work that only it needs."""
        if self.state == OPEN:
            raise StoreUnavailable(_REFUSAL)

    async def __call__(self, call: Coroutine[Any, Any, T]) -> T:
        """What *call*, a coroutine of the store, returns.

        StoreUnavailable at once when the breaker refuses, and then *call* never begins.
        """
        try:
            self._admit()
        except StoreUnavailable:
            call.close()
            raise
        self._calls += 1
        try:
            async with asyncio.timeout(CALL_SECONDS):
                result = await call
        except (StoreUnavailable, TimeoutError) as error:
            self._failed(error)
            raise StoreUnavailable(str(error) or f"no answer in {CALL_SECONDS} s") from error
        except CallboardError:
            self._succeeded()  # it answered; what it said is the caller's affair
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        finally:
            self._calls -= 1
        self._succeeded()
        return result

    async def run(self) -> None:
        """Ping while the breaker is not closed, so that it closes soon after the store is back."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            if self.state != CLOSED:
                await self._ping()

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._store.ping()
        except (StoreUnavailable, TimeoutError):
            return
        self._breaker.pinged(time.monotonic())

    def _admit(self) -> None:
        if self._calls >= MAX_CALLS:
            raise StoreUnavailable(f"{MAX_CALLS} calls wait for the store already")
        if not self._breaker.admits(time.monotonic()):
            raise StoreUnavailable(_REFUSAL)

    def _failed(self, error: Exception) -> None:
        self._tell()
        self._breaker.failed(time.monotonic())
        if self.state != CLOSED:
            reason = str(error) or "no answer"
            self._said.enter(OPEN, "store lost, writes are refused", level="error", error=reason)

    def _succeeded(self) -> None:
        self._breaker.succeeded()
        self._said.enter(CLOSED, "store restored")
