"""A registrar's HTTP side with answers laid out beforehand, on a real socket, for the command."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple


class Laid(NamedTuple):
    """An answer that is given to one method and path, query included."""

    status: int
    document: Any
    headers: tuple[tuple[str, str], ...] = ()


class Call(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    body: Any


def instance(name: str, port: int = 8047, **more: Any) -> dict[str, Any]:
    """An instance as GET /services/{service} lists it."""
    document = {
        "instance_id": name,
        "endpoint": f"http://10.0.0.7:{port}",
        "addresses": ["10.0.0.7"],
        "host": None,
        "ports": {"http": port},
        "priority": 0,
        "weight": 100,
        "version": None,
        "zone": None,
        "tags": [],
        "metadata": {},
        "health_endpoint": "/health",
        "state": "serving",
        "state_reason": None,
        "static": False,
        "registered_at": 1_700_000_000.5,
        "last_heartbeat": 1_700_000_100.25,
        "ttl_remaining": 42,
        "revision": "17",
    }
    return document | more


def service(name: str, *instances: dict[str, Any]) -> dict[str, Any]:
    """A service as GET /services/{service} shows it."""
    return {"service_name": name, "endpoint": "http://10.0.0.7:8047", "instances": [*instances]}


def problem(status: int, detail: str, **more: Any) -> Laid:
    """A refusal (RFC 9457)."""
    document = {"type": "about:blank", "title": "refused", "status": status, "detail": detail}
    return Laid(status, document | more)


class Desk:
    """Listens on a free port of 127.0.0.1 while it is entered."""

    def __init__(self, answers: dict[tuple[str, str], Laid]) -> None:
        self.answers = answers
        self.calls: list[Call] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Desk":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, call: Call) -> Laid:
        self.calls.append(call)
        return self.answers.get(call[:2]) or problem(404, f"nothing at {call.path}")


def _handler_for(desk: Desk) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            laid = desk.answer(Call(self.command, self.path, body))
            data = json.dumps(laid.document).encode()
            self.send_response(laid.status)
            for name, value in laid.headers:
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: a test's output is its own."""

    return Handler
