"""The heartbeat decides; here its decisions are obeyed in a world whose time is a number."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.actions import (
    Action,
    Ask,
    Deregister,
    Register,
    Renew,
    Report,
    Stopped,
    Wait,
)
from sidecar.heartbeat import OURS, REASON_PACE, Heartbeat
from sidecar.pace import MAX_BACKOFF, MAX_SHARE
from sidecar.stopping import Limits


def middle() -> float:
    return 0.5


def leased(ttl: float = 60.0, interval: float = 25.0, at: float = 0.0) -> Heartbeat:
    heartbeat = Heartbeat(None, middle)
    assert heartbeat.next_action(wanted="serving", now=at) == Register()
    heartbeat.lease_granted("lease-1", ttl=ttl, interval=interval, sent_at=at)
    heartbeat.renewed(at)
    return heartbeat


def waits(heartbeat: Heartbeat, now: float, wanted: str = "serving") -> float:
    action = heartbeat.next_action(wanted=wanted, reason="down", now=now)
    assert isinstance(action, Wait), action
    return action.seconds


def test_nothing_is_registered_while_its_health_is_not_known() -> None:
    heartbeat = Heartbeat(None, middle)

    assert isinstance(heartbeat.next_action(wanted="", now=0.0), Wait)
    assert heartbeat.next_action(wanted="serving", now=0.1) == Register()


def waiting(at: float = 0.0) -> Heartbeat:
    """One that was registered before it was ever healthy."""
    heartbeat = Heartbeat(None, middle)
    asked = heartbeat.next_action(wanted="waiting", reason="answered 503", now=at)
    assert asked == Register("waiting", OURS + "answered 503")
    heartbeat.lease_granted("lease-1", ttl=60, sent_at=at, asked=asked)
    return heartbeat


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


def test_a_waiting_one_leaves_without_a_drain() -> None:
    heartbeat = waiting()

    heartbeat.stop(1.0, lame_duck=5.0)

    assert heartbeat.next_action(wanted="waiting", now=1.0) == Deregister("lease-1")


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


def test_an_unhealthy_instance_that_lost_its_lease_does_not_come_back_into_dns() -> None:
    """After a flush of the store it is listed again, and not answered."""
    heartbeat = leased()

    heartbeat.lease_lost(25.0)

    action = heartbeat.next_action(wanted="unhealthy", reason="down", now=25.0)
    assert action == Register("unhealthy", OURS + "down")


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


def test_changed_data_is_sent_in_place_of_the_next_renewal() -> None:
    """Not at once: a status that flaps would be a change in DNS every five seconds."""
    heartbeat = leased()

    heartbeat.data_changed()

    assert waits(heartbeat, 1.0) > 20.0
    assert heartbeat.next_action(wanted="serving", now=24.0) == Register()


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


def test_renewals_join_another_only_when_they_are_near() -> None:
    heartbeat = leased()

    assert heartbeat.joins(5.0) is None
    assert heartbeat.joins(20.0) == Renew("lease-1", 5.0)


# --- laws ----------------------------------------------------------------------------------


@dataclass
class World:
    """A registrar that answers as told, and a clock; obeys a heartbeat and keeps a diary."""

    heartbeat: Heartbeat
    answers: Sequence[bool]
    ttl: float = 60.0
    now: float = 0.0
    asked: int = 0
    expires_at: float = 0.0
    lease: str = ""
    granted: int = 0
    last_success: float = 0.0
    diary: list[tuple[float, Action]] = field(default_factory=list)

    def answering(self) -> bool:
        answer = self.answers[self.asked % len(self.answers)]
        self.asked += 1
        return answer

    def step(self, wanted: str = "serving") -> Action:
        action = self.heartbeat.next_action(wanted=wanted, reason="down", now=self.now)
        self.diary.append((self.now, action))
        match action:
            case Wait(seconds):
                assert seconds >= 0
                self.now += max(seconds, 0.001)
            case Stopped():
                pass
            case _:
                self.perform(action)
        return action

    def perform(self, action: Action) -> None:
        heartbeat, sent_at = self.heartbeat, self.now
        is_answered = self.answering()
        self.now += 0.01 if is_answered else 1.0
        match action:
            case Register() | Renew() if not is_answered:
                heartbeat.failed(self.now)
            case _ if not is_answered:
                heartbeat.report_failed(self.now)
            case Register():
                created = not self.lease or self.now > self.expires_at
                self.granted += 1
                self.lease = f"lease-{self.granted}"
                self.expires_at, self.last_success = self.now + self.ttl, sent_at
                heartbeat.lease_granted(
                    self.lease, ttl=self.ttl, created=created, sent_at=sent_at, asked=action
                )
            case Renew(lease_id):
                if lease_id != self.lease or self.now > self.expires_at:
                    heartbeat.lease_lost(self.now)
                else:
                    self.expires_at, self.last_success = self.now + self.ttl, sent_at
                    heartbeat.renewed(sent_at)
            case Ask():
                heartbeat.state_learned("serving", "")
            case Report(state, _):
                heartbeat.state_reported(state, self.now)
            case Deregister():
                self.lease = ""
                heartbeat.deregistered()


def worlds(answers: st.SearchStrategy[list[bool]]) -> st.SearchStrategy[World]:
    def build(seed: int, answers: list[bool], ttl: float, interval: float | None) -> World:
        return World(Heartbeat(interval, random.Random(seed).random), answers, ttl)

    return st.builds(
        build,
        st.integers(0, 2**32),
        answers,
        st.floats(5, 3600),
        st.none() | st.floats(1, 3600),
    )


some_answers = st.lists(st.booleans(), min_size=1, max_size=30)


@given(worlds(st.just([True])))
def test_law_renewed_in_time_when_the_registrar_answers(world: World) -> None:
    for _ in range(200):
        world.step()
        assert world.now - world.last_success <= MAX_SHARE * world.ttl + 0.1


@given(worlds(some_answers), st.lists(st.booleans(), min_size=1, max_size=20))
def test_law_never_two_leases(world: World, health: list[bool]) -> None:
    """A registration follows a lease only once that is lost, has passed, or is sent anew."""
    for step in range(150):
        before = world.heartbeat.lease
        action = world.step("serving" if health[step % len(health)] else "unhealthy")
        if isinstance(action, Register):
            assert before is None or world.diary[-1][0] >= before.ends_at
            assert (action.state == "serving") == health[step % len(health)]
        if isinstance(action, Renew):
            assert before is not None
            assert action.lease_id == before.lease_id


@given(worlds(some_answers), st.floats(0, 1))
def test_law_an_unreachable_registrar_never_loses_a_lease_before_its_end(
    world: World, share: float
) -> None:
    world.answers = [True]
    while world.heartbeat.lease is None:
        world.step()
    lease = world.heartbeat.lease
    world.answers = [False]

    while world.now < lease.ends_at:
        action = world.step()
        assert world.heartbeat.lease == lease
        assert not isinstance(action, Register) or world.diary[-1][0] >= lease.ends_at


@given(worlds(st.just([False])))
def test_law_it_tries_for_ever_and_at_least_once_a_minute(world: World) -> None:
    for _ in range(100):
        world.step()
    attempts = [moment for moment, action in world.diary if isinstance(action, Register)]

    assert len(attempts) > 40
    assert all(b - a <= MAX_BACKOFF + 1.01 for a, b in pairwise(attempts))


@settings(max_examples=200)
@given(worlds(some_answers), st.integers(0, 60), st.floats(0, 10))
def test_law_after_stop_the_last_action_is_deregister(
    world: World, steps: int, lame_duck: float
) -> None:
    for _ in range(steps):
        world.step()
    owed = world.heartbeat.lease is not None
    began = world.now
    world.diary.clear()
    world.heartbeat.stop(began, lame_duck=lame_duck)

    while not isinstance(world.step(), Stopped):
        assert world.now < began + Limits().total + 1.5

    done = [action for _, action in world.diary if not isinstance(action, Wait | Stopped)]
    assert not any(isinstance(action, Register | Ask) for action in done)
    if owed:
        assert isinstance(done[-1], Deregister)
