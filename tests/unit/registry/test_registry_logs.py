"""One call, one printable line, whatever stands in it."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from registry.runtime import logs

HOSTILE = [
    "two\nlines",
    "\r\nerror forged",
    "\x1b[31mred",
    "\x9b31m",
    "\u202egnp.exe",
    "\u2028",
    "\x00",
    "\ud800",
    '"quoted" \\ = ',
    "ключ 鍵",
    "",
]


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """The root logger, which `configure` takes over, is given back."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


def lines_of(log_format: str, message: str, **fields: Any) -> list[str]:
    stream = io.StringIO()
    logs.configure(log_format, "debug", stream)
    logs.get("dnsd").info(message, **fields)
    return stream.getvalue().split("\n")


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_within_its_line_and_is_printable(log_format: str, hostile: str) -> None:
    line, end = lines_of(log_format, hostile, error=hostile, peer=Exception(hostile))

    assert end == ""
    assert line.isprintable()
    assert "\x1b" not in line


@given(st.sampled_from(["text", "json"]), st.text(), st.text(), st.binary())
def test_one_call_is_one_printable_line(
    log_format: str, message: str, value: str, octets: bytes
) -> None:
    line, end = lines_of(log_format, message, value=value, octets=octets, seconds=1.5)

    assert end == ""
    assert line.isprintable()


def test_text_reads_as_time_level_logger_message_and_fields() -> None:
    line, _ = lines_of(
        "text", "feed lost", error="Connection refused", revision=90812, after=41.23456, empty=""
    )

    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == (
        'info dnsd feed lost error="Connection refused" revision=90812 after=41.235 empty=""'
    )


def test_json_keeps_the_types_of_fields_and_its_own_keys() -> None:
    line, _ = lines_of("json", "feed lost", revision=90812, time="mine", where=("a", 1))

    document = json.loads(line)
    assert (document["level"], document["logger"]) == ("info", "dnsd")
    assert (document["message"], document["revision"]) == ("feed lost", 90812)
    assert document["time"].endswith("Z")
    assert document["where"] == ["a", 1]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_is_part_of_its_line(log_format: str) -> None:
    stream = io.StringIO()
    logs.configure(log_format, "info", stream)
    try:
        raise RuntimeError("a\nb")
    except RuntimeError:
        logs.get("dnsd").exception("it broke", service="payments")

    line, end = stream.getvalue().split("\n")
    assert end == ""
    assert "RuntimeError" in line
    assert "error" in line


def test_levels_below_the_least_are_not_written_until_it_is_changed() -> None:
    stream = io.StringIO()
    logs.configure("text", "warning", stream)
    log = logs.get("dnsd")

    log.info("no")
    log.at("debug", "no")
    log.warning("yes")
    logs.set_level("debug")
    log.debug("yes")
    log.error("yes")

    assert [line.split()[3] for line in stream.getvalue().splitlines()] == ["yes"] * 3


def test_a_change_of_state_is_said_once() -> None:
    stream = io.StringIO()
    logs.configure("text", "info", stream)
    state = logs.Transition(logs.get("feed"))

    said = [
        state.enter(s, f"feed {s}", level="warning" if s == "lost" else "info")
        for s in ["current", "current", "lost", "lost", "lost", "current"]
    ]

    assert said == [True, False, True, False, False, True]
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == [
        "info",
        "warning",
        "info",
    ]
