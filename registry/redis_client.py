"""Connections to Redis or Valkey: the only place that says how we connect and wait."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError

from registry.errors import StoreUnavailable

CONNECT_TIMEOUT = 1.0
"""Seconds to connect."""

ANSWER_TIMEOUT = 2.0
"""Seconds for one answer; a script of ours takes milliseconds."""

MAX_CONNECTIONS = 16
"""Of one process: pipelines carry most of the traffic, few connections suffice."""


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
        socket_timeout=ANSWER_TIMEOUT,
        redis_connect_func=on_connect,
        protocol=2,
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
    )
    return Redis.from_pool(pool)


@contextmanager
def errors_translated() -> Iterator[None]:
    """Redis's own errors become StoreUnavailable, with the reason as text."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
