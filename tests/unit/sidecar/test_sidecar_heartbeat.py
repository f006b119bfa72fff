"""When the heartbeat registers, renews and tries again, in a world whose time is a number."""

import pytest

from sidecar.actions import (
    Register,
    Renew,
    Stopped,
)
from sidecar.heartbeat import Heartbeat
from sidecar.pace import MAX_BACKOFF
from tests.support.heartbeats import leased, middle, waits


def test_renewals_come_at_the_registrars_interval_or_a_little_before() -> None:
    heartbeat = leased(ttl=60, interval=25)

    assert waits(heartbeat, 0.0) == pytest.approx(23.75)
    assert heartbeat.next_action(wanted="serving", now=23.75) == Renew("lease-1", timeout=5.0)


@pytest.mark.parametrize(("chance", "first"), [(0.0, 25.0), (0.5, 13.75), (1.0, 2.5)])
def test_the_first_renewal_comes_anywhere_within_the_interval(chance: float, first: float) -> None:
    """A fleet that was started at once would else beat as one for minutes."""
    heartbeat = Heartbeat(None, lambda: chance)

    heartbeat.lease_granted("lease-1", ttl=60, interval=25, sent_at=0.0)

    assert waits(heartbeat, 0.0) == pytest.approx(first)


@pytest.mark.parametrize(
    ("configured", "advised", "ttl", "expected"),
    [
        (None, 25, 60, 25),
        (10, 25, 60, 10),
        (50, 25, 60, 27),
        (None, 0, 60, 25),
        (None, 40, 60, 27),
        (None, 2, 5, 2),
    ],
)
def test_the_interval_never_exceeds_its_share_of_the_lease(
    configured: float | None, advised: float, ttl: float, expected: float
) -> None:
    """HEARTBEAT_INTERVAL of an old installation may be longer than the lease allows."""
    heartbeat = Heartbeat(configured, middle)
    heartbeat.lease_granted("l", ttl=ttl, interval=advised, sent_at=0.0)

    assert heartbeat.lease is not None
    assert heartbeat.lease.every == pytest.approx(expected)


def test_retries_within_the_lease_come_after_1_2_4_8_seconds() -> None:
    heartbeat = Heartbeat(None, lambda: 0.0)
    heartbeat.lease_granted("l", ttl=60, interval=25, sent_at=0.0)
    now, delays = 25.0, []

    for _ in range(5):
        heartbeat.failed(now)
        delays.append(waits(heartbeat, now))
        now += delays[-1]

    assert delays == [1, 2, 4, 8, 8]


def test_a_short_lease_is_retried_in_proportion() -> None:
    heartbeat = Heartbeat(None, lambda: 0.0)
    heartbeat.lease_granted("l", ttl=15, interval=6, sent_at=0.0)

    heartbeat.failed(6.0)
    heartbeat.failed(7.0)
    heartbeat.failed(9.0)

    assert waits(heartbeat, 9.0) == 2


def test_a_time_out_is_no_proof_of_a_lost_lease() -> None:
    heartbeat = leased()

    heartbeat.failed(25.0)

    assert heartbeat.next_action(wanted="serving", now=59.9) == Renew("lease-1", 5.0)


def test_a_lease_that_passed_unanswered_is_asked_for_anew() -> None:
    heartbeat = leased()

    heartbeat.failed(40.0)

    assert heartbeat.next_action(wanted="serving", now=60.0) == Register()


def test_404_registers_again_at_once_and_then_with_pauses() -> None:
    """A registrar that grants and forgets must not be asked in a busy loop."""
    heartbeat = leased()

    heartbeat.lease_lost(25.0)
    assert heartbeat.next_action(wanted="serving", now=25.0) == Register()
    heartbeat.lease_granted("lease-2", ttl=60, sent_at=25.0)
    heartbeat.lease_lost(26.0)

    assert waits(heartbeat, 26.0) == 1.0


def test_back_off_grows_to_a_minute_with_full_jitter() -> None:
    heartbeat = Heartbeat(None, lambda: 0.999)
    heartbeat.next_action(wanted="serving", now=0.0)
    now, delays = 0.0, []

    for _ in range(8):
        heartbeat.failed(now)
        delays.append(round(waits(heartbeat, now)))
        now += waits(heartbeat, now)

    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_full_jitter_never_makes_a_busy_loop() -> None:
    heartbeat = Heartbeat(None, lambda: 0.0)

    heartbeat.failed(0.0)

    assert waits(heartbeat, 0.0) >= 0.1


def test_retry_after_is_the_earliest_moment() -> None:
    """Spread upwards, because the registrar names the same moment to all of a fleet."""
    heartbeat = leased()

    heartbeat.failed(25.0, retry_after=7.0)

    assert 7.0 <= waits(heartbeat, 25.0) <= 7.0 * 1.25


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_an_absurd_retry_after_is_cut(chance: float) -> None:
    """Registrars keep leases for 70 s after an outage: a longer wait would lose them."""
    heartbeat = Heartbeat(None, lambda: chance)

    heartbeat.failed(25.0, retry_after=86400.0)

    assert 40.0 < waits(heartbeat, 25.0) <= MAX_BACKOFF


def test_a_retry_after_beyond_the_lease_leaves_it_a_last_chance() -> None:
    """An overloaded registrar still counts the time; only one that is away does not."""
    heartbeat = leased(ttl=60)

    heartbeat.failed(25.0, retry_after=50.0)

    wait = waits(heartbeat, 25.0)
    assert 25.0 + wait + 5.0 <= 60.0
    assert isinstance(heartbeat.next_action(wanted="serving", now=25.0 + wait), Renew)


def test_a_refused_registration_is_tried_every_minute() -> None:
    heartbeat = Heartbeat(None, middle)

    heartbeat.refused(0.0)

    assert 54.0 <= waits(heartbeat, 0.0) <= 60.0


def test_an_older_sidecar_gives_way_to_a_newer_one_and_deregisters_nothing() -> None:
    heartbeat = leased()

    heartbeat.lease_lost(25.0)
    heartbeat.superseded(25.1)

    assert waits(heartbeat, 25.1) > 50.0
    heartbeat.stop(26.0, lame_duck=5.0)
    assert heartbeat.next_action(wanted="serving", now=26.0) == Stopped()


def test_changed_data_is_sent_in_place_of_the_next_renewal() -> None:
    """Not at once: a status that flaps would be a change in DNS every five seconds."""
    heartbeat = leased()

    heartbeat.data_changed()

    assert waits(heartbeat, 1.0) > 20.0
    assert heartbeat.next_action(wanted="serving", now=24.0) == Register()


def test_renewals_join_another_only_when_they_are_near() -> None:
    heartbeat = leased()

    assert heartbeat.joins(5.0) is None
    assert heartbeat.joins(20.0) == Renew("lease-1", 5.0)
