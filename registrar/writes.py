"""The calls that change something: understand it, see whether it is allowed, ask the store, say
what came out.  Nothing here knows HTTP's bytes; app.py makes problems of errors raised here."""

import secrets
from dataclasses import replace
from typing import Any

from registrar import audit
from registrar.access import Access
from registrar.calls import Call, Reply, reply
from registrar.errors import Forbidden, LimitReached
from registrar.gate import Gate
from registrar.holdings import Holdings
from registrar.hosts import Found
from registrar.lookups import Lookups
from registrar.metrics import Metrics
from registrar.reads import Reads
from registrar.registrations import RegistrationRequest, Rules, parse_registration
from registrar.requests import parse_settings, parse_state
from registrar.view import View
from registry import names
from registry.catalog import Service
from registry.errors import (
    InvalidInstance,
    LeaseNotFound,
    LeaseSuperseded,
    OwnedByAnother,
    Problem,
)
from registry.leases import LeaseStore
from registry.model import Instance, Registration

MAX_SERVICES = 20_000
"""Known at once.  Each costs dnsd some 5 KB once it is asked for."""

MAX_INSTANCES = 5_000
"""Of one service.  An answer of all of them would not fit into any DNS message long before."""

MAX_SETTINGS = 20_000
"""Services with settings, which stay when the service goes."""

REACH_SECONDS = 0.5
"""That a write waits until this registrar's own reads show it; a change takes a few ms."""


class Writes:
    """The calls that change something, over one store and one view of it."""

    def __init__(
        self,
        rules: Rules,
        store: LeaseStore,
        gate: Gate,
        view: View,
        reads: Reads,
        lookups: Lookups,
        access: Access,
        holdings: Holdings,
        metrics: Metrics,
    ) -> None:
        self._rules = rules
        self._store = store
        self._gate = gate
        self._view = view
        self._reads = reads
        self._lookups = lookups
        self._access = access
        self._holdings = holdings
        self._metrics = metrics

    # --- register -----------------------------------------------------------------------

    async def register(self, call: Call) -> Reply:
        """POST /register: a lease, once the store has it."""
        wanted = parse_registration(call.body, self._rules, call.caller)
        service = self._view.catalog.service(wanted.registration.service)
        owner = "" if service is None else service.owner
        self._access.require_name(call.who, wanted.registration.service, owner)
        wanted = _owned(wanted, call, service)
        _require_no_rival(wanted, service)
        is_new = _is_new(wanted.registration, service)
        self._require_room(service, is_new)
        new_service = service is None or not service.owner
        with self._holdings.room(call.who, new_service=new_service, new_instance=is_new):
            self._gate.require()
            try:
                granted = await self._gate(
                    self._store.register(
                        wanted.registration,
                        lease_id=secrets.token_hex(8),
                        generation=wanted.generation,
                        found=await self._found(wanted),
                        state=wanted.state,
                        reason=wanted.reason,
                    )
                )
            except OwnedByAnother as error:
                # The message of the store names the owner, who is nobody's business.
                raise Forbidden(
                    f"the name {wanted.registration.service!r} belongs to another token"
                ) from error
            await self._view.reached(granted.instance.revision, REACH_SECONDS)
        self._reads.renewed(granted.instance, wanted.registration.lease_ttl)
        if granted.changed:
            what = "instance registered" if granted.created else "instance changed"
            self._said(what, call, wanted.registration.key, granted.instance.revision)
        return reply(201 if granted.created else 200, self._granted(granted.instance))

    def _require_room(self, service: Service | None, is_new: bool) -> None:
        if service is None:
            if len(self._view.catalog) >= MAX_SERVICES:
                raise LimitReached("services", f"{MAX_SERVICES} services are known already")
        elif is_new and len(service.instances) >= MAX_INSTANCES:
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

    # --- deregister ---------------------------------------------------------------------

    async def deregister(self, call: Call) -> Reply:
        """DELETE /deregister/{service}: every instance of it; also 200 when there is none."""
        service = call.names["service"]
        if names.problem_of_service(service.lower()) is None:
            folded = names.fold(service)
            await self._require_name(call, folded)
            ids = tuple(self._view.catalog.instances(folded))
            removed, revision = await self._gate(self._store.deregister_service(folded, ids))
            await self._view.reached(revision, REACH_SECONDS)
            if removed:
                self._said("service deregistered", call, folded, revision, instances=removed)
        return reply(200, {"message": "Service deregistered", "service_name": service})

    async def deregister_instance(self, call: Call) -> Reply:
        """DELETE /services/{service}/instances/{id}, if `lease_id` (when given) is current."""
        key = await self._key(call)
        lease_id = dict(call.query).get("lease_id")
        was_there, revision = await self._gate(self._store.deregister(key, lease_id=lease_id))
        await self._view.reached(revision, REACH_SECONDS)
        if not was_there:
            raise LeaseNotFound(f"there is no instance {key}")
        self._said("instance deregistered", call, key, revision)
        document = {
            "message": "Instance deregistered",
            "service_name": call.names["service"],
            "instance_id": call.names["instance"],
            "revision": str(revision),
        }
        return reply(200, document)

    # --- state and settings ---------------------------------------------------------------

    async def set_state(self, call: Call) -> Reply:
        """PUT /services/{service}/instances/{id}/state."""
        key = await self._key(call)
        wanted = parse_state(call.body)
        try:
            instance = await self._gate(
                self._store.set_state(key, wanted.state, wanted.reason, expected=None)
            )
        except LeaseNotFound as error:
            raise LeaseNotFound(f"there is no instance {key}") from error
        await self._view.reached(instance.revision, REACH_SECONDS)
        self._metrics.state_set(wanted.state)
        self._said("state set", call, key, instance.revision, state=instance.state)
        document = {
            "message": "State set",
            "service_name": instance.listed_as,
            "instance_id": instance.registration.instance,
            "state": instance.state,
            "reason": instance.reason or None,
            "revision": str(instance.revision),
        }
        return reply(200, document)

    async def set_settings(self, call: Call) -> Reply:
        """PUT /services/{service}/settings."""
        service = call.names["service"].lower()
        unknown = LeaseNotFound(f"no service {service[:64]!r} is known")
        if names.problem_of_service(service) is not None:
            raise unknown
        folded, catalog = names.fold(service), self._view.catalog
        known = catalog.service(folded)
        await self._require_name(call, folded)
        answers = parse_settings(call.body)
        if answers and catalog.settings_count >= MAX_SETTINGS and not (known and known.answers):
            raise LimitReached("settings", f"{MAX_SETTINGS} services have settings already")
        try:
            revision = await self._gate(self._store.set_answers(folded, answers))
        except LeaseNotFound as error:
            raise unknown from error
        await self._view.reached(revision, REACH_SECONDS)
        self._said("settings set", call, folded, revision, answers=answers)
        document = {
            "message": "Settings set",
            "service_name": call.names["service"],
            "answers": answers,
            "revision": str(revision),
        }
        return reply(200, document)

    # --- steps ----------------------------------------------------------------------------

    async def _require_name(self, call: Call, service: str) -> None:
        """Forbidden unless the token of *call* may change *service* (folded).

        The store says whose it is: this registrar may not have heard of it yet.
        """
        if call.who is not None:
            self._access.require_name(call.who, service, "")
            owner = await self._gate(self._store.owner_of(service))
            self._access.require_name(call.who, service, owner)

    async def _key(self, call: Call) -> str:
        """The key of the instance in the path of *call*, which its token may change.

        Names that nobody can have are unknown ones.
        """
        service, instance = call.names["service"].lower(), call.names["instance"].lower()
        for name in (service, instance):
            if names.problem_of_service(name) is not None:
                raise LeaseNotFound(f"there is no instance {service[:64]}/{instance[:64]}")
        await self._require_name(call, names.fold(service))
        return f"{names.fold(service)}/{names.fold(instance)}"

    def _said(self, what: str, call: Call, name: str, revision: int, **more: Any) -> None:
        audit.say(what, call, name=name, revision=revision, **more)


def _require_no_rival(wanted: RegistrationRequest, service: Service | None) -> None:
    """What does not serve takes no place of what does, somewhere else, under the same id."""
    if wanted.state == "serving" or service is None:
        return
    there = service.instances.get(names.fold(wanted.registration.instance))
    if (
        there is not None
        and there.in_dns
        and _place(there.registration) != _place(wanted.registration)
    ):
        raise LeaseSuperseded(
            f"{wanted.registration.key} serves from {there.endpoint}; an instance elsewhere that"
            f" begins as {wanted.state} does not replace it"
        )


def _place(registration: Registration) -> tuple[object, ...]:
    return registration.addresses, registration.host, registration.ports


def _is_new(registration: Registration, service: Service | None) -> bool:
    return service is None or names.fold(registration.instance) not in service.instances


def _owned(wanted: RegistrationRequest, call: Call, service: Service | None) -> RegistrationRequest:
    """*wanted* with its owner: the holder of the token, or whose name it is (for operators)."""
    if call.who is None:
        return wanted
    owner = (service.owner if service is not None else "") or call.who.name
    return replace(wanted, registration=replace(wanted.registration, owner=owner))
