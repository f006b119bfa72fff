"""What is believed of a host after each look-up, and when the next is due."""

from registrar.hosts import INTERVAL, Failed, Found, HostBook, Missing

GOOD = Found(("10.0.0.1",))


def book_of(*hosts: str) -> HostBook:
    book = HostBook()
    book.due(hosts, 100.0)
    return book


def test_a_new_host_is_due_at_once_and_again_after_the_interval() -> None:
    book = HostBook()

    assert book.due(["db"], 100.0) == ["db"]
    assert book.due(["db"], 100.0 + INTERVAL - 0.1) == []
    assert book.due(["db", "web"], 100.0 + INTERVAL) == ["db", "web"]


def test_no_host_is_older_than_ten_seconds() -> None:
    """With a round a second, and half a second to answer."""
    assert INTERVAL + 1.0 + 0.5 < 10.0


def test_before_the_first_answer_nothing_is_believed() -> None:
    assert book_of("db").addresses("db") is None


def test_what_was_found_replaces_what_was_believed() -> None:
    book = book_of("db")
    book.told("db", GOOD)
    book.told("db", Found(("10.0.0.2", "10.0.0.3")))

    assert book.addresses("db") == ("10.0.0.2", "10.0.0.3")


def test_a_failure_is_no_proof() -> None:
    """R17: SERVFAIL or a time-out: the last addresses stay."""
    book = book_of("db")
    book.told("db", GOOD)
    for _ in range(100):
        book.told("db", Failed("time-out"))

    assert book.addresses("db") == ("10.0.0.1",)


def test_a_name_that_is_said_twice_not_to_exist_has_no_addresses() -> None:
    """R17: NXDOMAIN or NODATA: gone after one more try."""
    book = book_of("db")
    book.told("db", GOOD)
    book.told("db", Missing())
    assert book.addresses("db") == ("10.0.0.1",)
    book.told("db", Failed("time-out"))
    assert book.addresses("db") == ("10.0.0.1",)
    book.told("db", Missing())
    assert book.addresses("db") == ()


def test_an_answer_between_them_starts_the_count_anew() -> None:
    book = book_of("db")
    for _ in range(10):
        book.told("db", Missing())
        book.told("db", GOOD)
    book.told("db", Missing())

    assert book.addresses("db") == ("10.0.0.1",)


def test_a_host_that_nobody_has_is_forgotten() -> None:
    book = book_of("db", "web")
    book.told("db", GOOD)
    book.due(["web"], 101.0)

    assert "db" not in book
    assert book.addresses("db") is None


def test_a_strangers_host_takes_no_room() -> None:
    book = book_of("db")
    book.told("never-registered", GOOD)

    assert repr(book) == "<HostBook 1 hosts>"
