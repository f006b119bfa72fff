"""Tokens: what the file of `--tokens` says, whose token somebody shows, what its holder may do.

Only digests are kept.  A token is random (256 bits), so that a plain SHA-256 of it gives nothing
away, and looking it up in a table tells an attacker nothing by its timing.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from registry import names
from registry.errors import CallboardError

PREFIX: Final = "cbt_"
"""Begins every token of ours, so that scanners for leaked secrets know one when they see it."""

RIGHTS: Final = ("register", "deregister", "state", "settings", "guard", "read")

USUAL_RIGHTS: Final = frozenset(("register", "deregister", "state", "read"))
"""What a sidecar needs, and what a token has whose entry does not say."""

MAX_TOKENS: Final = 10_000
MAX_PATTERNS: Final = 100
MAX_QUOTA: Final = 1_000_000
DIGESTS: Final = 2
"""Valid at a time for one name: the old and the new one, while a token is exchanged."""


@dataclass(frozen=True, slots=True)
class Token:
    """What the holder of a token may do.

    *services* are patterns of folded names, in which `*` stands for anything; the quotas are of
    what it may own, None for as much as there is room for.  Names that belong to another token
    are closed to it, unless it is an *operator*'s.
    """

    name: str
    services: tuple[str, ...]
    rights: frozenset[str] = USUAL_RIGHTS
    max_services: int | None = None
    max_instances: int | None = None
    operator: bool = False

    def covers(self, service: str) -> bool:
        """Whether the folded name *service* fits one of its patterns."""
        return _is_covered(service, self.services)


@lru_cache(16_384)
def _is_covered(service: str, patterns: tuple[str, ...]) -> bool:
    return any(_fits(service, pattern.split("*")) for pattern in patterns)


def _fits(name: str, parts: list[str]) -> bool:
    """Whether *parts* stand in *name* in this order, the first and the last at its ends.

    Taking each as early as it can be had is always right, so that no pattern takes long.
    """
    first, *middle = parts
    if not middle:
        return name == first
    *middle, last = middle
    if not name.startswith(first) or len(name) < len(first) + len(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return name.endswith(last)


@dataclass(frozen=True, slots=True)
class Tokens:
    """All tokens of a file, by the hexadecimal SHA-256 of their secret."""

    by_digest: Mapping[str, Token]

    def holder(self, secret: str) -> Token | None:
        """Whose token *secret* is; None when it is nobody's."""
        return self.by_digest.get(digest_of(secret))

    def __len__(self) -> int:
        return len({token.name for token in self.by_digest.values()})


def digest_of(secret: str) -> str:
    """What the file keeps of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


# --- the file ---------------------------------------------------------------------------------


class TokensError(CallboardError):
    """The file of tokens is wrong; *problems* holds every fault of it."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def parse_tokens(text: str) -> Tokens:
    """The tokens in a TOML file's *text*; TokensError holds every problem."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TokensError([f"not TOML: {error}"]) from error
    problems = [
        f"{key}: unknown; only [[token]] tables are known" for key in document.keys() - {"token"}
    ]
    entries = document.get("token", [])
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise TokensError([*problems, "token: not a list of tables; write [[token]]"])
    if not 1 <= len(entries) <= MAX_TOKENS:
        problems.append(f"{len(entries)} tokens; 1 to {MAX_TOKENS} are required")
    by_digest: dict[str, Token] = {}
    seen: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        found = list(_problems_of(entry))
        where = f"token {number}"
        name = entry.get("name")
        if isinstance(name, str) and name:
            where = f"token {name[:64]!r}"
            if name in seen:
                found.append("there is another of that name")
            seen.add(name)
        problems += [f"{where}: {problem}" for problem in found]
        if not found:
            for digest in entry["sha256"]:
                if digest.lower() in by_digest:
                    problems.append(f"{where}: sha256 {digest[:8]}… stands there twice")
                by_digest[digest.lower()] = _token(entry)
    if problems:
        raise TokensError(problems)
    return Tokens(by_digest)


def _token(entry: Mapping[str, Any]) -> Token:
    return Token(
        entry["name"],
        tuple(names.fold(pattern) for pattern in entry["services"]),
        frozenset(entry.get("rights", USUAL_RIGHTS)),
        entry.get("max_services"),
        entry.get("max_instances"),
        entry.get("operator", False),
    )


_KEYS: Final = frozenset("name sha256 services rights max_services max_instances operator".split())


def _problems_of(entry: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(entry.keys() - _KEYS):
        yield f"{key}: unknown; known are {', '.join(sorted(_KEYS))}"
    for key in ("name", "sha256", "services"):
        if key not in entry:
            yield f"{key}: it is required"
    name = entry.get("name", "x")
    if not isinstance(name, str) or names.problem_of_locality(name) is not None:
        yield f"name: {str(name)[:64]!r} is not {names.LOCALITY_RULE}"
    digests = entry.get("sha256", ["0" * 64])
    if not _is_texts(digests, 1, DIGESTS):
        yield f"sha256: it is a list of 1 or {DIGESTS} digests"
    else:
        for digest in digests:
            if re.fullmatch("[0-9A-Fa-f]{64}", digest) is None:
                yield f"sha256: {digest[:8]!r}… is not 64 hexadecimal digits"
    patterns = entry.get("services", ["*"])
    if not _is_texts(patterns, 1, MAX_PATTERNS):
        yield f"services: it is a list of 1 to {MAX_PATTERNS} patterns"
    else:
        for pattern in patterns:
            if re.fullmatch(r"[A-Za-z0-9_*-]{1,63}", pattern) is None:
                yield f"services: {pattern[:64]!r} is not a name, in which * stands for anything"
    rights = entry.get("rights", [])
    if not _is_texts(rights, 0, len(RIGHTS)) or not set(rights) <= set(RIGHTS):
        yield f"rights: they are a list of {', '.join(RIGHTS)}"
    for key in ("max_services", "max_instances"):
        value = entry.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_QUOTA:
            yield f"{key}: {value!r} is not a whole number in 0..{MAX_QUOTA}"
    if not isinstance(entry.get("operator", False), bool):
        yield "operator: it is not true or false"


def _is_texts(value: object, low: int, high: int) -> bool:
    return (
        isinstance(value, list)
        and low <= len(value) <= high
        and all(isinstance(item, str) for item in value)
    )
