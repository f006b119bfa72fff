"""What holds for every heartbeat, whatever the registrar answers and when."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

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
from sidecar.heartbeat import Heartbeat
from sidecar.pace import MAX_BACKOFF, MAX_SHARE
from sidecar.stopping import Limits


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
