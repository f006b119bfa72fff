"""Messages over TCP: each behind its length in two octets, in whatever pieces they arrive."""

from dnsd.query import HEADER


class Framing:
    """Octets in, whole messages out, one at a time.  Holds no more than was fed."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.broken = False
        """A length was less than a header: what follows cannot be found any more."""

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next_message(self) -> bytes | None:
        """The next whole message; None when there is none yet, or never again."""
        buffer = self._buffer
        if self.broken or len(buffer) < 2:
            return None
        size = buffer[0] << 8 | buffer[1]
        if size < HEADER:
            self.broken = True
            buffer.clear()
            return None
        if len(buffer) < 2 + size:
            return None
        message = bytes(buffer[2 : 2 + size])
        del buffer[: 2 + size]
        return message

    @property
    def waiting(self) -> int:
        """Octets of messages that were not taken yet."""
        return len(self._buffer)


def frame(message: bytes) -> bytes:
    """*message* behind its length: one piece, so that it leaves in one segment."""
    return len(message).to_bytes(2, "big") + message
