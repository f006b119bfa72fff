"""A worker for the supervisor's tests: counts who connects, and tells them who it is.

It is ready once the file named by its first argument exists.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from prometheus_client import Counter, Gauge

from registry.runtime import metrics
from registry.runtime.supervisor import WorkerLink


async def work(link: WorkerLink, ready: Path) -> None:
    registry = metrics.registry_for("counting")
    connected = Counter("connected", "Connections.", registry=registry)
    Gauge("working", "Always 1.", registry=registry).set(1)
    stopping = asyncio.Event()
    reloads = 0

    def reload() -> None:
        nonlocal reloads
        reloads += 1

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reload)

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.inc()
        who = {"pid": os.getpid(), "index": link.index, "reloads": reloads}
        writer.write(json.dumps(who).encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(tell, sock=link.sockets[0]):
        serving = asyncio.create_task(
            link.serve(lambda: [] if ready.exists() else ["file"], registry)
        )
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    told = WorkerLink.from_environ(os.environ)
    assert told is not None, "started by a supervisor only"
    asyncio.run(work(told, Path(sys.argv[1])))
