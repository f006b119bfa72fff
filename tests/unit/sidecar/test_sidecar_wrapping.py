"""What becomes of a wrapped command, decided without one."""

import signal
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wrapping import (
    Act,
    Drain,
    Kill,
    Leave,
    Pass,
    Phase,
    Reload,
    Wrapping,
    exit_status,
)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_drain_then_the_signal_then_the_end(signum: int) -> None:
    """The command hears of it only when nobody is sent to it any more; and hears what was sent."""
    wrapping = Wrapping(9.5)

    assert wrapping.told_to_stop(signum, 10.0) == [Drain()]
    assert wrapping.drained() == [Pass(signum)]
    assert wrapping.ended() == [Leave()]
    assert wrapping.phase is Phase.ENDED


def test_the_second_wish_to_stop_is_passed_on_at_once_and_the_third_kills() -> None:
    wrapping = Wrapping(9.5)
    wrapping.told_to_stop(signal.SIGTERM, 10.0)

    assert wrapping.told_to_stop(signal.SIGINT, 10.5) == [Pass(signal.SIGINT)]
    assert wrapping.drained() == [], "it has been told already"
    assert wrapping.told_to_stop(signal.SIGTERM, 11.0) == [Kill()]


def test_one_that_does_not_end_in_time_is_killed_once() -> None:
    wrapping = Wrapping(9.5)
    assert wrapping.at(1000.0) == [], "nobody wants it to end"
    wrapping.told_to_stop(signal.SIGTERM, 10.0)
    wrapping.drained()

    assert wrapping.at(19.4) == []
    assert wrapping.at(19.5) == [Kill()]
    assert wrapping.at(19.6) == []


def test_one_that_ends_by_itself_is_deregistered_at_once() -> None:
    wrapping = Wrapping(9.5)

    assert wrapping.ended() == [Leave()]
    assert wrapping.told_to_stop(signal.SIGTERM, 1.0) == []
    assert wrapping.told(signal.SIGHUP, reloads=True) == [Reload()]


def test_one_that_ends_while_it_drains_is_not_waited_for() -> None:
    wrapping = Wrapping(9.5)
    wrapping.told_to_stop(signal.SIGTERM, 10.0)

    assert wrapping.ended() == [Leave()]
    assert wrapping.drained() == []


def test_other_signals_are_the_commands() -> None:
    wrapping = Wrapping(9.5)

    assert wrapping.told(signal.SIGUSR1, reloads=False) == [Pass(signal.SIGUSR1)]
    assert wrapping.told(signal.SIGHUP, reloads=True) == [Reload(), Pass(signal.SIGHUP)]
    assert wrapping.phase is Phase.RUNNING


@pytest.mark.parametrize(("status", "ours"), [(0, 0), (7, 7), (255, 255), (-9, 137), (-15, 143)])
def test_our_status_is_the_commands(status: int, ours: int) -> None:
    assert exit_status(status) == ours


def played(wrapping: Wrapping, event: str, now: float) -> Sequence[Act]:
    match event:
        case "stop":
            return wrapping.told_to_stop(signal.SIGTERM, now)
        case "hup":
            return wrapping.told(signal.SIGHUP, reloads=True)
        case "drained":
            return wrapping.drained()
        case "late":
            return wrapping.at(now + 100.0)
    return wrapping.ended()


@given(st.lists(st.sampled_from(["stop", "hup", "drained", "late", "ended"]), max_size=12))
def test_law_nothing_is_sent_to_what_has_ended_nor_killed_before_it_was_to_stop(
    events: list[str],
) -> None:
    wrapping, wished, over = Wrapping(5.0), False, False
    for now, event in enumerate(events):
        acts = played(wrapping, event, float(now))
        wished = wished or event == "stop"
        over = over or event == "ended"
        assert not over or not any(isinstance(act, Pass | Kill | Drain) for act in acts)
        assert wished or not any(isinstance(act, Kill | Drain) for act in acts)
