"""Which state the heartbeat tells the registrar, and what it leaves to operators."""

import pytest

from sidecar.actions import (
    Ask,
    Register,
    Renew,
    Report,
    Wait,
)
from sidecar.heartbeat import OURS, REASON_PACE, Heartbeat
from tests.support.heartbeats import leased, middle, waiting, waits


def test_nothing_is_registered_while_its_health_is_not_known() -> None:
    heartbeat = Heartbeat(None, middle)

    assert isinstance(heartbeat.next_action(wanted="", now=0.0), Wait)
    assert heartbeat.next_action(wanted="serving", now=0.1) == Register()


def test_one_that_was_never_healthy_is_registered_as_waiting() -> None:
    """In one step, so that DNS does not have it even for a moment."""
    heartbeat = waiting()

    assert heartbeat.held == "waiting"
    action = heartbeat.next_action(wanted="waiting", reason="answered 503", now=0.1)
    assert isinstance(action, Wait)
    assert heartbeat.next_action(wanted="waiting", now=24.0) == Renew("lease-1", 5.0)


def test_once_healthy_it_is_reported_and_its_data_follow_at_once() -> None:
    heartbeat = waiting()

    heartbeat.data_changed(at=3.0)
    heartbeat.health_changed()
    assert heartbeat.next_action(wanted="serving", now=3.0) == Ask()
    heartbeat.state_learned("waiting", OURS + "answered 503")
    assert heartbeat.next_action(wanted="serving", now=3.1) == Report("serving", "")
    heartbeat.state_reported("serving", 3.2)

    assert heartbeat.next_action(wanted="serving", now=3.2) == Register()


def test_a_registrar_that_cannot_show_it_is_asked_once_a_minute() -> None:
    """To register it as serving instead would put into DNS what is not healthy."""
    heartbeat = Heartbeat(None, middle)
    heartbeat.next_action(wanted="waiting", now=2.0)

    heartbeat.not_shown(2.0)

    assert 50 < waits(heartbeat, 2.0, wanted="waiting") <= 60
    assert heartbeat.next_action(wanted="serving", now=2.5) == Register()
    assert heartbeat.next_action(wanted="waiting", now=62.0) == Register("waiting", OURS)


def test_a_reason_that_changes_is_told_once_a_minute_at_most() -> None:
    """Each is a change to all who follow; and an operator may have set a state meanwhile."""
    heartbeat = waiting()

    now = REASON_PACE - 0.1
    heartbeat.renewed(now)
    assert isinstance(heartbeat.next_action(wanted="waiting", reason="refused", now=now), Wait)
    now = REASON_PACE
    assert heartbeat.next_action(wanted="waiting", reason="refused", now=now) == Ask()
    heartbeat.state_learned("waiting", OURS + "answered 503")
    report = heartbeat.next_action(wanted="waiting", reason="refused", now=now)
    assert report == Report("waiting", OURS + "refused")
    heartbeat.state_reported("waiting", now, OURS + "refused")

    assert isinstance(heartbeat.next_action(wanted="waiting", reason="refused", now=now), Wait)
    assert isinstance(heartbeat.next_action(wanted="waiting", reason="other", now=now), Wait)


def test_an_unhealthy_instance_that_lost_its_lease_does_not_come_back_into_dns() -> None:
    """After a flush of the store it is listed again, and not answered."""
    heartbeat = leased()

    heartbeat.lease_lost(25.0)

    action = heartbeat.next_action(wanted="unhealthy", reason="down", now=25.0)
    assert action == Register("unhealthy", OURS + "down")


def test_an_unhealthy_instance_is_reported_with_its_reason() -> None:
    heartbeat = leased()

    heartbeat.health_changed()
    assert heartbeat.next_action(wanted="unhealthy", reason="answered 503", now=3.0) == Ask()
    heartbeat.state_learned("serving", "")

    report = Report("unhealthy", OURS + "answered 503")
    assert heartbeat.next_action(wanted="unhealthy", reason="answered 503", now=3.0) == report
    heartbeat.state_reported("unhealthy", 3.1)
    assert waits(heartbeat, 3.1, wanted="unhealthy") <= 25.0


def test_a_healthy_one_is_reported_serving_again() -> None:
    heartbeat = leased()
    heartbeat.state_learned("serving", "")
    heartbeat.state_reported("unhealthy", 3.0)

    heartbeat.health_changed()
    heartbeat.state_learned("unhealthy", OURS + "down")

    assert heartbeat.next_action(wanted="serving", now=4.0) == Report("serving", "")


def test_a_state_that_a_former_sidecar_left_behind_is_ended() -> None:
    """States survive registrations: without this a restarted service stayed out of DNS."""
    heartbeat = Heartbeat(None, middle)
    heartbeat.lease_granted("l", ttl=60, created=False, sent_at=0.0)

    assert heartbeat.next_action(wanted="serving", now=0.0) == Ask()
    heartbeat.state_learned("draining", OURS + "stopping")

    assert heartbeat.next_action(wanted="serving", now=0.1) == Report("serving", "")


@pytest.mark.parametrize("state", ["maintenance", "draining"])
def test_an_operators_state_is_left_to_the_operator(state: str) -> None:
    heartbeat = Heartbeat(None, middle)
    heartbeat.lease_granted("l", ttl=60, created=False, sent_at=0.0)

    heartbeat.state_learned(state, "disk is being changed")

    assert heartbeat.is_held_by_operator
    assert isinstance(heartbeat.next_action(wanted="serving", now=0.1), Wait)
    assert isinstance(heartbeat.next_action(wanted="unhealthy", now=0.1), Wait)


def test_when_an_operator_lets_an_unhealthy_instance_go_it_is_reported() -> None:
    heartbeat = leased()
    heartbeat.health_changed()
    heartbeat.state_learned("maintenance", "")
    assert isinstance(heartbeat.next_action(wanted="unhealthy", now=1.0), Wait)
    heartbeat.renewed(20.0)

    assert heartbeat.next_action(wanted="unhealthy", now=26.5) == Ask()
    heartbeat.state_learned("serving", "")

    assert isinstance(heartbeat.next_action(wanted="unhealthy", now=27.0), Report)


def test_a_listing_without_us_proves_nothing() -> None:
    """It may come from a replica that has not heard of us yet."""
    heartbeat = Heartbeat(None, middle)
    heartbeat.lease_granted("l", ttl=60, created=False, sent_at=0.0)

    heartbeat.state_learned("", "")

    assert heartbeat.lease is not None
    assert isinstance(heartbeat.next_action(wanted="serving", now=0.1), Wait)


@pytest.mark.parametrize("listed", ["", "serving"])
def test_a_listing_that_is_late_does_not_keep_it_out_of_dns(listed: str) -> None:
    """A replica that has not heard of our last write says it serves already, or knows us not."""
    heartbeat = waiting()

    heartbeat.health_changed()
    assert heartbeat.next_action(wanted="serving", now=3.0) == Ask()
    heartbeat.state_learned(listed, "")

    assert heartbeat.next_action(wanted="serving", now=3.0) == Report("serving", "")


def test_an_instance_that_fell_ill_during_an_outage_is_reported_when_it_ends() -> None:
    """Its lease may have outlived the outage, so that it would be answered for until expiry."""
    heartbeat = leased()
    heartbeat.failed(25.0)
    heartbeat.health_changed()

    assert heartbeat.next_action(wanted="unhealthy", now=90.0) == Ask()
    heartbeat.report_failed(90.0)
    assert heartbeat.next_action(wanted="unhealthy", now=90.0) == Register("unhealthy", OURS)
    heartbeat.not_shown(90.0)
    assert isinstance(heartbeat.next_action(wanted="unhealthy", now=90.0), Renew)
