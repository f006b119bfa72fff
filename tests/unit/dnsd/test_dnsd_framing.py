"""Messages cut out of a stream, in whatever pieces it comes."""

from hypothesis import given
from hypothesis import strategies as st

from dnsd.framing import Framing, frame

MESSAGES = st.lists(st.binary(min_size=12, max_size=60), max_size=8)


def taken(framing: Framing) -> list[bytes]:
    found = []
    while (message := framing.next_message()) is not None:
        found.append(message)
    return found


@given(MESSAGES, st.data())
def test_c2_any_split_of_the_stream_gives_the_same_messages(
    messages: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    framing, found = Framing(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        framing.feed(stream[start:end])
        found += taken(framing)

    assert found == messages
    assert framing.waiting == 0
    assert not framing.broken


@given(MESSAGES, st.integers(0, 11))
def test_c5_a_length_below_a_header_ends_the_stream(messages: list[bytes], length: int) -> None:
    framing = Framing()
    framing.feed(b"".join(map(frame, messages)) + length.to_bytes(2, "big") + b"x" * 50)

    assert taken(framing) == messages
    assert framing.broken
    framing.feed(frame(b"y" * 12))
    assert taken(framing) == []


def test_c7_no_more_is_held_than_has_arrived() -> None:
    framing = Framing()
    framing.feed(b"\xff\xff" + b"x" * 10)

    assert taken(framing) == []
    assert framing.waiting == 12


@given(st.binary(max_size=300))
def test_any_octets_never_fail(stream: bytes) -> None:
    framing = Framing()
    framing.feed(stream)

    for message in taken(framing):
        assert len(message) >= 12
