"""Single verdicts, smoothed; and the probe that gives them, on real sockets."""

import asyncio
import socket

import pytest

from sidecar.health import Health, Healthy, Policy, Unhealthy, Verdict, one_line, verdict_of
from sidecar.probe import MAX_BODY, Prober
from sidecar.registration import Service
from sidecar.tables import services_from
from tests.support.fake_registrar import FakeService

POLICY = Policy(rise=2, fall=2, interval=5.0, initial_wait=60.0)


def service_at(port: int, probed: str = "http", **more: object) -> Service:
    table = {"name": "web", "host": "127.0.0.1", "port": port, "probe": probed, **more}
    (service,), problems = services_from([table], ["web"], Policy())
    assert problems == []
    return service


async def probe(service: Service) -> Verdict:
    return await Prober().verdict(service)


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def test_rise_and_fall_count_verdicts_in_a_row() -> None:
    health = Health(POLICY, started=0.0)
    ok, bad = Healthy(), Unhealthy("down")
    seen = []

    for verdict in (ok, bad, ok, ok, bad, ok, bad, bad, ok, ok):
        health.note(verdict)
        seen.append(health.healthy)

    assert seen == [False, False, False, True, True, True, True, False, False, True]


def test_a_change_is_told_once() -> None:
    health = Health(Policy(rise=1, fall=1), started=0.0)

    assert health.note(Healthy({"version": "1"}))
    assert not health.note(Healthy({"version": "1"}))
    assert health.note(Healthy({"version": "2"}))
    assert health.note(Unhealthy("down"))
    assert not health.note(Unhealthy("still down"))
    assert health.reason == "still down"


def test_it_says_once_that_the_initial_wait_is_over() -> None:
    health = Health(POLICY, started=100.0)

    assert not health.is_overdue(159.9)
    assert health.is_overdue(160.0)
    assert not health.is_overdue(170.0)
    assert health.wanted(170.0) == ""


def test_only_one_that_was_never_healthy_is_registered_unhealthy() -> None:
    health = Health(Policy(initial_wait=60.0, fall=1, register_unhealthy=True), started=0.0)

    health.note(Unhealthy("down"))
    assert health.wanted(59.0) == "waiting"
    assert health.wanted(60.0) == "serving"
    health.note(Healthy())
    health.note(Unhealthy("down"))
    assert health.wanted(61.0) == "unhealthy"


def test_it_is_waiting_only_once_it_has_failed_as_often_as_makes_one_unhealthy() -> None:
    """A sidecar may be up a moment before its service; and one may be restarted beside it."""
    health = Health(Policy(rise=2, fall=2), started=0.0)
    seen = []

    for verdict in (Unhealthy("a"), Healthy(), Unhealthy("b"), Healthy(), Healthy()):
        health.note(verdict)
        seen.append(health.wanted(1.0))

    assert seen == ["", "", "waiting", "waiting", "serving"]


def test_two_failures_are_known_with_a_second_to_spare() -> None:
    """An unhealthy instance leaves DNS within 12 s of its last success, by the defaults.

    The worst case: it hangs right after a success, so that every probe takes its time-out.
    """
    health, now = Health(Policy(), started=0.0), 0.0
    health.note(Healthy())

    while health.healthy:
        now += health.interval(now)  # from the beginning of one probe to that of the next
        health.note(Unhealthy("no answer"))

    assert now + Policy().timeout <= 11.0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("a\nb\t c\x00", "a b c"),
        (" ", "unhealthy"),
        ("x" * 5000, "x" * 200),
        ("connexion refusée", "connexion refusée"),
    ],
)
def test_a_reason_is_one_printable_line(said: str, reason: str) -> None:
    """Registrars refuse any other, and an unhealthy instance would stay in DNS."""
    health = Health(Policy(), started=0.0)

    health.note(Unhealthy(said))

    assert health.reason == reason
    assert one_line(reason) == reason


def test_it_is_probed_more_often_until_it_is_healthy_or_late() -> None:
    health = Health(Policy(interval=5.0, initial_wait=60.0), started=0.0)

    assert health.interval(1.0) == 1.0
    assert health.interval(61.0) == 5.0
    health.note(Healthy())
    assert health.interval(2.0) == 5.0


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"status": "healthy", "version": "1.2"}', {"status": "healthy", "version": "1.2"}),
        (204, b"", {}),
        (200, b"OK", {}),
        (200, b'["status"]', {}),
        (200, b'{"version": 3, "status": true}', {"version": "3", "status": "true"}),
        (200, b'{"version": {"major": 1}, "status": null}', {}),
        (200, b'{"version": "a\\nb"}', {}),
        (200, b'{"version": "\\ud800"}', {}),
        (200, b'{"version": "' + b"x" * 257 + b'"}', {}),
        (200, b"[" * 5000, {}),
        (200, b"\xff\xfe", {}),
    ],
)
def test_only_short_plain_facts_become_metadata(
    status: int, body: bytes, expected: dict[str, str]
) -> None:
    assert verdict_of(status, body) == Healthy(expected)


@pytest.mark.parametrize("status", [301, 404, 429, 500, 503])
def test_anything_but_2xx_is_unhealthy(status: int) -> None:
    verdict = verdict_of(status, b'{"status": "healthy"}')

    assert isinstance(verdict, Unhealthy)
    assert str(status) in verdict.reason


async def test_http_probe_reads_what_the_service_says() -> None:
    async with FakeService(body=b'{"version": "7"}') as web:
        assert await probe(service_at(web.port)) == Healthy({"version": "7"})


async def test_a_long_answer_is_not_read_and_no_less_healthy() -> None:
    async with FakeService(body=b"x" * (MAX_BODY * 64)) as web:
        assert await probe(service_at(web.port)) == Healthy()


async def test_a_service_that_does_not_answer_in_time_is_unhealthy() -> None:
    async with FakeService() as web:
        web.hangs = True

        verdict = await probe(service_at(web.port, health_timeout=0.1))

    assert verdict == Unhealthy("no answer within 0.1 s")


async def test_a_refused_connection_says_so() -> None:
    verdict = await probe(service_at(free_port()))

    assert isinstance(verdict, Unhealthy)
    assert "refused" in verdict.reason.lower() or "failed" in verdict.reason.lower()


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x00\xff", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-OpenSSH\r\n", b"A: B\r\n" * 9000],
)
async def test_whatever_answers_is_a_verdict(answer: bytes) -> None:
    """A port that was reused by something else must not end the sidecar."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        verdict = await probe(service_at(server.sockets[0].getsockname()[1]))

    assert isinstance(verdict, Unhealthy)


async def test_tcp_probe_needs_only_a_connection() -> None:
    async with FakeService(500) as web:
        assert await probe(service_at(web.port, "tcp")) == Healthy()
    assert isinstance(await probe(service_at(free_port(), "tcp")), Unhealthy)


async def test_without_probe_it_is_always_healthy() -> None:
    assert await probe(service_at(free_port(), "none")) == Healthy()
