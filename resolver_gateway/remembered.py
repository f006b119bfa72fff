"""Heads that come again and again, kept with what they mean.

A head is kept when it comes for the second time, so that a stranger who sends another one each
time fills nothing and drives nothing out.  Those that hold secrets are never kept, so that no
core dump of an idle gateway has them.
"""

import re
from typing import Final, Generic, TypeVar

MAX_HEADS: Final = 512
"""When there are more, all are forgotten at once."""

MAX_LENGTH: Final = 1024
"""Octets of a head that is kept; with the number above this bounds them to some 2 MiB."""

MAX_SEEN: Final = 4096
"""Hashes of heads that came once; forgotten all at once when there are more."""

SECRETS: Final = frozenset(
    {b"authorization", b"cookie", b"set-cookie", b"x-api-key", b"proxy-authorization"}
)

_SECRET_LINE: Final = re.compile(rb"\n(?:" + b"|".join(sorted(SECRETS)) + rb"):", re.IGNORECASE)

T = TypeVar("T")


class Remembered(Generic[T]):
    """What the heads in it mean, by their bytes."""

    __slots__ = ("_seen", "get", "heads")

    def __init__(self) -> None:
        self.heads: dict[bytes, T] = {}
        self.get = self.heads.get
        """What a head means; None when it is not kept."""
        self._seen: set[int] = set()

    def __repr__(self) -> str:
        return f"<Remembered {len(self.heads)} heads>"

    def keep(self, head: bytes, meaning: T) -> None:
        """*head* was read and means *meaning*: keep that, if it may and is worth it."""
        # Python's hash of bytes has a secret key (SipHash), so nobody can make two alike.
        mark = hash(head)
        if mark not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(mark)
        elif len(head) <= MAX_LENGTH and _SECRET_LINE.search(head) is None:
            if len(self.heads) >= MAX_HEADS:
                self.heads.clear()
            self.heads[head] = meaning
