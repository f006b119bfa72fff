"""Tasks that run beside, and are awaited in the end: each one has an owner."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from registry.runtime import logs

log = logs.get("gateway")


class Tasks:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Tasks {len(self._tasks)} running>"

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* beside; a bug in it is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task failed", error=repr(error))

    async def close(self) -> None:
        """Cancel them all, and wait until they are gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
