"""Instances as targets of Prometheus' HTTP service discovery.

An instance gives one target: its port `metrics` if it has one, else its default port.  All states
are listed, because one wants to see what is ill; `__meta_callboard_state` tells them apart.
"""

import re
from typing import Final, TypedDict

from registry.model import Instance, Port, default_port

PREFIX: Final = "__meta_callboard_"

METRICS_PORT: Final = "metrics"


class TargetGroup(TypedDict):
    """What Prometheus takes: addresses with a port, and labels for them."""

    targets: list[str]
    labels: dict[str, str]


def target_of(service: str, instance: Instance, port_name: str = "") -> TargetGroup | None:
    """*instance* of the service listed as *service*; None when it has nothing to scrape.

    *port_name* asks for that port and no other.
    """
    port = _port_of(instance, port_name)
    where = next(iter(instance.addresses), "") or instance.registration.host
    if port is None or not where:
        return None
    host = f"[{where}]" if ":" in where else where
    return {"targets": [f"{host}:{port.number}"], "labels": _labels(service, instance, port)}


def _port_of(instance: Instance, port_name: str) -> Port | None:
    # Prometheus speaks HTTP, and nothing over UDP.
    ports = tuple(p for p in instance.registration.ports if p.protocol == "tcp")
    wanted = port_name or METRICS_PORT
    for port in ports:
        if port.name == wanted:
            return port
    return default_port(ports) if ports and not port_name else None


def _labels(service: str, instance: Instance, port: Port) -> dict[str, str]:
    r = instance.registration
    labels = {
        "service": service,
        "instance": r.instance,
        "address": next(iter(instance.addresses), ""),
        "host": r.host,
        "port": str(port.number),
        "port_name": port.name,
        "state": instance.state,
        "version": r.version,
        "zone": r.zone,
        "priority": str(r.priority),
        "weight": str(r.weight),
        "health_endpoint": r.health_endpoint,
        # Between commas, so that a rule can ask for ",canary," (as Prometheus' own do).
        "tags": f",{','.join(r.tags)}," if r.tags else "",
    }
    for key, value in sorted(r.metadata.items()):
        labels["metadata_" + re.sub("[^A-Za-z0-9_]", "_", key)] = value
    return {PREFIX + name: value for name, value in labels.items()}
