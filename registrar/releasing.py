"""An operator ends what a guard holds: the call behind `callboard guard release NAME`."""

from registrar import audit
from registrar.access import Access
from registrar.calls import Call, Reply, reply
from registrar.gate import Gate
from registrar.view import View
from registry import names
from registry.errors import LeaseNotFound
from registry.leases import LeaseStore

REACH_SECONDS = 0.5
"""That a write waits until this registrar's own reads show it; a change takes a few ms."""


class Releasing:
    """Lets the suspects of a service go, over one store and one view of it."""

    def __init__(self, store: LeaseStore, gate: Gate, view: View, access: Access) -> None:
        self._store = store
        self._gate = gate
        self._view = view
        self._access = access

    async def release(self, call: Call) -> Reply:
        """POST /guard/{service}/release: evict its suspects, and let no guard hold it for a while.

        404 when the service is not known.
        """
        service = call.names["service"].lower()
        unknown = LeaseNotFound(f"no service {service[:64]!r} is known")
        if names.problem_of_service(service) is not None:
            raise unknown
        folded = names.fold(service)
        known = self._view.catalog.service(folded)
        self._access.require_name(call.who, folded, "" if known is None else known.owner)
        instances = {} if known is None else known.instances
        ids = [i for i, instance in instances.items() if instance.state == "suspect"]
        try:
            evicted, revision = await self._gate(self._store.release_guard(folded, ids))
        except LeaseNotFound as error:
            raise unknown from error
        await self._view.reached(revision, REACH_SECONDS)
        audit.say("guard released", call, name=folded, revision=revision, evicted=evicted)
        document = {
            "message": "Guard released",
            "service_name": call.names["service"],
            "evicted": evicted,
            "revision": str(revision),
        }
        return reply(200, document)
