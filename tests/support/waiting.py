"""Waiting for something to become true, instead of sleeping a guess."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

POLL_INTERVAL = 0.01
"""Seconds between two looks: short beside anything that we wait for."""


async def until(
    predicate: Callable[[], object | Awaitable[object]], seconds: float = 5.0, what: str = ""
) -> None:
    """Return once *predicate* (plain or async) gives something true.

    AssertionError after *seconds*, a bound for a stuck test and no claim about speed.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        result = predicate()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return
        if loop.time() >= end:
            raise AssertionError(f"not within {seconds:g} s: {what or predicate}")
        await asyncio.sleep(POLL_INTERVAL)
