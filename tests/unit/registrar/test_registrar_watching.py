"""Waiting for changes over HTTP: streams of events, long requests, conditions."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from registrar import app, watchers
from registrar.journal import Journal
from registrar.lists import INDEX
from tests.support.registrar import Registrar, Response, a_registrar
from tests.support.waiting import until

DRAINING = {"state": "draining"}

NEVER = 10**15
"""A revision that is not reached."""

# --- events -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One event as a browser would hand it on."""

    id: str
    kind: str
    data: dict[str, Any]


class Listener:
    """Reads a stream, event by event."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.last_id = ""
        self.comments = 0

    async def block(self) -> list[str] | None:
        """The lines up to the next empty one; None at the end."""
        lines: list[str] = []
        while line := (await self.answer.content.readline()).decode():
            if line == "\n":
                return lines
            lines.append(line.rstrip("\n"))
        return None

    async def next(self) -> Event | None:
        """The next event; None when the stream has ended."""
        while (lines := await self.block()) is not None:
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            self.comments += any(line.startswith(":") for line in lines)
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields:
                return Event(self.last_id, fields["event"], json.loads(fields["data"]))
        return None

    async def some(self, count: int) -> list[Event]:
        async with asyncio.timeout(5):
            return [event for _ in range(count) if (event := await self.next()) is not None]


@contextlib.asynccontextmanager
async def listening(
    registrar: Registrar, last_id: str = "", path: str = "/events"
) -> AsyncIterator[Listener]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with registrar.session.get(registrar.url + path, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        listener = Listener(answer)
        opening = await listener.block()
        assert opening is not None
        listener.last_id = opening[1].removeprefix("id: ")
        yield listener


async def test_every_change_is_one_event_whose_id_is_the_revision() -> None:
    async with a_registrar() as registrar, listening(registrar) as listener:
        first = await registrar.register("Pay_ments", "One")
        await registrar.call("PUT", "/services/pay-ments/instances/one/state", DRAINING)
        await registrar.call("PUT", "/services/pay-ments/settings", {"answers": 1})
        await registrar.call("POST", "/heartbeat", {"service_name": "pay_ments"})
        await registrar.call("DELETE", "/deregister/pay_ments")
        await registrar.advance(121)
        events = await listener.some(5)

    assert [event.kind for event in events] == ["up", "up", "settings", "down", "forgotten"]
    start = int(first["revision"])
    assert [int(event.id) for event in events] == list(range(start, start + 5))
    assert all(event.data["revision"] == event.id for event in events)
    assert events[0].data["service_name"] == "pay_ments"
    assert events[0].data["document"]["state"] == "serving"
    assert events[1].data["document"]["state"] == "draining"
    assert "ttl_remaining" not in events[0].data["document"]
    assert events[3].data["reason"] == "deregistered"


async def test_a_stream_says_what_it_is() -> None:
    async with a_registrar() as registrar, listening(registrar) as listener:
        headers = listener.answer.headers

    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("by_header", [True, False])
async def test_who_comes_back_misses_nothing(by_header: bool) -> None:
    async with a_registrar() as registrar:
        known = (await registrar.register("web", "one"))["revision"]
        await registrar.register("web", "two")
        await registrar.register("web", "three")

        where = (known, "/events") if by_header else ("", f"/events?index={known}")
        async with listening(registrar, *where) as listener:
            assert listener.last_id == known, "so that a second break loses nothing either"
            events = await listener.some(2)

    assert [event.data["instance"] for event in events] == ["two", "three"]


async def test_a_list_and_the_stream_from_its_index_leave_no_gap() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        listed = await registrar.call("GET", "/services")
        await registrar.register("web", "two")
        async with listening(registrar, listed.headers[INDEX]) as listener:
            (event,) = await listener.some(1)

    assert event.data["instance"] == "two"


@pytest.mark.parametrize("last_id", ["x", "-1", "0", "9" * 17, str(NEVER)])
async def test_who_cannot_be_told_what_was_missed_reads_anew(
    last_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too old, from the future, or no id at all."""
    monkeypatch.setattr(watchers, "REACH_SECONDS", 0.01)
    async with a_registrar() as registrar:
        for number in range(6):
            await registrar.register("web", f"i{number}")
        registrar.service._watchers._journal._floor = 3
        async with listening(registrar, last_id) as listener:
            await registrar.register("web", "next")
            events = await listener.some(2)

    assert [event.kind for event in events] == ["reset", "up"]
    assert events[1].data["instance"] == "next"


async def test_what_is_not_kept_any_more_is_a_reset() -> None:
    journal = Journal(3)
    async with a_registrar() as registrar:
        registrar.service._watchers._journal = journal
        known = (await registrar.register("web", "i0"))["revision"]
        for number in range(1, 5):
            await registrar.register("web", f"i{number}")
        async with listening(registrar, known) as listener:
            (event,) = await listener.some(1)

    assert event.kind == "reset"


async def test_another_catalog_is_a_reset_to_all_who_listen() -> None:
    async with a_registrar() as registrar, listening(registrar) as listener:
        await registrar.register("web", "one")
        registrar.view.forget_all()
        await registrar.register("web", "two")
        events = await listener.some(3)

    assert [event.kind for event in events] == ["up", "reset", "up"]


async def test_a_quiet_stream_has_a_comment_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "COMMENT_SECONDS", 0.01)
    async with a_registrar() as registrar, listening(registrar) as listener:
        assert await listener.block() == [":"]
        await registrar.register("web", "one")
        (event,) = await listener.some(1)

    assert event.kind == "up"
    assert watchers.COMMENT_SECONDS < 15


async def test_a_stream_ends_when_the_registrar_stops() -> None:
    async with a_registrar() as registrar, listening(registrar) as listener:
        await registrar.service.drain()
        async with asyncio.timeout(5):
            end = await listener.next()

    assert end is None


async def test_a_listener_who_reads_too_slowly_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not kept any more when it comes to read on cannot be told."""
    monkeypatch.setattr(watchers, "GATHER_SECONDS", 0.2)
    async with a_registrar() as registrar:
        registrar.service._watchers._journal = Journal(3)
        async with listening(registrar) as listener:
            await registrar.register("web", "i0")
            await listener.some(1)
            for number in range(1, 9):
                await registrar.register("web", f"i{number}")
            with pytest.raises(aiohttp.ClientError):
                await listener.some(9)
        metrics = (await registrar.call("GET", "/metrics")).body

    assert "registrar_watchers_dropped_total 1.0" in metrics
    assert "registrar_watchers 0.0" in metrics


async def test_a_listener_who_does_not_read_at_all_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its kernel's buffers fill, then ours; then a part of the stream does not leave in time."""
    monkeypatch.setattr(app, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(watchers, "GATHER_SECONDS", 0.0)
    big = {f"k{n}": "v" * 250 for n in range(16)}
    async with a_registrar() as registrar:
        host, port = registrar.service.address
        _, writer = await asyncio.open_connection(host, port, limit=1024)
        writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: registrar.service._watchers.count == 1)

        async def flood() -> bool:
            for number in range(50):
                await registrar.register("web", f"i{number % 500}", metadata=big, weight=number)
                await registrar.register("web", f"i{number % 500}", metadata=big, weight=number + 9)
            return registrar.service._watchers.count == 0

        await until(flood, seconds=30)
        metrics = (await registrar.call("GET", "/metrics")).body
        writer.close()

    assert "registrar_watchers_dropped_total 1.0" in metrics


async def test_a_listener_who_leaves_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "COMMENT_SECONDS", 0.01)
    async with a_registrar() as registrar:
        async with listening(registrar):
            assert registrar.service._watchers.count == 1
        await until(lambda: registrar.service._watchers.count == 0)


@pytest.mark.parametrize(
    ("limit", "kind"),
    [("MAX_WATCHERS", "watchers"), ("MAX_WATCHERS_PER_CLIENT", "watchers-per-client")],
)
async def test_watchers_are_bounded(limit: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, limit, 2)
    async with a_registrar() as registrar, listening(registrar), listening(registrar):
        third = await registrar.call("GET", "/events")
        waiting = await registrar.call("GET", f"/services?index={NEVER}&wait=30s")

    for refused in (third, waiting):
        assert refused.status == 429
        assert refused.body["type"] == f"urn:callboard:problem:limit-{kind}"
        assert "Retry-After" in refused.headers


async def test_head_of_an_endless_answer_is_no_method_for_it() -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("HEAD", "/events")

    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_before_the_catalog_was_loaded_there_is_nothing_to_tell() -> None:
    async with a_registrar() as registrar:
        registrar.view.loaded = False
        answer = await registrar.call("GET", "/events")

    assert answer.status == 503


# --- long requests ----------------------------------------------------------------------------


async def index_of(registrar: Registrar, path: str) -> str:
    return str((await registrar.call("GET", path)).headers[INDEX])


async def waits(registrar: Registrar, path: str) -> "asyncio.Task[Response]":
    """A request that is known to wait when this returns."""
    before = registrar.service._watchers.count
    task = asyncio.create_task(registrar.call("GET", path))
    await until(lambda: registrar.service._watchers.count > before)
    return task


@pytest.mark.parametrize("path", ["/services", "/services?detail=true", "/sd/prometheus"])
async def test_a_list_waits_for_any_change(path: str) -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        index = await index_of(registrar, path)
        more = "&" if "?" in path else "?"
        task = await waits(registrar, f"{path}{more}index={index}&wait=30s")
        other = await registrar.register("db", "one")
        answer = await task

    assert answer.status == 200
    assert "db" in json.dumps(answer.body)
    assert answer.headers[INDEX] == other["revision"]


async def test_a_service_waits_for_its_own_changes_only() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        index = await index_of(registrar, "/services/web")
        task = await waits(registrar, f"/services/WEB?index={index}&wait=30s")
        await registrar.register("db", "one")
        await registrar.register("db", "two")
        assert not task.done()
        changed = await registrar.register("web", "two")
        answer = await task

    assert len(answer.body["instances"]) == 2
    assert answer.headers[INDEX] == changed["revision"]


async def test_what_changed_already_is_answered_at_once() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        index = await index_of(registrar, "/services/web")
        await registrar.call("PUT", "/services/web/instances/one/state", DRAINING)
        answer = await registrar.call("GET", f"/services/web?index={index}&wait=55s")

    assert answer.body["instances"][0]["state"] == "draining"


@pytest.mark.parametrize("path", ["/services", "/services/web", "/sd/prometheus"])
async def test_without_a_change_the_time_ends_the_wait(path: str) -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        index = await index_of(registrar, path)
        answer = await registrar.call("GET", f"{path}?index={index}&wait=20ms")

    assert (answer.status, answer.headers[INDEX]) == (200, index)


async def test_one_can_wait_for_a_service_that_is_not_there_and_for_its_end() -> None:
    async with a_registrar() as registrar:
        await registrar.register("db", "one")
        index = await index_of(registrar, "/services")
        coming = await waits(registrar, f"/services/web?index={index}&wait=30s")
        await registrar.register("web", "one")
        came = await coming
        leaving = await waits(registrar, f"/services/web?index={came.headers[INDEX]}&wait=30s")
        await registrar.call("DELETE", "/deregister/web")
        left = await leaving

    assert (came.status, left.status) == (200, 404)


async def test_another_catalog_ends_every_wait() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        index = await index_of(registrar, "/services/web")
        task = await waits(registrar, f"/services/web?index={index}&wait=30s")
        registrar.view.forget_all()

        assert (await task).status == 200


async def test_the_end_of_the_registrar_ends_every_wait() -> None:
    async with a_registrar() as registrar:
        task = await waits(registrar, f"/services?index={NEVER}&wait=55s")
        await registrar.service.drain()

        assert (await task).status == 200


async def test_who_has_left_does_not_go_on_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "GONE_SECONDS", 0.01)
    async with a_registrar() as registrar:
        task = await waits(registrar, f"/services?index={NEVER}&wait=55s")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

        await until(lambda: registrar.service._watchers.count == 0)


@pytest.mark.parametrize("query", ["index=x", "index=5&wait=soon", "index=-1"])
async def test_a_wait_that_means_nothing_is_refused(query: str) -> None:
    async with a_registrar() as registrar:
        answer = await registrar.call("GET", f"/services?{query}")

    assert answer.status == 422


async def test_a_wait_is_no_slow_operation() -> None:
    """The histogram is what alerts judge; a long wait in it would be an alarm for nothing."""
    async with a_registrar() as registrar:
        await registrar.call("GET", f"/services?index={NEVER}&wait=10ms")
        metrics = (await registrar.call("GET", "/metrics")).body

    assert 'registry_operations_total{operation="list",status="success"} 1.0' in metrics
    assert 'registry_operation_duration_seconds_count{operation="list"}' not in metrics


# --- conditions -------------------------------------------------------------------------------

READS = ("/services", "/services?detail=true", "/services?tag=x", "/services/web", "/sd/prometheus")


async def known(registrar: Registrar, path: str, etag: str) -> bool:
    answer = await registrar.call("GET", path, headers={"If-None-Match": etag})
    assert answer.status in (200, 304)
    if answer.status == 304:
        assert not answer.body
        assert answer.headers["ETag"] == etag
    return answer.status == 304


@pytest.mark.parametrize("path", READS)
async def test_what_is_known_already_is_not_sent_again(path: str) -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        etag = (await registrar.call("GET", path)).headers["ETag"]
        await registrar.call("POST", "/heartbeat", {"service_name": "web"})

        assert etag.startswith('W/"')
        assert await known(registrar, path, etag), "a renewal is no change of membership"
        await registrar.register("web", "two")
        assert not await known(registrar, path, etag)


async def test_a_service_keeps_its_tag_while_others_change() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        etag = (await registrar.call("GET", "/services/web")).headers["ETag"]
        await registrar.register("db", "one")

        assert await known(registrar, "/services/web", etag)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/services/web/instances/one", None),
        ("DELETE", "/services/web/instances/two", None),
        ("PUT", "/services/web/instances/one/state", DRAINING),
        ("PUT", "/services/web/settings", {"answers": 1}),
    ],
)
async def test_the_tag_of_a_service_follows_whatever_happens_to_it(
    method: str, path: str, body: Any
) -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        await registrar.register("web", "two")
        etag = (await registrar.call("GET", "/services/web")).headers["ETag"]
        await registrar.call(method, path, body)

        assert not await known(registrar, "/services/web", etag)


async def test_what_is_stale_has_another_tag_and_an_age_even_when_it_is_known() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        fresh = (await registrar.call("GET", "/services/web")).headers["ETag"]
        registrar.view.lose(7.0)
        stale = await registrar.call("GET", "/services/web")
        again = await registrar.call(
            "GET", "/services/web", headers={"If-None-Match": stale.headers["ETag"]}
        )

    assert stale.headers["ETag"] != fresh
    assert (again.status, again.headers["Age"]) == (304, "7")


async def test_a_wait_and_a_condition_together_are_304_when_nothing_came() -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")
        first = await registrar.call("GET", "/services/web")
        path = f"/services/web?index={first.headers[INDEX]}&wait=10ms"

        assert await known(registrar, path, first.headers["ETag"])
