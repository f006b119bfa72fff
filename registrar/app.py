"""The HTTP side: routes, bodies read within limits, errors made problems, all of it counted.

aiohttp stops here; `handlers.py` has the meaning.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiohttp import web

from registrar import problems
from registrar.body import MAX_BODY, parse_json, require_json
from registrar.callers import caller_of
from registrar.endpoints import Network
from registrar.errors import BodyTooLarge, SlowBody
from registrar.handlers import Call, Handlers, Reply
from registrar.metrics import Metrics
from registrar.view import View
from registry.runtime import logs

BODY_SECONDS = 10.0
"""That a body may take to arrive.  Ours are small; whoever takes longer holds a connection."""

_HEADERS: Final = {
    "Content-Type": "application/json",
    "Server": "callboard",  # the default names the versions of Python and aiohttp
    "X-Content-Type-Options": "nosniff",  # metadata is anybody's text, and never a page
}

log = logs.get("registrar")

Handle = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call of the API; *operation* is its name in the metrics, if it has one there."""

    method: str
    path: str
    handle: Handle
    operation: str | None = None
    has_body: bool = False


def api_routes(handlers: Handlers) -> tuple[Route, ...]:
    """The calls of the API.  Each is served under its path and under /v1 and its path."""
    instance = "/services/{service}/instances/{instance}"
    return (
        Route("POST", "/register", handlers.register, "register", has_body=True),
        Route("POST", "/heartbeat", handlers.heartbeat, "heartbeat", has_body=True),
        Route("DELETE", "/deregister/{service}", handlers.deregister, "deregister"),
        Route("DELETE", instance, handlers.deregister_instance, "deregister"),
        Route("PUT", instance + "/state", handlers.set_state, has_body=True),
        Route("GET", "/services", handlers.list_services, "list"),
        Route("GET", "/services/{service}", handlers.get_service, "get"),
    )


class App:
    """The aiohttp application over *routes*, and beside them *pages* (path → what it shows)."""

    def __init__(
        self,
        routes: Sequence[Route],
        pages: dict[str, Callable[[], web.Response]],
        view: View,
        metrics: Metrics,
        trusted: Sequence[Network],
    ) -> None:
        self._view = view
        self._metrics = metrics
        self._trusted = trusted
        self.application = web.Application(
            middlewares=[self._refuse_by_problem], client_max_size=MAX_BODY
        )
        router = self.application.router
        for prefix in ("", "/v1"):
            for route in routes:
                add = (
                    router.add_get
                    if route.method == "GET"
                    else partial(router.add_route, route.method)
                )
                add(prefix + route.path, self._serve(route))
            for path, page in pages.items():
                router.add_get(prefix + path, _page(page))

    def _serve(self, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        """*route* as aiohttp calls it; every error becomes a problem here."""
        operation, handle = route.operation, route.handle

        async def serve(request: web.Request) -> web.Response:
            began = time.perf_counter()
            try:
                body = await _body_of(request) if route.has_body else None
                query = list(request.query.items()) if request.query_string else ()
                call = Call(self._caller(request), request.match_info, query, body)
                reply = await handle(call)
            except Exception as error:
                reply = self._problem(error)
            if operation is not None:
                outcomes = reply.outcomes or (reply.status,)
                self._metrics.operation(operation, outcomes, time.perf_counter() - began)
            return self._response(route, reply)

        return serve

    def _caller(self, request: web.Request) -> str:
        forwarded = request.headers.getall("X-Forwarded-For", ()) if self._trusted else ()
        return caller_of(request.remote or "", list(forwarded), self._trusted)

    def _problem(self, error: Exception) -> Reply:
        answer = problems.answer_to(error)
        if answer is None:
            log.exception("request failed")
            self._metrics.internal_error()
            answer = problems.internal()
        return _reply_of(answer)

    def _response(self, route: Route, reply: Reply) -> web.Response:
        headers = {**_HEADERS, **reply.headers}
        if route.method == "GET" and self._view.loaded and not self._view.current:
            # RFC 9111, section 5.1: how old what is shown may be.
            headers["Age"] = str(int(self.age()))
        return web.Response(status=reply.status, body=reply.body, headers=headers)

    def age(self) -> float:
        """Seconds since the view was last known to be current; 0.0 when it never was."""
        age = self._view.age(asyncio.get_running_loop().time())
        return 0.0 if age == float("inf") else max(0.0, age)

    @web.middleware
    async def _refuse_by_problem(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """What aiohttp's router refuses (unknown path, other method), as a problem."""
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            allow = sorted(error.allowed_methods)
            detail = f"{request.path} knows {', '.join(allow)}, not {request.method}"
            return _response_of(problems.of_status(405, detail, allow))
        except web.HTTPException as error:
            detail = f"there is nothing at {request.path[:80]}; /openapi.json lists what there is"
            return _response_of(problems.of_status(error.status, detail))


def json_page(status: int, document: object) -> web.Response:
    """A page whose content is *document*."""
    body = json.dumps(document).encode()
    return web.Response(status=status, body=body, headers=_HEADERS)


def _page(show: Callable[[], web.Response]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def page(_request: web.Request) -> web.Response:
        return show()

    return page


def _reply_of(answer: problems.Answer) -> Reply:
    headers = {**_HEADERS, "Content-Type": problems.CONTENT_TYPE, **answer.headers}
    return Reply(answer.status, answer.body(), headers)


def _response_of(answer: problems.Answer) -> web.Response:
    reply = _reply_of(answer)
    return web.Response(status=reply.status, body=reply.body, headers=reply.headers)


async def _body_of(request: web.Request) -> object:
    """The body as a JSON value; whatever is wrong with it is raised by name."""
    headers = request.headers
    media_type = request.content_type if "Content-Type" in headers else ""
    require_json(media_type, request.charset, headers.get("Content-Encoding", "").lower())
    if (request.content_length or 0) > MAX_BODY:
        raise BodyTooLarge(f"{request.content_length} octets; at most {MAX_BODY}")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise BodyTooLarge(f"more than {MAX_BODY} octets") from error
    except TimeoutError as error:
        raise SlowBody(f"not all of it came within {BODY_SECONDS:g} s") from error
    return parse_json(body)


# --- what aiohttp logs on its own -------------------------------------------------------

SERVER_LOGGER: Final = "aiohttp.server"


class QuietServer(logging.Filter):
    """Requests that are no HTTP are traffic: counted, not logged with a traceback.

    aiohttp answers them 400 before any handler sees them, and offers no hook.
    """

    def __init__(self, malformed: Callable[[], None]) -> None:
        super().__init__()
        self._malformed = malformed

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and type(error).__module__.startswith("aiohttp.http"):
            self._malformed()
            return False
        return True
