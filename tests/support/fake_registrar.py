"""A small registrar on a real socket, for the sidecar's tests: leases in a dict, faults at will.

It answers as the real one does, remembers every call, and can hang, be away, be old or lose
everything.  Leases never expire by themselves: time is the tests' to play with.
"""

import asyncio
import json
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KNOWN_FIELDS = frozenset(
    "service_name endpoint instance_id address host ports health_endpoint metadata priority weight"
    " version zone tags lease_ttl record_ttl generation state state_reason".split()
)


@dataclass(slots=True)
class Call:
    """One request as it came."""

    method: str
    path: str
    body: Any
    at: float
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """One registered instance."""

    document: dict[str, Any]
    lease_id: str
    state: str = "serving"
    reason: str = ""


@dataclass(slots=True)
class Answer:
    """Status, JSON body, headers."""

    status: int
    document: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def problem(status: int, detail: str, **more: Any) -> Answer:
    document = {"type": "about:blank", "status": status, "detail": detail, **more}
    return Answer(status, document, {"content-type": "application/problem+json"})


class FakeRegistrar:
    """Listens on 127.0.0.1 while it is entered; `url` is what sidecars are given."""

    def __init__(
        self,
        lease_ttl: float = 60,
        heartbeat_interval: float = 25,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.lease_ttl = lease_ttl
        self._tls = tls
        self.heartbeat_interval = heartbeat_interval
        self.known_fields = KNOWN_FIELDS
        self.entries: dict[str, Entry] = {}
        self.generations: dict[str, int] = {}
        self.calls: list[Call] = []
        self.fault: Answer | None = None
        self.hangs = False
        self.is_stale = False
        self.port = 0
        self._leases = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def __repr__(self) -> str:
        return f"<FakeRegistrar {len(self.entries)} instances, {len(self.calls)} calls>"

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "FakeRegistrar":
        await self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_away()

    async def come_back(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def go_away(self) -> None:
        """Stop listening, as a process that has died: connections are refused."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def lose_everything(self) -> None:
        """As a store that was flushed."""
        self.entries.clear()

    def count(self, method: str, prefix: str) -> int:
        """How many calls began so."""
        return sum(c.method == method and c.path.startswith(prefix) for c in self.calls)

    def states(self) -> dict[str, str]:
        """The state of each instance."""
        return {key: entry.state for key, entry in self.entries.items()}

    # --- HTTP --------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request, *lines = head.strip().split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            raw = await reader.readexactly(int(headers.get("content-length", "0")))
            method, target, _ = request.split(" ")
            body = json.loads(raw) if raw else None
            loop = asyncio.get_running_loop()
            self.calls.append(Call(method, target, body, loop.time(), headers))
            if self.hangs:
                await reader.read()
                return
            answer = self.fault or self.answer(method, target, body)
            writer.write(_bytes(answer))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def answer(self, method: str, target: str, body: Any) -> Answer:
        """The answer to one request, without sockets."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        match method, [unquote(part) for part in path.strip("/").split("/")]:
            case "POST", ["register"]:
                return self._register(body)
            case "POST", ["heartbeat"] if isinstance(body, list):
                answers = [self._heartbeat(one) for one in body]
                results = [{"status": a.status, **a.document} for a in answers]
                return Answer(200, {"results": results})
            case "POST", ["heartbeat"]:
                return self._heartbeat(body)
            case "GET", ["services", service]:
                return self._listing(service)
            case "PUT", ["services", service, "instances", instance, "state"]:
                entry = self.entries.get(f"{service}/{instance}")
                if entry is None:
                    return problem(404, "no such instance")
                entry.state, entry.reason = body["state"], body.get("reason", "")
                return Answer(200, {})
            case "DELETE", ["services", service, "instances", instance]:
                return self._delete(f"{service}/{instance}", query.get("lease_id", [""])[0])
        return problem(404, "no such path")

    def _register(self, body: dict[str, Any]) -> Answer:
        if unknown := sorted(body.keys() - self.known_fields):
            errors = [{"field": name, "message": "unknown field"} for name in unknown]
            return problem(422, "unknown fields", errors=errors)
        key = f"{body['service_name']}/{body['instance_id']}"
        generation = body.get("generation", 0)
        if generation < self.generations.get(key, 0):
            return problem(409, "a newer generation is registered")
        self.generations[key] = generation
        there = self.entries.get(key)
        self._leases += 1
        lease_id = f"lease-{self._leases}"
        begins = body.get("state", "serving"), body.get("state_reason", "")
        if there is None:
            self.entries[key] = Entry(body, lease_id, *begins)
        else:
            there.document, there.lease_id = body, lease_id
            if there.state == "serving":
                there.state, there.reason = begins
        answer = {
            "message": "Service registered successfully",
            "service_name": body["service_name"],
            "instance_id": body["instance_id"],
            "lease_id": lease_id,
            "lease_ttl": body.get("lease_ttl", self.lease_ttl),
            "heartbeat_interval": self.heartbeat_interval,
        }
        return Answer(201 if there is None else 200, answer)

    def _heartbeat(self, body: dict[str, Any]) -> Answer:
        entry = self.entries.get(f"{body['service_name']}/{body['instance_id']}")
        if entry is None:
            return problem(404, "no such lease")
        if body.get("lease_id") not in (None, entry.lease_id):
            return problem(409, "another lease is current")
        return Answer(200, {"message": "Heartbeat received", "ttl_remaining": self.lease_ttl})

    def _listing(self, service: str) -> Answer:
        instances = [
            {
                "instance_id": key.partition("/")[2],
                "state": entry.state,
                "state_reason": entry.reason or None,
            }
            for key, entry in self.entries.items()
            if key.partition("/")[0] == service
        ]
        if not instances:
            return problem(404, "no such service")
        stale = {"stale": True} if self.is_stale else {}
        return Answer(200, {"service_name": service, "instances": instances, **stale})

    def _delete(self, key: str, lease_id: str) -> Answer:
        entry = self.entries.get(key)
        if entry is None:
            return problem(404, "no such instance")
        if lease_id and lease_id != entry.lease_id:
            return problem(409, "another lease is current")
        del self.entries[key]
        return Answer(200, {"message": "Service deregistered"})


class FakeService:
    """A service with a health endpoint, on a real socket: `status` and `body` are its answer."""

    def __init__(self, status: int = 200, body: bytes = b'{"status": "healthy"}') -> None:
        self.status = status
        self.body = body
        self.hangs = False
        self.port = 0
        self.requests = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "FakeService":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        try:
            if self.hangs:
                await reader.read()
                return
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.body)}\r\n\r\n"
            writer.write(head.encode() + self.body)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _bytes(answer: Answer) -> bytes:
    body = json.dumps(answer.document).encode()
    headers = {"content-type": "application/json", "connection": "close", **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} X", *(f"{k}: {v}" for k, v in headers.items())]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
