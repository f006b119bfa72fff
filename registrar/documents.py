"""Instances and services as GET shows them, from the catalog and the lease times."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registrar import selection
from registrar.selection import Rng
from registry.model import Instance, as_document


@dataclass(frozen=True, slots=True)
class LeaseTime:
    """When a lease ends, as far as it was known at *asked_at* (Unix time, as all shown times).

    `remaining` is in seconds; None when it is unknown, or there is no lease.
    """

    asked_at: float
    remaining: float | None


def presumed(instance: Instance) -> LeaseTime:
    """The lease time of an instance of which none is known: as when it was registered."""
    lease = instance.registration.lease_ttl
    return LeaseTime(instance.registered_at_ms / 1000, lease if lease else None)


def instance_document(instance: Instance, lease: LeaseTime, now: float) -> dict[str, Any]:
    """One instance with its lease times, which may be some seconds old."""
    document = as_document(instance)
    ttl = instance.registration.lease_ttl
    if lease.remaining is None:
        document["last_heartbeat"] = document["registered_at"]
        document["ttl_remaining"] = 0
        return document
    # expires_at = last renewal + ttl, both in the store's time.
    renewed_at = lease.asked_at + lease.remaining - ttl
    document["last_heartbeat"] = max(document["registered_at"], round(renewed_at, 3))
    document["ttl_remaining"] = max(0, round(lease.asked_at + lease.remaining - now))
    return document


@dataclass(frozen=True, slots=True)
class RenderedService:
    """The document of a service as JSON text, open at its representative.

    `heads` holds the beginning for each candidate, `cumulative` by which of them is drawn.
    """

    heads: tuple[str, ...]
    cumulative: tuple[float, ...]
    instances: str

    def text(self, rng: Rng, stale: bool) -> str:
        """The whole document; the representative is drawn as a client of DNS would."""
        head = self.heads[selection.pick(self.cumulative, rng)]
        return f'{head}"stale": true, {self.instances}' if stale else head + self.instances


def render_service(
    name: str, instances: Sequence[Instance], leases: Mapping[str, LeaseTime], now: float
) -> RenderedService:
    """*instances* (at least one) of the service listed as *name*; *leases* by folded id."""
    documents = {
        i.id: instance_document(i, leases.get(i.id) or presumed(i), now)
        for i in sorted(instances, key=lambda i: i.id)
    }
    candidates = selection.candidates(instances)
    heads = tuple(_head(name, documents[c.id]) for c in candidates)
    weights = [c.registration.weight for c in candidates]
    return RenderedService(
        heads,
        selection.cumulative_weights(weights),
        f'"instances": {json.dumps(list(documents.values()))}}}',
    )


def _head(name: str, representative: Mapping[str, Any]) -> str:
    fields = "endpoint health_endpoint metadata registered_at last_heartbeat ttl_remaining".split()
    document = {"service_name": name, **{field: representative[field] for field in fields}}
    return json.dumps(document)[:-1] + ", "


def matches(instance: Instance, filters: Mapping[str, Sequence[str]]) -> bool:
    """Whether *instance* has every tag, version, zone and state that is asked for."""
    r = instance.registration
    return (
        all(tag in r.tags for tag in filters["tag"])
        and all(version == r.version for version in filters["version"])
        and all(zone == r.zone for zone in filters["zone"])
        and all(state == instance.state for state in filters["state"])
    )
