"""The least that can be a part: listens, says what it does on stdout, drains as long as told."""

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from registry.runtime import config, lifecycle
from registry.runtime.admin import Admin
from registry.runtime.config import Common, HostPort, option


@dataclass(frozen=True, slots=True)
class TinyConfig:
    workers: int = option(config.integer(0, 9), default=1, help="0: never ready")
    drain: float = option(config.seconds(0, 60), default=0.0, help="seconds that draining takes")


def problems(settings: TinyConfig) -> Iterable[str]:
    if settings.workers == 9:
        yield "workers: 9 is one too many"


class Tiny:
    def __init__(self, settings: TinyConfig, common: Common) -> None:
        self._settings = settings
        self._admin = Admin(common.admin, self._missing, self._metrics)

    async def start(self) -> None:
        await self._admin.start()
        say(f"started {self._admin.address}")

    async def drain(self) -> None:
        say("draining")
        await asyncio.sleep(self._settings.drain)

    async def stop(self) -> None:
        await self._admin.stop()
        say("stopped")

    def reload(self) -> None:
        say("reloaded")

    def _missing(self) -> list[str]:
        return [] if self._settings.workers else ["a worker"]

    async def _metrics(self) -> bytes:
        return b""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(
        lifecycle.main("dnsd", TinyConfig, Tiny, admin=HostPort("127.0.0.1", 0), problems=problems)
    )
