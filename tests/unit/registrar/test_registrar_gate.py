"""Calls to the store: through the breaker, within a time, batched where they come together."""

import asyncio
from collections.abc import Sequence

import pytest

from registrar import batching, gate
from registrar.batching import Renewals
from registrar.breaker import Breaker
from registrar.gate import Gate
from registry.errors import LeaseNotFound, StoreUnavailable
from registry.leases import Renewal, RenewalResult, Renewed
from registry.memory import MemoryStore


async def answer(value: int) -> int:
    return value


async def fail(error: Exception) -> int:
    raise error


def a_gate() -> tuple[Gate, list[str]]:
    failures: list[str] = []
    return Gate(MemoryStore(lambda: 0), lambda: failures.append("failed"), Breaker()), failures


async def test_what_the_store_says_is_passed_on() -> None:
    through, failures = a_gate()

    assert await through(answer(5)) == 5
    with pytest.raises(LeaseNotFound):
        await through(fail(LeaseNotFound("x")))
    assert (through.state, failures) == ("closed", [])


async def test_failures_open_it_and_then_no_call_begins() -> None:
    through, failures = a_gate()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await through(fail(StoreUnavailable("away")))
    begun: list[int] = []

    async def call() -> None:
        begun.append(1)

    with pytest.raises(StoreUnavailable, match="of late"):
        await through(call())
    assert (through.state, len(failures), begun) == ("open", 3, [])


async def test_a_refusal_of_the_caller_is_no_failure() -> None:
    through, _ = a_gate()
    for _ in range(10):
        with pytest.raises(LeaseNotFound):
            await through(fail(LeaseNotFound("x")))

    assert through.state == "closed"


async def test_a_call_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "CALL_SECONDS", 0.01)
    through, failures = a_gate()

    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StoreUnavailable, match="no answer"):
        await through(hang())
    assert failures == ["failed"]


async def test_a_cancelled_call_is_neither_success_nor_failure() -> None:
    through, failures = a_gate()
    call = asyncio.ensure_future(through(asyncio.sleep(60)))
    await asyncio.sleep(0)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert failures == []


async def test_too_many_calls_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_CALLS", 1)
    through, failures = a_gate()
    first = asyncio.ensure_future(through(asyncio.sleep(60)))
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailable, match="wait for the store"):
        await through(answer(1))
    first.cancel()
    assert (through.state, failures) == ("closed", [])


class Recorder:
    """A store that renews everything, a batch at a time, when it is let."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def renew(self, renewals: Sequence[Renewal]) -> list[RenewalResult]:
        self.batches.append(len(renewals))
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return [Renewed(float(r.key)) for r in renewals]


def renewals_over(recorder: Recorder) -> Renewals:
    through, _ = a_gate()
    return Renewals(recorder, through, lambda size: None)  # type: ignore[arg-type]


async def test_what_comes_while_a_call_is_under_way_shares_the_next() -> None:
    recorder = Recorder()
    renewals = renewals_over(recorder)
    running = asyncio.ensure_future(renewals.run())
    asked = [asyncio.ensure_future(renewals.renew([Renewal("0")]))]
    await asyncio.sleep(0.01)
    asked += [
        asyncio.ensure_future(renewals.renew([Renewal(f"{n}"), Renewal("0")])) for n in range(1, 50)
    ]
    await asyncio.sleep(0.01)
    recorder.open.set()

    assert await asyncio.gather(*asked) == [
        [Renewed(0.0)],
        *([Renewed(float(n)), Renewed(0.0)] for n in range(1, 50)),
    ]
    assert recorder.batches == [1, 98]
    running.cancel()


async def test_a_batch_has_a_bound_but_no_list_is_torn_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "MAX_BATCH", 10)
    recorder = Recorder()
    renewals = renewals_over(recorder)
    asked = [
        asyncio.ensure_future(renewals.renew([Renewal("1")] * size)) for size in (4, 5, 6, 30, 1)
    ]
    recorder.open.set()
    await asyncio.sleep(0)
    running = asyncio.ensure_future(renewals.run())
    await asyncio.gather(*asked)

    assert recorder.batches == [9, 6, 30, 1]
    running.cancel()


async def test_a_failed_call_fails_all_that_share_it_and_no_other() -> None:
    recorder = Recorder()
    renewals = renewals_over(recorder)
    running = asyncio.ensure_future(renewals.run())
    recorder.open.set()
    recorder.error = StoreUnavailable("away")
    failed = await asyncio.gather(
        *(renewals.renew([Renewal("1")]) for _ in range(3)), return_exceptions=True
    )
    recorder.error = None

    assert [type(e) for e in failed] == [StoreUnavailable] * 3
    assert len({id(e) for e in failed}) == 3
    assert await renewals.renew([Renewal("1")]) == [Renewed(1.0)]
    running.cancel()


async def test_when_it_is_stopped_nobody_waits_for_ever() -> None:
    recorder = Recorder()
    renewals = renewals_over(recorder)
    running = asyncio.ensure_future(renewals.run())
    asked = [asyncio.ensure_future(renewals.renew([Renewal("1")]))]
    await asyncio.sleep(0.01)
    asked.append(asyncio.ensure_future(renewals.renew([Renewal("2")])))
    await asyncio.sleep(0)
    running.cancel()

    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(e) for e in results] == [StoreUnavailable] * 2


async def test_one_who_no_longer_waits_does_not_disturb_the_others() -> None:
    recorder = Recorder()
    renewals = renewals_over(recorder)
    running = asyncio.ensure_future(renewals.run())
    gone = asyncio.ensure_future(renewals.renew([Renewal("1")]))
    stays = asyncio.ensure_future(renewals.renew([Renewal("2")]))
    await asyncio.sleep(0.01)
    gone.cancel()
    recorder.open.set()

    assert await stays == [Renewed(2.0)]
    running.cancel()


async def test_more_waiting_heartbeats_than_can_be_served_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "MAX_WAITING", 2)
    renewals = renewals_over(Recorder())
    first = asyncio.ensure_future(renewals.renew([Renewal("1"), Renewal("2")]))
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailable, match="wait already"):
        await renewals.renew([Renewal("3")])
    assert await renewals.renew([]) == []
    first.cancel()
