"""Services in the shapes of Consul's HTTP API, for programs that know only those.

What they read is enough for the Consul providers of Prometheus and Traefik; there is no Consul
behind it: a node is an address, a check is an instance's state, and there is one datacenter.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from registry.model import Instance, default_port

DATACENTER: Final = "callboard"

STATUSES: Final[Mapping[str, str]] = {"serving": "passing", "suspect": "warning"}
"""Of an instance in DNS; in any other state it is critical, as one in maintenance is there."""

TAG_METADATA: Final = "traefik."
"""Metadata under such keys are given as tags `KEY=VALUE` too: Traefik reads its settings there,
and our tags have no room for them."""


STATES: Final = ("any", "passing", "warning", "critical")
"""What `/v1/health/state/{state}` may be asked for."""


def status_of(instance: Instance) -> str:
    """`passing`, `warning` or `critical`."""
    return STATUSES.get(instance.state, "critical") if instance.in_dns else "critical"


def tags_of(instance: Instance) -> list[str]:
    """Its tags, and its metadata for Traefik."""
    r = instance.registration
    settings = sorted(item for item in r.metadata.items() if item[0].startswith(TAG_METADATA))
    return [*r.tags, *(f"{key}={value}" for key, value in settings)]


def union_of_tags(instances: Iterable[Instance]) -> list[str]:
    """Every tag that one of *instances* has, sorted."""
    return sorted({tag for instance in instances for tag in tags_of(instance)})


def has_tags(instance: Instance, wanted: Iterable[str]) -> bool:
    """Whether *instance* has all of the tags *wanted*."""
    return set(wanted) <= set(tags_of(instance))


def health_entry(service: str, instance: Instance) -> dict[str, Any]:
    """One element of `/v1/health/service/{name}`."""
    address, number = _where(instance)
    return {
        "Node": _node(address),
        "Service": {
            "ID": instance.registration.instance,
            "Service": service,
            "Tags": tags_of(instance),
            "Address": address,
            "Meta": _meta(instance),
            "Port": number,
            "Weights": _weights(instance),
            "EnableTagOverride": False,
            "CreateIndex": instance.revision,
            "ModifyIndex": instance.revision,
        },
        "Checks": [check_of(service, instance)],
    }


def check_of(service: str, instance: Instance) -> dict[str, Any]:
    """The one check of an instance: its state."""
    address, _ = _where(instance)
    return {
        "Node": address,
        "CheckID": f"service:{instance.registration.instance}",
        "Name": "Callboard",
        "Status": status_of(instance),
        "Notes": "",
        "Output": instance.reason or instance.state,
        "ServiceID": instance.registration.instance,
        "ServiceName": service,
        "ServiceTags": tags_of(instance),
        "Type": "ttl",
        "CreateIndex": instance.revision,
        "ModifyIndex": instance.revision,
    }


def catalog_entry(service: str, instance: Instance) -> dict[str, Any]:
    """One element of `/v1/catalog/service/{name}`."""
    address, number = _where(instance)
    node = _node(address)
    return {
        "ID": node["ID"],
        "Node": node["Node"],
        "Address": node["Address"],
        "Datacenter": DATACENTER,
        "TaggedAddresses": node["TaggedAddresses"],
        "NodeMeta": node["Meta"],
        "ServiceID": instance.registration.instance,
        "ServiceName": service,
        "ServiceAddress": address,
        "ServicePort": number,
        "ServiceTags": tags_of(instance),
        "ServiceMeta": _meta(instance),
        "ServiceWeights": _weights(instance),
        "ServiceEnableTagOverride": False,
        "CreateIndex": instance.revision,
        "ModifyIndex": instance.revision,
    }


def agent_self(version: str) -> dict[str, Any]:
    """What `/v1/agent/self` says: Prometheus asks it for the datacenter."""
    name = "callboard-registrar"
    return {
        "Config": {
            "Datacenter": DATACENTER,
            "NodeName": name,
            "Server": True,
            "Version": version,
        },
        "Member": {"Name": name, "Tags": {"dc": DATACENTER, "role": "callboard"}},
    }


def _where(instance: Instance) -> tuple[str, int]:
    """Address and default port; the host's name while it has no address."""
    address = next(iter(instance.addresses), "") or instance.registration.host
    return address, default_port(instance.registration.ports).number


def _node(address: str) -> dict[str, Any]:
    return {
        "ID": "",
        "Node": address,
        "Address": address,
        "Datacenter": DATACENTER,
        "TaggedAddresses": {},
        "Meta": {},
    }


def _weights(instance: Instance) -> dict[str, int]:
    # Consul's least weight is 1; what has none gets it.
    return {"Passing": max(1, instance.registration.weight), "Warning": 1}


def _meta(instance: Instance) -> dict[str, str]:
    r = instance.registration
    given = {"version": r.version, "zone": r.zone}
    return {**{key: value for key, value in given.items() if value}, **r.metadata}
