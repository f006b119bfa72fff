"""`register`, `deregister` and `drain`: what one may do to instances by hand."""

import ipaddress
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from callboard.client import Registrar, near, path_of
from callboard.failure import NOT_FOUND, UNREACHABLE, WRONG_USAGE, Failure
from callboard.output import Result, columns

MAX_RETRY: Final = 60.0
"""Seconds between two attempts to reach a registrar that is away; the first comes after one."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What `register` was asked to register; None is left to the registrar."""

    service: str
    url: str
    instance: str | None = None
    priority: int | None = None
    weight: int | None = None
    lease_ttl: int | None = None
    version: str | None = None
    zone: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, str] | None = None
    health: str | None = None


def body_of(wish: Wish) -> dict[str, Any]:
    """The body of POST /register; a Failure when the URL is none we know."""
    optional = {
        "instance_id": wish.instance,
        "priority": wish.priority,
        "weight": wish.weight,
        "lease_ttl": wish.lease_ttl,
        "version": wish.version,
        "zone": wish.zone,
        "tags": list(wish.tags) or None,
        "metadata": dict(wish.metadata) if wish.metadata else None,
        "health_endpoint": wish.health,
    }
    given = {name: value for name, value in optional.items() if value is not None}
    return {"service_name": wish.service, **_place_of(wish.url), **given}


def _place_of(url: str) -> dict[str, Any]:
    """`http://…` is an endpoint; `tcp://HOST:PORT` and `udp://HOST:PORT` a port of that name."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Failure(f"URL {url!r}: {error}", status=WRONG_USAGE) from error
    if parts.scheme in ("http", "https") and host:
        return {"endpoint": parts.geturl()}
    if parts.scheme in ("tcp", "udp") and host and port:
        ports = {parts.scheme: {"port": port, "protocol": parts.scheme}}
        return {"address" if _is_address(host) else "host": host, "ports": ports}
    raise Failure(
        f"URL {url!r} is none of http://HOST[:PORT], https://HOST[:PORT], tcp://HOST:PORT,"
        " udp://HOST:PORT",
        status=WRONG_USAGE,
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def register(registrar: Registrar, wish: Wish, *, keeping: bool = False) -> Result:
    """Register once; the notes say how long that lasts."""
    granted = registrar.call("POST", "/register", body_of(wish)).document
    return _granted(granted, _how_long(granted, keeping))


def _granted(document: Mapping[str, Any], notes: Sequence[str]) -> Result:
    found = document["names"]
    row = (
        document["service_name"],
        document["instance_id"],
        found["service"],
        ",".join(found["srv"]),
    )
    return Result(
        document=document,
        names=[document["instance_id"]],
        table=columns(("SERVICE", "INSTANCE", "NAME", "SRV"), [row]),
        wide=columns(
            ("SERVICE", "INSTANCE", "NAME", "SRV", "INSTANCE-NAME", "LEASE", "LEASE-ID"),
            [(*row, found["instance"], f"{document['lease_ttl']}s", document["lease_id"])],
        ),
        notes=notes,
    )


def _how_long(granted: Mapping[str, Any], keeping: bool) -> list[str]:
    name, instance = granted["service_name"], granted["instance_id"]
    if keeping:
        return [f"renewed every {granted['heartbeat_interval']} s; Ctrl-C deregisters"]
    if granted["lease_ttl"] == 0:
        return [f"it stays until `callboard deregister {name} {instance}`"]
    return [
        f"it leaves after {granted['lease_ttl']} s unless renewed: repeat the command with --keep,"
        " or run a sidecar beside the service;"
        f" with --static it stays until `callboard deregister {name} {instance}`"
    ]


def keep(
    registrar: Registrar, wish: Wish, granted: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Keep a registration alive until Ctrl-C or SIGTERM, then take it back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _renew_for_ever(registrar, wish, granted, say)
    except KeyboardInterrupt:
        _take_back(
            registrar,
            path_of("services", granted["service_name"], "instances", granted["instance_id"]),
        )
        say("deregistered")


def _take_back(registrar: Registrar, path: str) -> None:
    try:
        registrar.call("DELETE", path)
    except Failure as failure:
        if failure.status != NOT_FOUND:
            raise


def _renew_for_ever(
    registrar: Registrar, wish: Wish, granted: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Renew in the registrar's own interval; register again when it has forgotten us."""
    lost = False
    wait = interval = float(granted["heartbeat_interval"])
    beat = {"service_name": granted["service_name"], "instance_id": granted["instance_id"]}
    while True:
        time.sleep(wait)
        try:
            _renew(registrar, wish, beat, say)
        except Failure as failure:
            if failure.status != UNREACHABLE:
                raise
            wait = min(2 * wait, MAX_RETRY) if lost else 1.0
            if not lost:
                say(f"{failure}; trying again")
            lost = True
            continue
        if lost:
            say("the registrar is back, and the lease renewed")
        lost, wait = False, interval


def _renew(
    registrar: Registrar, wish: Wish, beat: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    try:
        registrar.call("POST", "/heartbeat", beat)
    except Failure as failure:
        if failure.status != NOT_FOUND:
            raise
        registrar.call("POST", "/register", body_of(wish))
        say("the lease was gone; registered again")


def deregister(registrar: Registrar, name: str, instance: str | None) -> Result:
    """Take an instance away, or every one of a service; a Failure when there is none."""
    there = _instances_of(registrar, name)
    if instance is None:
        gone = there
        registrar.call("DELETE", path_of("deregister", name))
    else:
        gone = [instance]
        _on_instance(registrar, "DELETE", name, instance, there)
    return _acted(name, gone, "deregistered")


def set_state(
    registrar: Registrar, name: str, instance: str | None, state: str, reason: str | None
) -> Result:
    """Give an instance a state; its service's only one where *instance* is None."""
    there = _instances_of(registrar, name)
    if instance is None:
        if len(there) > 1:
            raise Failure(
                f"service {name!r} has {len(there)} instances; say which: {', '.join(there)}",
                status=WRONG_USAGE,
            )
        instance = there[0]
    wanted = {"state": state} | ({"reason": reason} if reason else {})
    _on_instance(registrar, "PUT", name, instance, there, wanted)
    return _acted(name, [instance], state)


def _instances_of(registrar: Registrar, name: str) -> list[str]:
    try:
        document = registrar.get(path_of("services", name)).document
    except Failure as failure:
        raise registrar.missing(name) if failure.status == NOT_FOUND else failure from None
    return [i["instance_id"] for i in document["instances"]]


def _on_instance(
    registrar: Registrar,
    method: str,
    name: str,
    instance: str,
    there: Sequence[str],
    body: Mapping[str, Any] | None = None,
) -> None:
    path = path_of("services", name, "instances", instance)
    path += "/state" if body is not None else ""
    try:
        registrar.call(method, path, body)
    except Failure as failure:
        if failure.status != NOT_FOUND:
            raise
        found = near(instance, there) or there
        raise Failure(
            f"service {name!r} has no instance {instance!r}",
            status=NOT_FOUND,
            hints=(f"did you mean {' or '.join(found[:3])}?",),
        ) from None


def _acted(name: str, instances: Sequence[str], what: str) -> Result:
    table = columns(("SERVICE", "INSTANCE", "STATE"), [(name, i, what) for i in instances])
    return Result(
        document={"service_name": name, "instances": list(instances), "state": what},
        names=list(instances),
        table=table,
        wide=table,
    )
