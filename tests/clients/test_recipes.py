"""The settings that dnsd's README gives for other programs are read by these programs."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.lab import program

README = Path(__file__).parents[2] / "dnsd" / "README.md"


def recipe(name: str) -> str:
    found = re.search(rf"^```{name}\n(.*?)^```", README.read_text(), re.M | re.S)
    assert found is not None, f"no recipe for {name}"
    return found[1]


def unbound(file: Path) -> list[str]:
    return ["unbound-checkconf", str(file)]


def bind(file: Path) -> list[str]:
    return ["named-checkconf", str(file)]


def dnsmasq(file: Path) -> list[str]:
    return ["dnsmasq", "--test", f"--conf-file={file}"]


def haproxy(file: Path) -> list[str]:
    return ["haproxy", "-c", "-q", "-f", str(file)]


def prometheus(file: Path) -> list[str]:
    return ["promtool", "check", "config", "--syntax-only", str(file)]


BEFORE = {
    "haproxy": """defaults
  mode http
  timeout connect 1s
  timeout client 1s
  timeout server 1s
frontend all
  bind 127.0.0.1:8080
  default_backend payments
"""
}
"""What a whole configuration has beside the recipe."""


@pytest.mark.parametrize("check", [unbound, bind, dnsmasq, haproxy, prometheus])
def test_y7_cl3_recipes_are_read_by_the_programs_they_are_for(
    tmp_path: Path, check: Callable[[Path], list[str]]
) -> None:
    name = check.__name__
    file = tmp_path / name
    file.write_text(BEFORE.get(name, "") + recipe(name))
    name, *options = check(file)
    if not program(name):
        pytest.skip(f"not installed: {name}")

    words = [program(name), *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unbound", 'domain-insecure: "svc.internal"'),
        ("bind", 'validate-except { "svc.internal"; }'),
        ("haproxy", "accepted_payload_size 1232"),
        ("resolved", "Domains=~svc.internal"),
    ],
)
def test_y7_cl3_recipes_say_what_matters(name: str, told: str) -> None:
    """Validation is ended for the zone, and what fits a datagram is asked for."""
    assert told in recipe(name)
    assert "dnssec-trust-anchors.d/callboard.negative" in README.read_text()
