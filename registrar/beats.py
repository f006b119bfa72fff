"""POST /heartbeat: which leases are meant, whether they may be renewed, what came out of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from registrar import problems, selection
from registrar.access import Access
from registrar.batching import Renewals
from registrar.calls import Call, Reply, reply
from registrar.errors import AmbiguousHeartbeat, Forbidden, ViewNotReady
from registrar.reads import Reads
from registrar.requests import Beat, parse_heartbeats
from registrar.view import View
from registry.errors import CallboardError, InvalidInstance, LeaseNotFound, LeaseSuperseded
from registry.leases import Renewal, RenewalResult, Renewed
from registry.model import Instance


class _Asked(NamedTuple):
    """What one heartbeat asks for: instances to renew, or why it is refused.

    Neither: there is nothing to renew.  `beat` is None for what is no heartbeat.
    """

    beat: Beat | None
    targets: Sequence[Renewal]
    refusal: CallboardError | None


class Heartbeats:
    """Renews the leases that heartbeats mean."""

    def __init__(self, view: View, renewals: Renewals, reads: Reads, access: Access) -> None:
        self._view = view
        self._renewals = renewals
        self._reads = reads
        self._access = access

    async def heartbeat(self, call: Call) -> Reply:
        """POST /heartbeat: one, or a list of them."""
        beats, is_list = parse_heartbeats(call.body)
        asked = [self._asked(beat, call) for beat in beats]
        results = await self._renewals.renew([r for one in asked for r in one.targets])
        rest = iter(results)
        answers = [self._beaten(one, [next(rest) for _ in one.targets]) for one in asked]
        if is_list:
            listed = [_listed(one.beat, answer) for one, answer in zip(asked, answers, strict=True)]
            statuses = tuple(document["status"] for document in listed)
            return reply(200, {"results": listed}, outcomes=statuses)
        answer = answers[0]
        if isinstance(answer, CallboardError):
            raise answer
        return reply(200, answer)

    def _asked(self, beat: Beat | InvalidInstance, call: Call) -> _Asked:
        if isinstance(beat, InvalidInstance):
            return _Asked(None, (), beat)
        service = self._view.catalog.service(beat.service)
        try:
            owner = "" if service is None else service.owner
            self._access.require_name(call.who, beat.service, owner)
        except Forbidden as error:
            return _Asked(beat, (), error)
        if beat.instance:
            return _Asked(beat, (Renewal(beat.key, beat.lease_id),), None)
        instances = {} if service is None else service.instances
        targets = selection.heartbeat_targets(instances, call.caller)
        if isinstance(targets, selection.Ambiguous):
            return _Asked(beat, (), AmbiguousHeartbeat(beat.service, targets.ids))
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
        if asked.refusal is not None:
            return asked.refusal
        assert beat is not None, "whatever is no heartbeat is refused"
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
