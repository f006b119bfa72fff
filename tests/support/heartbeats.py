"""Heartbeats as tests begin with them; chance is always in the middle."""

from sidecar.actions import Register, Wait
from sidecar.heartbeat import OURS, Heartbeat


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


def waiting(at: float = 0.0) -> Heartbeat:
    """One that was registered before it was ever healthy."""
    heartbeat = Heartbeat(None, middle)
    asked = heartbeat.next_action(wanted="waiting", reason="answered 503", now=at)
    assert asked == Register("waiting", OURS + "answered 503")
    heartbeat.lease_granted("lease-1", ttl=60, sent_at=at, asked=asked)
    return heartbeat
