"""The gateway's own answers to a call: problems and pages, with the request's id."""

import json
from email.utils import formatdate
from math import ceil

from resolver_gateway import problems
from resolver_gateway.call import Call


def problem(
    call: Call,
    status: int,
    cause: str,
    detail: str,
    keep: bool,
    retry_after: float | None,
    further: dict[str, object],
) -> bytes:
    """A problem as the answer to *call*."""
    request_id = call.request_id.decode()
    fields = {"X-Request-Id": request_id}
    if status in problems.RETRY_STATUSES:
        fields["Retry-After"] = str(max(1, ceil(retry_after or 1.0)))
    if status == 405:
        fields["Allow"] = "GET, HEAD"
    return problems.response(
        status,
        problems.body(status, cause, detail, request_id=request_id, **further),
        cause=cause,
        keep=keep,
        date=formatdate(usegmt=True),
        fields=fields,
        head_only=call.head.method == b"HEAD",
    )


def page(call: Call, status: int, content: bytes, keep: bool) -> bytes:
    """A page of our own as the answer to *call*."""
    return problems.response(
        status,
        content,
        media_type="application/json",
        keep=keep,
        date=formatdate(usegmt=True),
        fields={"X-Request-Id": call.request_id.decode(), "Cache-Control": "no-store"},
        head_only=call.head.method == b"HEAD",
    )


def to_json(document: object) -> bytes:
    """*document* as the body of a page."""
    return (json.dumps(document) + "\n").encode()


def server_timing(call: Call, now: float) -> bytes:
    """The `Server-Timing` line of an answer that begins *now*: what went by before it, in ms.

    `queue`, `dns` and `connect` where it waited for them, `upstream` from the last time the request
    went out, `total` from the end of its head.
    """
    spent = dict(call.spent or {})
    if call.sent_at:
        spent["upstream"] = now - call.sent_at
    spent["total"] = now - call.began
    told = ", ".join(f"{what};dur={seconds * 1000:.1f}" for what, seconds in spent.items())
    return f"Server-Timing: {told}\r\n".encode()
