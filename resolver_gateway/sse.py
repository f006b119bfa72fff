"""A stream of Server-Sent Events, read (HTML Living Standard, section 9.2).

Any split of the bytes yields the same events.
"""

from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

MAX_EVENT: Final = 256 * 1024
"""Octets of one event: a registration has 64 KiB at most, and JSON may write each octet in six."""


class Event(NamedTuple):
    """One event: what it is called (`message` when it does not say), and its data."""

    kind: str
    data: str


class EventReader:
    """Fed bytes, yields events; *last_id* is what to resume with."""

    def __init__(self) -> None:
        self.last_id = ""
        self._held = b""
        self._size = 0
        self._kind = ""
        self._data: list[str] = []
        self._began = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that *data* completes; ValueError when one is longer than we take."""
        events: list[Event] = []
        data = self._held + data
        # A CR at the end may be half of a CRLF.
        whole = data[:-1] if data.endswith(b"\r") else data
        lines = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._held = lines.pop() + data[len(whole) :]
        for line in lines:
            self._size += len(line)
            if (event := self._line(line)) is not None:
                events.append(event)
            if self._size > MAX_EVENT:
                break
        if self._size + len(self._held) > MAX_EVENT:
            raise ValueError(f"an event has more than {MAX_EVENT} octets")
        return events

    def _line(self, line: bytes) -> Event | None:
        if not self._began:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._began = True
        if not line:
            return self._dispatch()
        name, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self.last_id = value
        return None

    def _dispatch(self) -> Event | None:
        """An empty line: the event is complete, unless it has no data."""
        event = Event(self._kind or "message", "\n".join(self._data)) if self._data else None
        self._kind = ""
        self._data = []
        self._size = 0
        return event


def url_of(url: str) -> SplitResult:
    """Where the stream is: `/events` below a URL that names no path.  ValueError: not HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{url!r} is not an http or https URL, such as http://registrar:8888")
    return parts._replace(path=parts.path if parts.path.strip("/") else "/events")
