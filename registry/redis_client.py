"""Connections to Redis or Valkey: the only place that says how we connect and wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError

from registry.errors import StoreUnavailable

CONNECT_TIMEOUT = 1.0
"""Seconds to connect."""

ANSWER_TIMEOUT = 2.0
"""Seconds for one answer, connecting included; a script of ours takes milliseconds."""

MAX_CONNECTIONS = 16
"""Of one process: pipelines carry most of the traffic, few connections suffice."""

T = TypeVar("T")


def connect(url: str, *, connected: Callable[[], None] = lambda: None) -> Redis:
    """A client with a bounded pool, which its `aclose` closes.  It connects at its first call.

    One retry, on a connection that turned out to be dead: the pool may hold some after a
    restart of the store, and all our scripts may run twice.  So a call may be answered by
    another server than the one before: *connected* is called for every new connection.
    """

    async def on_connect(connection: Connection) -> None:
        await connection.on_connect()
        connected()

    pool = BlockingConnectionPool.from_url(
        url,
        decode_responses=True,
        encoding_errors="backslashreplace",
        max_connections=MAX_CONNECTIONS,
        timeout=ANSWER_TIMEOUT,
        socket_connect_timeout=CONNECT_TIMEOUT,
        # Ours bounds every call (`asking`).  The client's own would send by asyncio.wait_for,
        # which on Python 3.11 loses a cancellation that comes when the octets are just out:
        # whoever is cancelled then would go on for ever.
        socket_timeout=None,
        redis_connect_func=on_connect,
        protocol=2,
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
    )
    return Redis.from_pool(pool)


@asynccontextmanager
async def asking() -> AsyncIterator[None]:
    """Ask Redis one thing: in ANSWER_TIMEOUT, or with an error of its own, StoreUnavailable."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            yield
    except TimeoutError as error:
        raise StoreUnavailable(f"no answer within {ANSWER_TIMEOUT:g} s") from error
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


async def answer_to(call: Awaitable[T]) -> T:
    """What Redis answers to one *call*; StoreUnavailable."""
    async with asking():
        return await call
