"""Who the primary is, asked of the Sentinels that watch it."""

import asyncio
from collections import Counter
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError, RedisError

from registry.runtime.config import HostPort

ASK_TIMEOUT = 0.5
"""Seconds for one Sentinel to connect and answer: a dead one must not hold up the others' word."""

KEEP_SECONDS = 0.2
"""That an answer serves the connections that are made together with the one that asked."""


class Sentinels:
    """The Sentinels at *addresses*, asked for the primary of *master*.

    All are asked at once, and what most of them say counts: one that was cut off from the
    others may still name a primary that is none any more.
    """

    def __init__(self, addresses: tuple[HostPort, ...], master: str) -> None:
        self._addresses = addresses
        self._master = master
        self._asking = asyncio.Lock()
        self._known: tuple[str, int] | None = None
        self._known_until = 0.0

    async def primary(self) -> tuple[str, int]:
        """Its host and port.  ConnectionError when no Sentinel names one."""
        now = asyncio.get_running_loop().time
        async with self._asking:
            if self._known is None or now() >= self._known_until:
                self._known = await self._ask_all()
                self._known_until = now() + KEEP_SECONDS
            return self._known

    async def _ask_all(self) -> tuple[str, int]:
        answers = await asyncio.gather(*(self._ask(address) for address in self._addresses))
        named = Counter(answer for answer in answers if answer is not None)
        if not named:
            asked = ", ".join(map(str, self._addresses))
            raise ConnectionError(f"no Sentinel of {asked} names a primary of {self._master!r}")
        ((most_named, _),) = named.most_common(1)
        return most_named

    async def _ask(self, address: HostPort) -> tuple[str, int] | None:
        """What one of them says; None when it does not answer in time, or knows none."""
        connection: Any = Connection(
            host=address.host, port=address.port, decode_responses=True, protocol=2
        )
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                await connection.connect()
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
                answer = await connection.read_response()
        except (RedisError, OSError, TimeoutError):
            return None
        finally:
            await connection.disconnect(nowait=True)
        match answer:
            case [str(host), str(port)] if port.isdigit():
                return host, int(port)
        return None
