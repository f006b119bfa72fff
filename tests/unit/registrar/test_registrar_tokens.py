"""The file of tokens: what it may say, whose token is whose, which names a pattern covers."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from registrar import mint
from registrar.tokens import (
    PREFIX,
    USUAL_RIGHTS,
    Token,
    TokensError,
    digest_of,
    parse_tokens,
)

OLD, NEW = digest_of("cbt_old"), digest_of("cbt_new")

GOOD = f"""
[[token]]
name = "payments-team"
sha256 = ["{OLD}", "{NEW.upper()}"]
services = ["Pay_ments", "billing-*"]
max_services = 2
max_instances = 5

[[token]]
name = "operators"
sha256 = ["{digest_of("cbt_op")}"]
services = ["*"]
rights = ["deregister", "state", "settings", "guard", "read"]
operator = true
"""


def test_a_file_says_whose_each_token_is_and_what_it_may_do() -> None:
    tokens = parse_tokens(GOOD)

    team = Token("payments-team", ("pay-ments", "billing-*"), USUAL_RIGHTS, 2, 5)
    assert tokens.holder("cbt_old") == tokens.holder("cbt_new") == team
    operators = tokens.holder("cbt_op")
    assert operators is not None
    assert operators.operator
    assert "register" not in operators.rights
    assert len(tokens) == 2


@pytest.mark.parametrize("secret", ["", "cbt_", "cbt_old ", "CBT_OLD", OLD, "\udcff"])
def test_what_is_no_token_is_nobodys(secret: str) -> None:
    """The digest is no token either: who reads the file can do nothing with it."""
    assert parse_tokens(GOOD).holder(secret) is None


ENTRY: dict[str, Any] = {"name": "x", "sha256": [OLD], "services": ["*"]}


def toml(entry: dict[str, Any]) -> str:
    def value(v: Any) -> str:
        if isinstance(v, bool):
            return str(v).lower()
        return "[" + ", ".join(map(value, v)) + "]" if isinstance(v, list) else repr(v)

    return "[[token]]\n" + "".join(f"{k} = {value(v)}\n" for k, v in entry.items())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": 5}, "name"),
        ({"sha256": []}, "sha256"),
        ({"sha256": [OLD[:-1]]}, "sha256"),
        ({"sha256": [OLD, NEW, digest_of("x")]}, "sha256"),
        ({"sha256": OLD}, "sha256"),
        ({"sha256": ["g" * 64]}, "sha256"),
        ({"sha256": [5]}, "sha256"),
        ({"services": []}, "services"),
        ({"services": ["a.b"]}, "services"),
        ({"services": [""]}, "services"),
        ({"services": ["a" * 64]}, "services"),
        ({"services": ["a"] * 101}, "services"),
        ({"rights": ["write"]}, "rights"),
        ({"rights": "read"}, "rights"),
        ({"max_services": -1}, "max_services"),
        ({"max_services": True}, "max_services"),
        ({"max_instances": 1.5}, "max_instances"),
        ({"operator": 1}, "operator"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_what_an_entry_may_not_say(change: dict[str, Any], named: str) -> None:
    with pytest.raises(TokensError) as caught:
        parse_tokens(toml({**ENTRY, **change}))

    (problem,) = caught.value.problems
    assert f": {named}: " in problem


@pytest.mark.parametrize("field", ["name", "sha256", "services"])
def test_what_an_entry_must_say(field: str) -> None:
    entry = {key: value for key, value in ENTRY.items() if key != field}

    with pytest.raises(TokensError, match=f"{field}: it is required"):
        parse_tokens(toml(entry))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 tokens"),
        ("[[token]", "not TOML"),
        ("token = 5", "not a list"),
        (toml(ENTRY) + toml(ENTRY), "another of that name"),
        (toml(ENTRY) + toml({**ENTRY, "name": "y"}), "stands there twice"),
        (toml({**ENTRY, "sha256": [OLD, OLD]}), "stands there twice"),
        ("other = 1\n" + toml(ENTRY), "other: unknown"),
    ],
)
def test_what_a_file_may_not_be(text: str, reason: str) -> None:
    with pytest.raises(TokensError, match=reason):
        parse_tokens(text)


def test_every_problem_is_said_at_once_and_none_shows_a_digest() -> None:
    with pytest.raises(TokensError) as caught:
        parse_tokens(toml({"name": "a b", "sha256": [OLD + "0"], "rights": ["x"]}))

    assert len(caught.value.problems) == 4
    assert OLD not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("payments", ["payments"], ["payments2", "payment", "my-payments", ""]),
        ("*", ["payments", "a"], []),
        ("pay*", ["pay", "payments"], ["repay", "pa"]),
        ("*-api", ["pay-api", "-api"], ["pay-api2", "api"]),
        ("a*b*c", ["abc", "a1b2c", "abcbc"], ["acb", "ab", "bc"]),
        ("aa*aa", ["aaaa", "aabaa"], ["aa", "aaa"]),
        ("**", ["x"], []),
        ("nmap_*", ["nmap-service"], ["nmapservice"]),
        ("NMAP", ["nmap"], []),
    ],
)
def test_patterns_cover_folded_names(
    pattern: str, covered: list[str], not_covered: list[str]
) -> None:
    token = parse_tokens(toml({**ENTRY, "services": [pattern]})).holder("cbt_old")

    assert token is not None
    assert [name for name in covered + not_covered if token.covers(name)] == covered


def globs() -> st.SearchStrategy[str]:
    return st.text("ab*", min_size=1, max_size=8)


@given(globs(), st.text("ab", max_size=10))
@example("*a*a*a*a*a*a*a*a*b", "a" * 60)
def test_a_pattern_covers_what_its_regular_expression_would(pattern: str, name: str) -> None:
    expected = re.fullmatch(re.sub(r"\*+", ".*", pattern), name) if len(name) < 20 else None

    assert Token("x", (pattern,)).covers(name) == (expected is not None)


def test_a_new_token_is_shown_once_and_only_its_digest_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert mint.main(["payments-team", "pay*"]) == 0

    out, err = capsys.readouterr()
    secret = err.removeprefix("token: ").strip()
    assert secret.startswith(PREFIX)
    assert len(secret) == len(PREFIX) + 43, "256 bits"
    assert secret not in out
    token = parse_tokens(out).holder(secret)
    assert token == Token("payments-team", ("pay*",))


@pytest.mark.parametrize("argv", [[], ["--help"], ["a b"], ["ok", "a.b"]])
def test_a_token_for_a_name_that_cannot_be_is_not_made(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert mint.main(argv) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert PREFIX not in err


def test_two_tokens_differ() -> None:
    def made() -> Iterator[str]:
        for _ in range(2):
            run = subprocess.run(
                [sys.executable, "-m", "registrar.mint", "x"],
                capture_output=True,
                text=True,
                check=True,
            )
            yield run.stderr

    assert len(set(made())) == 2
