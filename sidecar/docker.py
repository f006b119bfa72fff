"""The status of a container's own HEALTHCHECK, from Docker's socket."""

import asyncio
import json
from typing import Any
from urllib.parse import quote, urlsplit

from sidecar.health import Healthy, Unhealthy, Verdict
from sidecar.probe import Streams, get
from sidecar.registration import Service

MAX_DESCRIPTION = 1 << 18
"""Octets of a container's description that are read: five outputs of its check are 20 KiB."""

TCP_PORT = 2375


async def verdict(service: Service) -> Verdict:
    """What Docker says of the service's container; OSError when Docker does not answer."""
    reader, writer = await _connect(service.docker_host)
    try:
        target = f"/containers/{quote(service.container, safe='')}/json"
        status, body = await get((reader, writer), "docker", target, MAX_DESCRIPTION)
    finally:
        writer.transport.abort()
    return verdict_of(status, body)


async def _connect(url: str) -> Streams:
    if url.startswith("unix://"):
        return await asyncio.open_unix_connection(url.removeprefix("unix://"))
    parts = urlsplit(url)
    host: Any = (parts.hostname or "").encode()
    return await asyncio.open_connection(host, parts.port or TCP_PORT)


def verdict_of(status: int, body: bytes) -> Verdict:
    """The verdict in Docker's answer to an inspection.

    https://docs.docker.com/reference/api/engine: `State.Health.Status` is none, starting,
    healthy or unhealthy; there is no `Health` without a HEALTHCHECK.
    """
    document = _object(body)
    if status != 200:
        return Unhealthy(f"Docker answered {status}: {document.get('message', '')}")
    state = _dict(document.get("State"))
    if state.get("Status") != "running":
        return Unhealthy(f"the container is {state.get('Status', 'in no state')}")
    health = _dict(state.get("Health"))
    match health.get("Status"):
        case "healthy":
            return Healthy()
        case "unhealthy":
            return Unhealthy(f"HEALTHCHECK: {_last_output(health) or 'unhealthy'}")
        case "starting":
            return Unhealthy("HEALTHCHECK: starting")
    return Unhealthy("the container has no HEALTHCHECK")


def _last_output(health: dict[str, Any]) -> str:
    log = health.get("Log")
    last = _dict(log[-1]) if isinstance(log, list) and log else {}
    return str(last.get("Output") or "").strip()


def _object(body: bytes) -> dict[str, Any]:
    try:
        return _dict(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
