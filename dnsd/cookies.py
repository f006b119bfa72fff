"""DNS cookies: how an asker shows that it has the address it asks from (RFC 7873, RFC 9018).

Servers with the same secret give and take each other's cookies, whoever made them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dnsd.siphash import siphash

CLIENT = 8
"""Octets of the client's part; the server's part is what follows."""

FULL = 24
"""Octets of client's and server's parts of a cookie that we may have made (RFC 9018, section 4)."""

OPTION = 4 + FULL
"""Octets that the option has in a reply."""

PAST, FUTURE = 3600, 300
"""Seconds by which the time in a cookie may differ from ours (RFC 9018, section 4.3)."""

RENEWED_AFTER = 1800
"""Seconds after which a valid cookie is replaced (RFC 9018, section 4.3)."""

REMEMBERED = 8192
"""Verdicts that are kept, so that a client that goes on asking costs no hash."""

REMEMBERED_FOR = 60
"""Seconds after which they are all forgotten: by no more do a cookie's times err."""

MAX_SECRETS = 3
"""The present one, the one before it, the one to come."""

VALID = "valid"

_OPTION_HEAD = b"\0\x0a\0\x18"
_FORM = b"\1\0\0\0"
"""Version 1 and the reserved octets, as we send them."""


class Verdict(NamedTuple):
    """What a cookie is worth, and the option that goes into the reply."""

    kind: str
    option: bytes

    @property
    def valid(self) -> bool:
        """Whether it shows that the asker is where he says."""
        return self.kind == VALID


class Cookies:
    """Judges and makes cookies under *secrets*: the first makes them, all are accepted.

    *clock* gives seconds since 1970.
    """

    def __init__(self, secrets: Sequence[bytes], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._verdicts: dict[tuple[bytes, bytes], Verdict] = {}
        self._forget_at = 0.0
        self.counts = {"new": 0, VALID: 0, "bad": 0}
        """By what came: `new` (a client's part alone), `valid`, `bad`."""
        self.use(secrets)

    def use(self, secrets: Sequence[bytes]) -> None:
        """From now on these *secrets*."""
        if not 1 <= len(secrets) <= MAX_SECRETS or any(len(s) != 16 for s in secrets):
            raise ValueError(f"1 to {MAX_SECRETS} secrets of 16 octets each")
        self._secrets = tuple(secrets)
        self._verdicts.clear()

    def judge(self, cookie: bytes, address: bytes) -> Verdict:
        """*cookie*, of a legal length, as it came from *address* (4 or 16 octets)."""
        now = self._clock()
        if now >= self._forget_at or len(self._verdicts) >= REMEMBERED:
            self._verdicts.clear()
            self._forget_at = now + REMEMBERED_FOR
        verdict = self._verdicts.get((cookie, address))
        if verdict is None:
            verdict = self._judge(cookie, address, int(now))
            self._verdicts[cookie, address] = verdict
        self.counts[verdict.kind] += 1
        return verdict

    def _judge(self, cookie: bytes, address: bytes, now: int) -> Verdict:
        # RFC 9018, section 4.3: the time by serial arithmetic, then the hash over what came.
        if len(cookie) == FULL and cookie[CLIENT] == 1:
            age = (now - int.from_bytes(cookie[12:16], "big") + (1 << 31)) % (1 << 32) - (1 << 31)
            if -FUTURE <= age <= PAST:
                for secret in self._secrets:
                    if _hash(secret, cookie[:16], address) == cookie[16:]:
                        if age <= RENEWED_AFTER and secret is self._secrets[0]:
                            return Verdict(VALID, _OPTION_HEAD + cookie)
                        return Verdict(VALID, self._made(cookie, address, now))
        kind = "new" if len(cookie) == CLIENT else "bad"
        return Verdict(kind, self._made(cookie, address, now))

    def _made(self, cookie: bytes, address: bytes, now: int) -> bytes:
        begun = cookie[:CLIENT] + _FORM + (now % (1 << 32)).to_bytes(4, "big")
        return _OPTION_HEAD + begun + _hash(self._secrets[0], begun, address)


def _hash(secret: bytes, begun: bytes, address: bytes) -> bytes:
    return siphash(secret, begun + address).to_bytes(8, "little")
