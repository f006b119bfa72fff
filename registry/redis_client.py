"""Connections to Redis or Valkey: the only place that says how we connect and wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError

from registry.address import StoreAddress, address_of
from registry.errors import StoreUnavailable
from registry.sentinels import Sentinels

CONNECT_TIMEOUT = 1.0
"""Seconds to connect."""

ANSWER_TIMEOUT = 2.0
"""Seconds for one answer, connecting included; a script of ours takes milliseconds."""

MAX_CONNECTIONS = 16
"""Of one process: pipelines carry most of the traffic, few connections suffice."""

T = TypeVar("T")


def connect(store: str | StoreAddress, *, connected: Callable[[], None] = lambda: None) -> Redis:
    """A client with a bounded pool, which its `aclose` closes.  It connects at its first call.

    One retry, on a connection that turned out to be dead: the pool may hold some after a
    restart of the store, and all our scripts may run twice.  So a call may be answered by
    another server than the one before: *connected* is called for every new connection.
    """
    address = address_of(store)

    async def on_connect(connection: Connection) -> None:
        await connection.on_connect()
        if address.sentinels:
            await _require_primary(connection)
        connected()

    settings: dict[str, Any] = {"ssl_ca_certs": address.ca_file} if address.ca_file else {}
    pool = BlockingConnectionPool.from_url(
        address.url,
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
        **settings,
    )
    if address.sentinels:
        sentinels = Sentinels(address.sentinels, address.master)
        pool.connection_class = _to_primary(pool.connection_class, sentinels)
    return Redis.from_pool(pool)


def _to_primary(kind: Any, sentinels: Sentinels) -> Any:
    """Connections of that kind which ask for the primary whenever they connect.

    The client's own for Sentinel come with a pool that has no bound of ours, and keep the
    address that they were made with (redis-py#651, #2290).
    """

    class ToPrimary(kind):  # type: ignore[misc]
        async def _connect(self) -> None:
            self.host, self.port = await sentinels.primary()
            await super()._connect()

    return ToPrimary


async def _require_primary(connection: Connection) -> None:
    """ConnectionError unless a primary is at the other end: Sentinels may be a moment behind."""
    await connection.send_command("INFO", "replication")
    answer = str(await connection.read_response())
    if "role:master" not in answer:
        raise ConnectionError(f"{connection.host}:{connection.port} is no primary (any more)")


async def let_go(redis: Redis) -> None:
    """Close the connections that nobody uses: the next call finds out anew where the store is."""
    await redis.connection_pool.disconnect(inuse_connections=False)


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
