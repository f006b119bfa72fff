"""In which order an instance leaves."""

import pytest

from sidecar.actions import (
    Deregister,
    Renew,
    Report,
    Stopped,
    Wait,
)
from sidecar.heartbeat import OURS, Heartbeat
from tests.support.heartbeats import leased, middle, waiting, waits


def test_a_waiting_one_leaves_without_a_drain() -> None:
    heartbeat = waiting()

    heartbeat.stop(1.0, lame_duck=5.0)

    assert heartbeat.next_action(wanted="waiting", now=1.0) == Deregister("lease-1")


def test_stopping_is_drain_then_wait_then_deregister() -> None:
    heartbeat = leased()
    heartbeat.stop(10.0, lame_duck=5.0)

    assert heartbeat.next_action(wanted="serving", now=10.0) == Report(
        "draining", OURS + "stopping"
    )
    heartbeat.state_reported("draining", 10.01)
    assert waits(heartbeat, 10.01) == pytest.approx(5.0)
    assert heartbeat.next_action(wanted="serving", now=15.1) == Deregister("lease-1")
    heartbeat.deregistered()
    assert heartbeat.next_action(wanted="serving", now=15.2) == Stopped()


def test_a_draining_instance_goes_on_renewing() -> None:
    heartbeat = leased(ttl=6, interval=2)
    heartbeat.stop(1.0, lame_duck=5.0)
    heartbeat.state_reported("draining", 1.0)

    assert heartbeat.next_action(wanted="serving", now=2.0) == Renew("lease-1", 0.6)


def test_without_lame_duck_it_deregisters_at_once() -> None:
    heartbeat = leased()

    heartbeat.stop(10.0, lame_duck=0.0)

    assert heartbeat.next_action(wanted="serving", now=10.0) == Deregister("lease-1")


def test_an_unhealthy_instance_need_not_drain() -> None:
    heartbeat = leased()
    heartbeat.state_reported("unhealthy", 3.0)

    heartbeat.stop(10.0, lame_duck=5.0)

    assert heartbeat.next_action(wanted="unhealthy", now=10.0) == Deregister("lease-1")


def test_a_drain_can_be_hurried() -> None:
    """Once the service has ended by itself there is nobody to wait for."""
    heartbeat = leased()
    heartbeat.stop(10.0, lame_duck=5.0)
    assert isinstance(heartbeat.next_action(wanted="serving", now=10.0), Report)
    heartbeat.state_reported("draining", 10.1)
    assert isinstance(heartbeat.next_action(wanted="serving", now=10.2), Wait)

    heartbeat.hurry()

    assert heartbeat.next_action(wanted="serving", now=10.2) == Deregister("lease-1")


def test_one_whose_registration_was_never_answered_deregisters_all_the_same() -> None:
    heartbeat = Heartbeat(None, middle)
    heartbeat.failed(0.0)

    heartbeat.stop(1.0, lame_duck=5.0)

    assert heartbeat.next_action(wanted="serving", now=1.0) == Deregister("")


def test_one_whose_registration_reached_nobody_just_stops() -> None:
    heartbeat = Heartbeat(None, middle)
    heartbeat.failed(0.0, may_have_arrived=False)

    heartbeat.stop(1.0, lame_duck=5.0)

    assert heartbeat.next_action(wanted="serving", now=1.0) == Stopped()


def test_one_that_was_never_registered_just_stops() -> None:
    heartbeat = Heartbeat(None, middle)

    heartbeat.stop(1.0, lame_duck=5.0)

    assert heartbeat.next_action(wanted="unhealthy", now=1.0) == Stopped()
