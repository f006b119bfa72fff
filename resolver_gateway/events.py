"""Hears from the registrar's `/events` which service changed, so that DNS is asked at once.

It only says *when* to ask: what is believed is still what DNS answers.  Without the stream,
changes are seen when TTLs end.
"""

import asyncio
import json
import random
import ssl
from collections.abc import Awaitable, Callable, Collection
from typing import Final
from urllib.parse import SplitResult

import h11

from registry.runtime import logs
from resolver_gateway.srv import Failed, reaches
from resolver_gateway.sse import Event, EventReader, url_of

CONNECT_SECONDS: Final = 5.0
SILENCE: Final = 45.0
"""Seconds without a byte after which the stream counts as lost: three of the registrar's
comments, which come every 15 s."""

READ_SIZE: Final = 65536

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 15.0
"""Seconds before the stream is asked for again, doubled each time, with jitter."""

DNS_WAIT: Final = 1.0
"""Seconds that DNS has to reach the revision of an event.  Servers have it some 50 ms later; a
resolver in between may show an old serial for longer, and then it is asked all the same."""

FIRST_LOOK: Final = 0.01
"""Seconds between two looks at the serial, doubled each time."""

MAX_PENDING: Final = 4096
"""Services that wait to be asked for; beyond it all names are."""

log = logs.get("gateway.events")


class StreamLost(Exception):
    """Why there is no stream, in words."""


class EventFollower:
    """The subscription: `run` it; `repr` says how it is doing."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        concerns: Callable[[Collection[str]], bool],
        changed: Callable[[Collection[str]], None],
        changed_all: Callable[[], None],
        serial: Callable[[], Awaitable[int | Failed]],
        tls: Callable[[], ssl.SSLContext],
    ) -> None:
        self._url = url_of(url)
        self._token = token
        self._concerns = concerns
        self._changed = changed
        self._changed_all = changed_all
        self._serial = serial
        self._tls = tls
        self._last_id = ""
        self._pending: set[str] = set()
        self._all_pending = False
        self._revision = 0
        """The greatest one of what is pending."""
        self._wake = asyncio.Event()
        self._stream = logs.Transition(log)
        self.received = 0
        """Events so far."""
        self.error = ""
        """Why the stream is lost; empty while it is not."""

    def __repr__(self) -> str:
        return f"<EventFollower {self.state}, {self.received} received, last id {self._last_id}>"

    def use_token(self, token: str) -> None:
        """Show this one from the next connection on."""
        self._token = token

    @property
    def state(self) -> str:
        """`connecting`, `following` or `lost`."""
        return self._stream.state or "connecting"

    @property
    def last_id(self) -> str:
        """The revision heard last."""
        return self._last_id

    async def run(self) -> None:
        """Follow for ever, and say what is heard."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._pass_on())

    # --- the stream

    async def _follow(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, EOFError, ValueError, StreamLost) as error:
                self.error = str(error) or type(error).__name__
            was_following = self.state == "following"
            self._stream.enter(
                "lost", "events lost", level="warning", error=self.error, going_by="TTLs"
            )
            pause = FIRST_PAUSE if was_following else min(pause * 2, LONGEST_PAUSE)
            await asyncio.sleep(pause * (0.5 + random.random() / 2))

    async def _listen(self) -> None:
        """One connection, from the request to its end."""
        secure = self._url.scheme == "https"
        host = self._url.hostname or ""
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                host,
                self._url.port or (443 if secure else 80),
                ssl=self._tls() if secure else None,
            )
        try:
            connection = h11.Connection(h11.CLIENT)
            writer.write(request_bytes(connection, self._url, self._last_id, self._token))
            await self._read(connection, reader)
        except h11.RemoteProtocolError as error:
            raise StreamLost(f"the answer is not HTTP: {error}") from error
        finally:
            writer.transport.abort()

    async def _read(self, connection: h11.Connection, reader: asyncio.StreamReader) -> None:
        events = EventReader()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(SILENCE):
                    connection.receive_data(await reader.read(READ_SIZE))
            elif isinstance(event, h11.Response):
                check(event)
                self.error = ""
            elif isinstance(event, h11.Data):
                for told in events.feed(bytes(event.data)):
                    self._heard(told)
                self._last_id = events.last_id or self._last_id
                self._stream.enter("following", "following events", revision=self._last_id)
            else:
                raise StreamLost("the registrar ended the stream")

    def _heard(self, event: Event) -> None:
        """Note which service an event is about; an event of unknown kind is about none."""
        self.received += 1
        try:
            told = json.loads(event.data)
        except ValueError:
            return
        if not isinstance(told, dict):
            return
        service, revision = told.get("service"), str(told.get("revision", ""))
        number = int(revision) if revision.isascii() and revision.isdigit() else 0
        if event.kind == "reset" or len(self._pending) >= MAX_PENDING:
            self._all_pending = True
        elif isinstance(service, str) and self._concerns([service]):
            self._pending.add(service)
        else:
            return
        self._revision = max(self._revision, number)
        self._wake.set()

    # --- from hearing to asking

    async def _pass_on(self) -> None:
        """Once DNS can know it too, ask for what changed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            everything, self._all_pending = self._all_pending, False
            pending, self._pending = self._pending, set()
            revision, self._revision = self._revision, 0
            await self._until_dns_has(revision)
            if everything:
                self._changed_all()
            else:
                self._changed(pending)

    async def _until_dns_has(self, revision: int) -> None:
        """Return when the serial, the low 32 bits of a revision, is there; or after DNS_WAIT."""
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + DNS_WAIT, FIRST_LOOK
        while True:
            serial = await self._serial()
            if not isinstance(serial, Failed) and reaches(serial, revision & 0xFFFFFFFF):
                return
            if loop.time() + pause > end:
                return
            await asyncio.sleep(pause)
            pause *= 2


def request_bytes(connection: h11.Connection, url: SplitResult, last_id: str, token: str) -> bytes:
    """The request for the stream, from after *last_id* on when there was one."""
    fields = {
        "host": url.netloc.rpartition("@")[2],
        "accept": "text/event-stream",
        "cache-control": "no-store",
    }
    if last_id:
        fields["last-event-id"] = last_id
    if token:
        fields["authorization"] = f"Bearer {token}"
    target = url.path + (f"?{url.query}" if url.query else "")
    try:
        request = h11.Request(method="GET", target=target, headers=list(fields.items()))
        return (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    except (h11.LocalProtocolError, UnicodeError) as error:
        raise StreamLost(f"the request cannot be made: {error}") from error


def check(response: h11.Response) -> None:
    """StreamLost when *response* is no stream of events."""
    if response.status_code != 200:
        raise StreamLost(f"the registrar answers {response.status_code}")
    kinds = [value for name, value in response.headers if name == b"content-type"]
    if not any(kind.lower().startswith(b"text/event-stream") for kind in kinds):
        raise StreamLost("the answer is no text/event-stream")
