"""Who may do what: the tokens of the file, whose names they are, and who only guesses.

Without a file of tokens everybody may do everything.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final, Never

from registrar.errors import Forbidden, LimitReached, Unauthorized
from registrar.tokens import Token, Tokens
from registry import names

ANYONE: Final = "anyone"
"""Who did it, where nobody has to say."""

FAILURES: Final = 20
"""Refused tokens of one address in a row; then it is refused unheard, FAILURE_SECONDS for each."""

FAILURE_SECONDS: Final = 6.0

MAX_STRANGERS: Final = 4096
"""Addresses whose failures are remembered; the one that failed longest ago is forgotten first."""


class Access:
    """Judges requests by *tokens*; None: there are none.  Reads are open, unless *read_tokens*."""

    def __init__(self, tokens: Tokens | None = None, read_tokens: bool = False) -> None:
        self._tokens = tokens
        self._read_tokens = read_tokens
        self._strangers = Strangers()

    def __repr__(self) -> str:
        return f"<Access {'open' if self._tokens is None else f'{len(self._tokens)} tokens'}>"

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a token."""
        return self._tokens is None

    def use(self, tokens: Tokens) -> None:
        """Judge by *tokens* from now on."""
        self._tokens = tokens

    def admit(
        self, headers: Mapping[str, str], caller: str, right: str, now: float
    ) -> Token | None:
        """Whose token the request shows, if it may do what needs *right*; None: nobody asks.

        Unauthorized without a valid token, LimitReached when the caller only guesses,
        Forbidden when the token has other rights.
        """
        if self._tokens is None:
            return None
        secret = secret_in(headers)
        if secret is None and right == "read" and not self._read_tokens:
            return None
        who = self._tokens.holder(secret) if secret else None
        if who is None:
            why = "a token is required" if secret is None else "the token is not known here"
            self._refuse(why, caller, now)
        elif right not in who.rights and (right != "read" or self._read_tokens):
            raise Forbidden(f"the token {who.name!r} has no right to {right}")
        return who

    def _refuse(self, why: str, caller: str, now: float) -> Never:
        if not self._strangers.may_fail(caller, now):
            raise LimitReached(
                "unauthorized", f"{FAILURES} requests without a valid token; come back later"
            )
        raise Unauthorized(f"{why}; send Authorization: Bearer TOKEN (or X-Registry-Token: TOKEN)")

    def require_name(self, who: Token | None, service: str, owner: str) -> None:
        """Forbidden unless *who* may change what goes by the name *service*, which is *owner*'s.

        An empty owner is nobody.
        """
        if self._tokens is None or who is None:
            return
        if not who.covers(names.fold(service)):
            raise Forbidden(f"the token {who.name!r} does not cover the name {service[:64]!r}")
        if not who.operator and owner not in ("", who.name):
            raise Forbidden(f"the name {service[:64]!r} belongs to another token")


def secret_in(headers: Mapping[str, str]) -> str | None:
    """The token that a request shows; None when it shows none, "" when it shows no token of ours.

    Consul's clients have a header of their own.
    """
    authorization = headers.get("Authorization")
    if authorization is not None:
        scheme, _, secret = authorization.partition(" ")
        return secret.strip() if scheme.lower() == "bearer" else ""
    return headers.get("X-Registry-Token") or headers.get("X-Consul-Token")


def name_of(who: Token | None) -> str:
    """Who did it, for the log."""
    return ANYONE if who is None else who.name


class Strangers:
    """How often each address failed of late, as a bucket that leaks.

    A valid token is never refused for its address: others behind it may be strangers.
    """

    def __init__(self) -> None:
        self._free_at: dict[str, float] = {}

    def may_fail(self, caller: str, now: float) -> bool:
        """Count one failure of *caller*; False when it has had too many."""
        caller = _network_of(caller)
        free_at = max(now, self._free_at.pop(caller, now)) + FAILURE_SECONDS
        allowed = free_at - now <= FAILURES * FAILURE_SECONDS
        self._free_at[caller] = free_at if allowed else free_at - FAILURE_SECONDS
        if len(self._free_at) > MAX_STRANGERS:
            del self._free_at[next(iter(self._free_at))]
        return allowed


def _network_of(caller: str) -> str:
    # A host with IPv6 has a whole /64 to come from.
    if ":" not in caller:
        return caller
    return str(ipaddress.IPv6Network((caller, 64), strict=False))
