"""The rules of leases, as values: when one is over, held, or one of too many."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from registry import lease
from registry.lease import Losses

times = st.integers(0, 4_000_000_000_000)


@given(times, st.integers(5_000, 3_600_000))
def test_a_lease_is_live_for_its_ttl_and_its_grace_each_once(renewed: int, ttl: int) -> None:
    """Eureka once added the ttl twice; ours is added in one place."""
    expires = renewed + ttl
    last = expires + lease.GRACE_MS

    assert not lease.is_expired(expires, renewed)
    assert not lease.is_expired(expires, last - 1)
    assert lease.is_expired(expires, last)


def test_a_new_store_has_had_no_outage() -> None:
    assert not lease.is_outage(None, 10**12)


@pytest.mark.parametrize(
    ("gap", "outage"), [(0, False), (1000, False), (5000, False), (5001, True), (-1, True)]
)
def test_no_sweep_for_five_seconds_or_a_clock_that_went_back_is_an_outage(
    gap: int, outage: bool
) -> None:
    assert lease.is_outage(1_000_000, 1_000_000 + gap) is outage


def test_a_lease_from_before_the_outage_is_held_for_seventy_seconds_after_it() -> None:
    end = 1_000_000

    assert not lease.is_held(0, None, end)
    assert lease.is_held(end, end, end)
    assert lease.is_held(end - 1, end, end + 69_999)
    assert not lease.is_held(end - 1, end, end + 70_000)
    assert not lease.is_held(end + 1, end, end + 2), "it was renewed since"


@pytest.mark.parametrize(
    ("base", "allowed"), [(1, 1), (2, 2), (3, 1), (4, 2), (5, 2), (6, 3), (100, 50)]
)
def test_of_three_or_more_at_most_half_may_be_lost(base: int, allowed: int) -> None:
    losses = Losses(10**12, base, 0)
    lost = 0
    while lost < base and not lease.is_mass_expiry(losses):
        losses = losses._replace(lost=losses.lost + 1)
        lost += 1

    assert lost == allowed


def test_losses_count_from_what_served_at_the_first_until_one_lease_later() -> None:
    first = lease.losses_at(None, 10, 60_000, 1_000)

    assert first == Losses(61_000, 10, 0)
    later = first._replace(lost=3)
    assert lease.losses_at(later, 7, 60_000, 60_999) == later
    assert lease.losses_at(later, 7, 60_000, 61_000) == Losses(121_000, 7, 0)


def test_the_departed_are_remembered_for_two_leases() -> None:
    assert lease.tombstone_ends_ms(60_000, 1_000) == 121_000
    assert lease.tombstone_ends_ms(0, 1_000) == 121_000, "without a lease as with one of 60 s"


@given(times, times, times)
def test_a_new_epoch_is_above_everything_ever_seen_by_less_than_serials_allow(
    stored: int, known: int, unix_time: int
) -> None:
    raised = lease.next_epoch(stored, known, unix_time)

    assert raised > max(stored, known, unix_time)
    assert raised - max(stored, known, unix_time) < 2**31
