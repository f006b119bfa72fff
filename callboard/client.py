"""One registrar, asked over HTTP: answers as JSON, and every way to fail as a `Failure`.

`http.client` and not the parts' own client: `callboard ls` is over before asyncio is imported.
"""

import difflib
import http.client
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

from callboard.failure import FAILED, NOT_FOUND, UNREACHABLE, WRONG_USAGE, Failure

TIMEOUT: Final = 10.0
"""Seconds; a registration that has only a host name may wait 2 s for its look-up."""

MAX_ANSWER: Final = 64 << 20
"""Octets; a list of 100,000 instances with metadata stays below it."""

_STATUS: Final = {
    400: WRONG_USAGE,
    404: NOT_FOUND,
    413: WRONG_USAGE,
    422: WRONG_USAGE,
    502: UNREACHABLE,
    503: UNREACHABLE,
    504: UNREACHABLE,
}
"""HTTP status → exit status; 503 is the registrar's word for a store that is away."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer.

    *age* is how old it is in seconds while the registrar's store is away; *now* the registrar's
    clock when it answered, because ours may differ from the one that stamped the registrations.
    """

    document: Any
    now: float
    age: int | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person has to know about it."""
        if self.age is None:
            return ()
        return (f"warning: the registrar answers from memory, {self.age} s old: its store is away",)


def path_of(*segments: str) -> str:
    """`services`, `a b` → `/services/a%20b`."""
    return "".join("/" + quote(segment, safe="") for segment in segments)


def near(name: str, known: Iterable[str]) -> list[str]:
    """Those of *known* that *name* may have meant, nearest first; at most three."""
    folded = {other.lower().replace("_", "-"): other for other in known}
    close = difflib.get_close_matches(name.lower().replace("_", "-"), folded, n=3)
    return [folded[match] for match in close]


class Registrar:
    """Where to ask; a connection of its own for each call."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        parts = urlsplit(url)
        try:
            self._host, self._port = parts.hostname, parts.port
        except ValueError as error:
            raise Failure(f"registrar {url!r}: {error}", status=WRONG_USAGE) from error
        if parts.scheme not in ("http", "https") or not self._host:
            raise Failure(
                f"registrar {url!r} is not a URL such as http://127.0.0.1:8888", status=WRONG_USAGE
            )
        self.url = url.rstrip("/")
        self._secure = parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self._timeout = timeout

    def get(self, path: str) -> Answer:
        """GET *path*."""
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request; whatever is not a success is a Failure that says why."""
        status, headers, text = self._exchange(method, self._base + path, body)
        try:
            document = json.loads(text) if text else {}
        except ValueError:
            raise Failure(
                f"{self.url} answered {status} and no JSON: is that a registrar?",
                status=FAILED,
            ) from None
        if 200 <= status < 300:
            age = headers.get("age", "")
            whole = int(age) if age.isascii() and age.isdigit() else None
            return Answer(document, _time_of(headers.get("date")), whole)
        raise _refused(status, document, headers)

    def missing(self, service: str) -> Failure:
        """What to say about a service that is not listed, near names included."""
        known: list[str] = self.get("/services").document
        if found := near(service, known):
            hint = f"did you mean {' or '.join(found)}?"
        else:
            hint = "`callboard ls` lists what there is" if known else "no service is listed"
        return Failure(f"there is no service {service!r}", status=NOT_FOUND, hints=(hint,))

    def _exchange(
        self, method: str, target: str, body: Mapping[str, Any] | None
    ) -> tuple[int, dict[str, str], bytes]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        assert self._host is not None
        connection = kind(self._host, self._port, timeout=self._timeout)
        fields = {"accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            fields["content-type"] = "application/json"
        try:
            connection.request(method, target, data, fields)
            response = connection.getresponse()
            text = response.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        return response.status, {k.lower(): v for k, v in response.headers.items()}, text

    def _unreachable(self, error: Exception) -> Failure:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Failure(
            f"registrar {self.url} cannot be reached: {reason}",
            status=UNREACHABLE,
            hints=(
                "start everything on this machine with `callboard up`, or say where the registrar"
                " is with --registrar-url or CALLBOARD_REGISTRAR_URL",
            ),
        )


def _time_of(date: str | None) -> float:
    """A Date field as seconds since 1970; our own clock where it is missing or broken."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return time.time()


def _refused(status: int, document: Any, headers: Mapping[str, str]) -> Failure:
    """The failure behind a status that is no success (RFC 9457, if it is a registrar's)."""
    problem = document if isinstance(document, dict) else {}
    messages = [
        f"{error.get('field', '?')}: {error.get('message', '?')}"
        for error in problem.get("errors", ())
        if isinstance(error, dict)
    ]
    if not messages:
        reason = problem.get("detail") or problem.get("title")
        messages = [str(reason or f"the registrar answered {status}")]
    retry = headers.get("retry-after")
    return Failure(
        *messages,
        status=_STATUS.get(status, FAILED),
        hints=(f"try again in {retry} s",) if retry else (),
        problem=problem or None,
    )
