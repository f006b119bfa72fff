"""Each call of the API in one step: understand it, ask the store, say what came out.

Nothing here knows HTTP's bytes; app.py turns requests into `Call` and `Reply`
into responses, and errors that are raised here into problems.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from registrar import problems, schema, selection
from registrar.batching import Renewals
from registrar.errors import AmbiguousHeartbeat, LimitReached, ServiceNotFound, ViewNotReady
from registrar.gate import Gate
from registrar.hosts import Found
from registrar.lookups import Lookups
from registrar.metrics import Metrics
from registrar.reads import Reads
from registrar.schema import Beat, RegistrationRequest, Rules
from registrar.view import View
from registry import names
from registry.catalog import Service
from registry.errors import (
    CallboardError,
    InvalidInstance,
    LeaseNotFound,
    LeaseSuperseded,
    Problem,
)
from registry.leases import LeaseStore, Renewal, RenewalResult, Renewed
from registry.model import STATES, Instance, Registration

MAX_SERVICES = 20_000
"""Known at once.  Each costs dnsd some 5 KB once it is asked for."""

MAX_INSTANCES = 5_000
"""Of one service.  An answer of all of them would not fit into any DNS message long before."""

REACH_SECONDS = 0.5
"""That a write waits until this registrar's own reads show it; a change takes a few ms."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request: the caller's address, the names in its path, its query, its body as JSON."""

    caller: str
    names: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    body: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.  `outcomes` are the statuses to count, when there are several in one."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    outcomes: tuple[int, ...] | None = None


class _Asked(NamedTuple):
    """What one heartbeat asks for: instances to renew, or why there is nothing to renew."""

    beat: Beat | None
    targets: Sequence[Renewal]
    refusal: CallboardError | None


class Handlers:
    """The calls of the API over one store and one view of it."""

    def __init__(
        self,
        rules: Rules,
        store: LeaseStore,
        gate: Gate,
        view: View,
        renewals: Renewals,
        reads: Reads,
        lookups: Lookups,
        metrics: Metrics,
    ) -> None:
        self._rules = rules
        self._store = store
        self._gate = gate
        self._view = view
        self._renewals = renewals
        self._reads = reads
        self._lookups = lookups
        self._metrics = metrics

    # --- register -----------------------------------------------------------------------

    async def register(self, call: Call) -> Reply:
        """POST /register: a lease, once the store has it."""
        wanted = schema.parse_registration(call.body, self._rules, call.caller)
        self._require_room(wanted.registration)
        self._gate.require()
        granted = await self._gate(
            self._store.register(
                wanted.registration,
                lease_id=secrets.token_hex(8),
                generation=wanted.generation,
                found=await self._found(wanted),
            )
        )
        await self._view.reached(granted.instance.revision, REACH_SECONDS)
        self._reads.renewed(granted.instance, wanted.registration.lease_ttl)
        return _reply(201 if granted.created else 200, self._granted(granted.instance))

    def _require_room(self, registration: Registration) -> None:
        catalog = self._view.catalog
        service = catalog.service(registration.service)
        if service is None:
            if len(catalog) >= MAX_SERVICES:
                raise LimitReached("services", f"{MAX_SERVICES} services are known already")
        elif (
            len(service.instances) >= MAX_INSTANCES
            and names.fold(registration.instance) not in service.instances
        ):
            raise LimitReached("instances", f"{service.name} has {MAX_INSTANCES} instances already")

    async def _found(self, wanted: RegistrationRequest) -> tuple[str, ...]:
        """The addresses of the host, for an instance that has one.

        They come with the registration, so that it need not be without for a moment.
        """
        registration = wanted.registration
        if not registration.host:
            return ()
        # 1. It was there before with this host: what is believed of it stays.
        # 2. It has addresses beside the host: the look-ups come to it within a second.
        # 3. It has nothing else: the first look-up is waited for.
        instances = self._view.catalog.instances(registration.service)
        before = instances.get(names.fold(registration.instance))
        if before is not None and before.registration.host == registration.host and before.found:
            return before.found
        if registration.addresses:
            return ()
        answer = await self._lookups.first(registration.host)
        if not isinstance(answer, Found):
            return ()
        if answer.refused and not answer.addresses:
            refused = ", ".join(answer.refused)
            raise InvalidInstance(
                [
                    Problem(
                        wanted.host_field,
                        f"{registration.host!r} resolves to {refused}: loopback, link-local and"
                        " similar addresses may not be registered (--allow-endpoints)",
                    )
                ]
            )
        return answer.addresses

    def _granted(self, instance: Instance) -> dict[str, Any]:
        r, zone = instance.registration, self._rules.zones[0]
        return {
            "message": "Service registered successfully",
            "service_name": r.service,
            "instance_id": r.instance,
            "lease_id": instance.lease_id,
            "lease_ttl": r.lease_ttl,
            "heartbeat_interval": max(1, r.lease_ttl * 5 // 12),
            "revision": str(instance.revision),
            "names": {
                "service": names.service_owner(r.service, zone),
                "srv": [names.srv_owner(p.name, p.protocol, r.service, zone) for p in r.ports],
                "instance": names.instance_owner(r.instance, r.service, zone),
            },
        }

    # --- heartbeat ----------------------------------------------------------------------

    async def heartbeat(self, call: Call) -> Reply:
        """POST /heartbeat: one, or a list of them."""
        beats, is_list = schema.parse_heartbeats(call.body)
        asked = [self._asked(beat, call.caller) for beat in beats]
        results = await self._renewals.renew([r for one in asked for r in one.targets])
        rest = iter(results)
        answers = [self._beaten(one, [next(rest) for _ in one.targets]) for one in asked]
        if is_list:
            listed = [_listed(one.beat, answer) for one, answer in zip(asked, answers, strict=True)]
            statuses = tuple(document["status"] for document in listed)
            return _reply(200, {"results": listed}, statuses)
        answer = answers[0]
        if isinstance(answer, CallboardError):
            raise answer
        return _reply(200, answer)

    def _asked(self, beat: Beat | InvalidInstance, caller: str) -> _Asked:
        if isinstance(beat, InvalidInstance):
            return _Asked(None, (), beat)
        if beat.instance:
            return _Asked(beat, (Renewal(beat.key, beat.lease_id),), None)
        instances = self._view.catalog.instances(beat.service)
        targets = selection.heartbeat_targets(instances, caller)
        if isinstance(targets, selection.Ambiguous):
            return _Asked(beat, (), AmbiguousHeartbeat(beat.service, targets.ids))
        if not targets:
            return _Asked(beat, (), LeaseNotFound())
        if beat.lease_id is not None:
            # The lease says which of several is meant; when none has it, all refuse it.
            targets = tuple(t for t in targets if t.lease_id == beat.lease_id) or targets
        return _Asked(
            beat, tuple(Renewal(t.registration.key, beat.lease_id) for t in targets), None
        )

    def _beaten(
        self, asked: _Asked, results: Sequence[RenewalResult]
    ) -> dict[str, Any] | CallboardError:
        """The answer to one heartbeat: that of its instance with the least time left."""
        beat = asked.beat
        if beat is None or isinstance(asked.refusal, AmbiguousHeartbeat):
            assert asked.refusal is not None
            return asked.refusal
        renewed = [
            (result.ttl, renewal.key)
            for renewal, result in zip(asked.targets, results, strict=True)
            if isinstance(result, Renewed)
        ]
        for ttl, key in renewed:
            self._note(key, ttl)
        if renewed:
            ttl, key = min(renewed)
            return {
                "message": "Heartbeat received",
                "service_name": beat.service,
                "instance_id": beat.instance or self._listed_id(key),
                "ttl_remaining": int(ttl),
            }
        if any(isinstance(result, LeaseSuperseded) for result in results):
            return LeaseSuperseded(
                f"the lease_id is not the current one of {_shown(beat)}:"
                " another process has registered it since"
            )
        if not self._view.current:
            return ViewNotReady(
                f"{_shown(beat)} is not known here, but this registrar is not up to date"
                f" ({self._view.error or 'loading'}); come back"
            )
        return LeaseNotFound(f"{_shown(beat)} has no lease, or it has expired; register again")

    def _note(self, key: str, ttl: float) -> None:
        instance = self._instance(key)
        if instance is not None:
            self._reads.renewed(instance, ttl)

    def _listed_id(self, key: str) -> str:
        instance = self._instance(key)
        return key.partition("/")[2] if instance is None else instance.registration.instance

    def _instance(self, key: str) -> Instance | None:
        service, _, instance_id = key.partition("/")
        return self._view.catalog.instances(service).get(instance_id)

    # --- deregister ---------------------------------------------------------------------

    async def deregister(self, call: Call) -> Reply:
        """DELETE /deregister/{service}: every instance of it; also 200 when there is none."""
        service = call.names["service"]
        if names.problem_of_service(service.lower()) is None:
            folded = names.fold(service)
            ids = tuple(self._view.catalog.instances(folded))
            _, revision = await self._gate(self._store.deregister_service(folded, ids))
            await self._view.reached(revision, REACH_SECONDS)
        return _reply(200, {"message": "Service deregistered", "service_name": service})

    async def deregister_instance(self, call: Call) -> Reply:
        """DELETE /services/{service}/instances/{id}, if `lease_id` (when given) is current."""
        key = _key(call.names)
        lease_id = dict(call.query).get("lease_id")
        was_there, revision = await self._gate(self._store.deregister(key, lease_id=lease_id))
        await self._view.reached(revision, REACH_SECONDS)
        if not was_there:
            raise LeaseNotFound(f"there is no instance {key}")
        document = {
            "message": "Instance deregistered",
            "service_name": call.names["service"],
            "instance_id": call.names["instance"],
            "revision": str(revision),
        }
        return _reply(200, document)

    # --- state --------------------------------------------------------------------------

    async def set_state(self, call: Call) -> Reply:
        """PUT /services/{service}/instances/{id}/state."""
        key = _key(call.names)
        wanted = schema.parse_state(call.body)
        try:
            instance = await self._gate(
                self._store.set_state(key, wanted.state, wanted.reason, expected=None)
            )
        except LeaseNotFound as error:
            raise LeaseNotFound(f"there is no instance {key}") from error
        await self._view.reached(instance.revision, REACH_SECONDS)
        self._metrics.state_set(wanted.state)
        document = {
            "message": "State set",
            "service_name": instance.listed_as,
            "instance_id": instance.registration.instance,
            "state": instance.state,
            "reason": instance.reason or None,
            "revision": str(instance.revision),
        }
        return _reply(200, document)

    # --- reads --------------------------------------------------------------------------

    async def list_services(self, call: Call) -> Reply:
        """GET /services: names, or documents with `detail=true`; filters hold for instances."""
        self._require_loaded()
        filters = schema.filters_of(call.query)
        _require_states(filters["state"])
        if _is_detailed(call.query):
            shown = await self._reads.listing(filters)
            return Reply(200, f"[{', '.join(shown)}]".encode())
        if not any(filters.values()):
            return Reply(200, self._reads.names())
        matching = self._reads.matching(filters)
        return _reply(200, [service.name for service, _ in matching])

    async def get_service(self, call: Call) -> Reply:
        """GET /services/{service}."""
        self._require_loaded()
        name = call.names["service"]
        text = await self._reads.service(name)
        if text is None:
            raise ServiceNotFound(_not_listed(name, self._view.catalog.service(name)))
        return Reply(200, text.encode())

    def _require_loaded(self) -> None:
        if not self._view.loaded:
            raise ViewNotReady(
                f"the catalog is not loaded yet ({self._view.error or 'loading'}); come back"
            )


def _reply(status: int, document: Any, outcomes: tuple[int, ...] | None = None) -> Reply:
    return Reply(status, json.dumps(document).encode(), outcomes=outcomes)


def _listed(beat: Beat | None, answer: dict[str, Any] | CallboardError) -> dict[str, Any]:
    """One result of a list of heartbeats."""
    if not isinstance(answer, CallboardError):
        return {"status": 200, **answer}
    problem = problems.answer_to(answer)
    assert problem is not None, "every refusal of a heartbeat is in the table"
    document = problem.document()
    if beat is not None:
        document["service_name"] = beat.service
        document["instance_id"] = beat.instance or None
    return document


def _shown(beat: Beat) -> str:
    return f"{beat.service}/{beat.instance}" if beat.instance else beat.service


def _key(path_names: Mapping[str, str]) -> str:
    """The key of the instance that a path names; names that nobody can have are unknown ones."""
    service, instance = path_names["service"].lower(), path_names["instance"].lower()
    for name in (service, instance):
        if names.problem_of_service(name) is not None:
            raise LeaseNotFound(f"there is no instance {service[:64]}/{instance[:64]}")
    return f"{names.fold(service)}/{names.fold(instance)}"


def _not_listed(name: str, service: Service | None) -> str:
    if service is None:
        return f"no service {name[:64]!r} is registered"
    return f"the last instance of {service.name} has left"


def _require_states(states: Sequence[str]) -> None:
    for state in states:
        if state not in STATES:
            raise InvalidInstance(
                [Problem("state", f"{state[:40]!r} is not one of {', '.join(STATES)}")]
            )


def _is_detailed(query: Sequence[tuple[str, str]]) -> bool:
    detail = dict(query).get("detail", "false").lower()
    if detail not in ("true", "false"):
        raise InvalidInstance([Problem("detail", f"{detail[:40]!r} is not true or false")])
    return detail == "true"
