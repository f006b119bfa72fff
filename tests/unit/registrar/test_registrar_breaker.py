"""When the store is asked, and when not."""

from registrar.breaker import CLOSED, HALF_OPEN, OPEN, Breaker


def opened(at: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        assert breaker.admits(at)
        breaker.failed(at)
    return breaker


def test_three_failures_in_a_row_open_it() -> None:
    breaker = Breaker()
    breaker.failed(1.0)
    breaker.failed(2.0)

    assert breaker.state(2.0) == CLOSED
    breaker.failed(3.0)
    assert breaker.state(3.0) == OPEN
    assert not breaker.admits(3.0)


def test_a_success_between_them_starts_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.failed(1.0)
        breaker.failed(1.0)
        breaker.succeeded()

    assert breaker.state(1.0) == CLOSED


def test_after_thirty_seconds_it_is_half_open() -> None:
    breaker = opened(100.0)

    assert breaker.state(129.9) == OPEN
    assert breaker.state(130.0) == HALF_OPEN


def test_a_ping_that_succeeds_makes_it_half_open_sooner() -> None:
    breaker = opened(100.0)
    breaker.pinged(101.0)

    assert breaker.state(101.0) == HALF_OPEN


def test_a_ping_does_nothing_to_a_closed_one() -> None:
    breaker = Breaker()
    breaker.pinged(1.0)

    assert breaker.state(1.0) == CLOSED


def test_half_open_admits_one_call_at_a_time() -> None:
    breaker = opened(100.0)

    assert [breaker.admits(130.0), breaker.admits(130.0)] == [True, False]


def test_the_one_call_closes_it_or_opens_it_again() -> None:
    well, ill = opened(100.0), opened(100.0)
    assert well.admits(130.0)
    assert ill.admits(130.0)
    well.succeeded()
    ill.failed(131.0)

    assert well.state(131.0) == CLOSED
    assert [ill.state(160.9), ill.state(161.0)] == [OPEN, HALF_OPEN]


def test_a_call_that_was_cancelled_makes_room_for_the_next() -> None:
    """The predecessor's stayed open until someone deleted something."""
    breaker = opened(100.0)
    assert breaker.admits(130.0)
    breaker.abandoned()

    assert breaker.admits(130.0)
