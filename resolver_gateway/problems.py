"""What the gateway itself answers: problems as RFC 9457 has them, with the cause in one word."""

import json
from http import HTTPStatus
from typing import Any

RETRY_STATUSES = frozenset({429, 503})


def body(status: int, cause: str, detail: str, **further: Any) -> bytes:
    """The JSON document of a problem; *further* members beside the standard ones."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "cause": cause,
        **further,
    }
    return (json.dumps(document) + "\n").encode()


def response(
    status: int,
    content: bytes,
    *,
    cause: str = "",
    media_type: str = "application/problem+json",
    keep: bool,
    date: str,
    fields: dict[str, str] | None = None,
    head_only: bool = False,
) -> bytes:
    """A whole response of our own, ready to be sent."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Date: {date}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(content)}",
    ]
    if cause:
        lines.append(f"X-Callboard-Error: {cause}")
    lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
    if not keep:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if head_only else head + content
