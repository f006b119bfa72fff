"""Changes as Server-Sent Events (HTML Living Standard, section 9.2): `id:` is the revision."""

import json
from typing import Any, Final

from registrar.journal import Entry, Reset
from registry.changes import InstanceDown, InstanceUp, RevisionRaised, ServiceForgotten
from registry.changes import ServiceSettings as Settings
from registry.model import as_document

COMMENT: Final = b":\n\n"
"""Keeps proxies from giving the connection up, and finds out whether somebody is still there."""

RETRY_MS: Final = 2000
"""After which a browser that lost the connection comes back."""


def opening(revision: int) -> bytes:
    """What a stream begins with: its listener knows everything up to *revision*.

    An id without data is no event, and is remembered all the same.
    """
    return f"retry: {RETRY_MS}\nid: {revision}\n\n".encode()


def event_of(entry: Entry) -> bytes:
    """*entry* as one event.  Names are folded, as they are matched, unless they say otherwise."""
    kind, content = _content(entry)
    data = json.dumps({"revision": str(entry.revision), **content})
    return f"id: {entry.revision}\nevent: {kind}\ndata: {data}\n\n".encode()


def _content(entry: Entry) -> tuple[str, dict[str, Any]]:
    match entry:
        case InstanceUp(instance):
            return "up", {
                "service": instance.service,
                "instance": instance.id,
                "service_name": instance.listed_as,
                "document": as_document(instance),
            }
        case InstanceDown(service, instance_id, reason):
            return "down", {"service": service, "instance": instance_id, "reason": reason}
        case ServiceForgotten(service):
            return "forgotten", {"service": service}
        case Settings(service, answers):
            return "settings", {"service": service, "answers": answers}
        case Reset() | RevisionRaised():
            # Either way what was known before may not hold: read it anew.
            return "reset", {}
