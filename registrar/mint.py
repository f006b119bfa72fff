"""`python -m registrar.mint NAME [PATTERN...]`: a new token, and its entry in the tokens file."""

import json
import secrets
import sys
from collections.abc import Sequence

from registrar.tokens import PREFIX, TokensError, digest_of, parse_tokens

BITS = 256
"""Nobody guesses it, so that its digest may be a fast one."""

USAGE = "usage: python -m registrar.mint NAME [PATTERN...]\n"


def entry_for(secret: str, name: str, patterns: Sequence[str]) -> str:
    """The entry of the tokens file; TokensError when the file would not take it."""
    entry = (
        "[[token]]\n"
        f"name = {json.dumps(name)}\n"
        f"sha256 = [{json.dumps(digest_of(secret))}]\n"
        f"services = {json.dumps(list(patterns))}\n"
    )
    parse_tokens(entry)
    return entry


def main(argv: Sequence[str]) -> int:
    """The entry on stdout, to be appended to the file; the token, shown this once, on stderr."""
    if not argv or argv[0].startswith("-"):
        sys.stderr.write(USAGE)
        return 2
    secret = PREFIX + secrets.token_urlsafe(BITS // 8)
    try:
        entry = entry_for(secret, argv[0], argv[1:] or ["*"])
    except TokensError as error:
        sys.stderr.write("".join(f"error: {problem}\n" for problem in error.problems))
        return 2
    sys.stdout.write(entry)
    sys.stderr.write(f"token: {secret}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
