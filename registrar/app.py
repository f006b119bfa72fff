"""The HTTP side: routes, bodies read within limits, errors made problems, all of it counted.

aiohttp stops here; `handlers.py` has the meaning.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, cast

from aiohttp import web

from registrar import problems
from registrar.access import Access
from registrar.body import MAX_BODY, parse_json, require_json
from registrar.callers import caller_of
from registrar.calls import Call, Reply, Stream
from registrar.connections import Connection
from registrar.endpoints import Network
from registrar.errors import BodyTooLarge, SlowBody, SlowWatcher
from registrar.metrics import Metrics
from registrar.routes import EVERYWHERE, Route
from registrar.view import View
from registry.runtime import logs

BODY_SECONDS = 10.0
"""That a body may take to arrive.  Ours are small; whoever takes longer holds a connection."""

WRITE_SECONDS = 10.0
"""That one part of a stream may take to leave; a listener who does not read loses it."""

_HEADERS: Final = {
    "Content-Type": "application/json",
    "Server": "callboard",  # the default names the versions of Python and aiohttp
    "X-Content-Type-Options": "nosniff",  # metadata is anybody's text, and never a page
}

log = logs.get("registrar")


class App:
    """The aiohttp application over *routes*, and beside them *pages* (path → what it shows)."""

    def __init__(
        self,
        routes: Sequence[Route],
        pages: dict[str, Callable[[], web.Response]],
        view: View,
        access: Access,
        metrics: Metrics,
        trusted: Sequence[Network],
    ) -> None:
        self._view = view
        self._access = access
        self._metrics = metrics
        self._trusted = trusted
        self.application = web.Application(
            middlewares=[self._refuse_by_problem], client_max_size=MAX_BODY
        )
        router = self.application.router
        for route in routes:
            # Whoever asks for the head of an endless answer would wait for ever.
            is_get, head = route.method == "GET", not route.is_stream
            add = (
                partial(router.add_get, allow_head=head)
                if is_get
                else partial(router.add_route, route.method)
            )
            for prefix in route.prefixes:
                add(prefix + route.path, self._serve(route))
        for prefix in EVERYWHERE:
            for path, page in pages.items():
                router.add_get(prefix + path, _page(page))

    def _serve(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """*route* as aiohttp calls it; every error becomes a problem here."""
        operation, handle = route.operation, route.handle

        async def serve(request: web.Request) -> web.StreamResponse:
            began = time.perf_counter()
            query: Sequence[tuple[str, str]] = ()
            try:
                caller = self._caller(request)
                who = self._access.admit(request.headers, caller, route.right, began)
                body = await _body_of(request) if route.has_body else None
                if request.query_string:
                    query = list(request.query.items())
                call = Call(
                    caller,
                    request.match_info,
                    query,
                    body,
                    who,
                    request.headers,
                    lambda: request.transport is None,
                )
                answer = await handle(call)
            except Exception as error:
                answer = self._problem(error)
            if isinstance(answer, Stream):
                return await self._streamed(request, answer)
            if operation is not None:
                outcomes = answer.outcomes or (answer.status,)
                # Who waits for a change takes long, and nothing is slow.
                waited = any(name == "index" for name, _ in query)
                seconds = None if waited else time.perf_counter() - began
                self._metrics.operation(operation, outcomes, seconds)
            return self._response(route, answer)

        return serve

    async def _streamed(self, request: web.Request, stream: Stream) -> web.StreamResponse:
        """*stream* as a response that ends with its listener, its slowness, or this registrar."""
        response = web.StreamResponse(headers={**_HEADERS, **stream.headers})
        try:
            await response.prepare(request)
            async with aclosing(stream.chunks) as chunks:
                async for chunk in chunks:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await response.write(chunk)
        except (TimeoutError, SlowWatcher):
            self._metrics.watcher_dropped()
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the listener has gone, as they all do some day
        finally:
            stream.release()
        return response

    def _caller(self, request: web.Request) -> str:
        forwarded = request.headers.getall("X-Forwarded-For", ()) if self._trusted else ()
        return caller_of(request.remote or "", list(forwarded), self._trusted)

    def _problem(self, error: Exception) -> Reply:
        answer = problems.answer_to(error)
        if answer is None:
            log.exception("request failed")
            self._metrics.internal_error()
            answer = problems.internal()
        self._metrics.refused(answer.status, answer.name)
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
        connection = cast(Connection, request.protocol)
        connection.request_begins()
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            allow = sorted(error.allowed_methods)
            detail = f"{request.path} knows {', '.join(allow)}, not {request.method}"
            return _response_of(problems.of_status(405, detail, allow))
        except web.HTTPException as error:
            detail = f"there is nothing at {request.path[:80]}; /openapi.json lists what there is"
            return _response_of(problems.of_status(error.status, detail))
        finally:
            connection.request_ends()


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
