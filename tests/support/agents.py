"""An agent in the test's own process, quick enough to watch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sidecar.agent import Agent
from sidecar.client import RegistrarClient
from sidecar.health import Policy
from sidecar.probe import Prober
from sidecar.registration import Service
from sidecar.stopping import Limits
from sidecar.tables import services_from

QUICK = Policy(interval=0.05, timeout=0.5, fall=2, initial_wait=0.3)

SHORT = Limits(call=0.1, drain=0.2, deregister=0.4, total=1.0)


def service_at(
    port: int, name: str = "payments", policy: Policy = QUICK, **more: object
) -> Service:
    table = {"name": name, "host": "127.0.0.1", "port": port, **more}
    (service,), problems = services_from([table], [name], policy)
    assert problems == []
    return service


@asynccontextmanager
async def running(
    services: list[Service], *urls: str, lame_duck: bool = False, limits: Limits | None = None
) -> AsyncIterator[Agent]:
    client = RegistrarClient(urls, timeout=1.0)
    agent = Agent(services, client, Prober(), lame_duck=lame_duck, limits=limits)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.stop()
