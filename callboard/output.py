"""How results and failures are written: columns for people, JSON for programs, names for pipes.

Results go to stdout, all else to stderr.  Columns are never cut, because a cut address is no
address, and escapes are written to a terminal only, and only while NO_COLOR is empty.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TextIO

from callboard.failure import Failure

Format = Literal["table", "wide", "json", "name"]
FORMATS: Final = ("table", "wide", "json", "name")

BOLD: Final = "1"
RED: Final = "31"
YELLOW: Final = "33"


@dataclass(frozen=True, slots=True)
class Style:
    """Whether colour is used, and how a text gets it."""

    colour: bool = False

    def paint(self, text: str, code: str) -> str:
        """*text* in the colour of an SGR *code*; as it is where there is no colour."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text


PLAIN: Final = Style()


def style_of(stream: TextIO, environ: Mapping[str, str]) -> Style:
    """Colour for a terminal, unless NO_COLOR (no-color.org) or TERM=dumb says otherwise."""
    wanted = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Style(colour=wanted and stream.isatty())


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found, in every form it can be asked for."""

    document: Any
    names: Sequence[str]
    table: str
    wide: str
    notes: Sequence[str] = ()
    """For people, on stderr: what to do next, what to know."""


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]], style: Style = PLAIN) -> str:
    """Left-aligned columns two spaces apart, as wide as their content; ends without a newline.

    An empty cell is written as `-`, so that a program that splits at spaces keeps its columns.
    """
    cells = [[_one_line(cell) or "-" for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headings), *cells]) for i in range(len(headings))]
    lines = [style.paint(_aligned(headings, widths), BOLD)]
    lines += [_painted(_aligned(row, widths), row, style) for row in cells]
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _painted(line: str, row: Sequence[str], style: Style) -> str:
    if "unhealthy" in row:
        return style.paint(line, RED)
    return style.paint(line, YELLOW) if _AWAY.intersection(row) else line


_AWAY: Final = frozenset({"draining", "maintenance", "waiting", "suspect"})


def _one_line(text: str) -> str:
    """*text* without what would move the cursor: it comes from whoever registered."""
    return "".join(c if c.isprintable() else "?" for c in text)


def render(result: Result, form: Format) -> str:
    """What goes to stdout, without its last newline."""
    match form:
        case "json":
            return json.dumps(result.document, indent=2, ensure_ascii=False)
        case "name":
            return "\n".join(result.names)
        case "wide":
            return result.wide
        case "table":
            return result.table


def show(result: Result, form: Format) -> None:
    """Write a result, and its notes where a person reads along."""
    text = render(result, form)
    if text:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    if form in ("table", "wide"):
        for note in result.notes:
            sys.stderr.write(note + "\n")


def show_failure(failure: Failure, form: Format) -> None:
    """Write a failure to stderr: as JSON where JSON was asked for, else a line each."""
    if form == "json":
        sys.stderr.write(json.dumps(failure.as_document(), ensure_ascii=False) + "\n")
        return
    style = style_of(sys.stderr, os.environ)
    for message in failure.messages:
        sys.stderr.write(f"{style.paint('error:', RED)} {message}\n")
    for hint in failure.hints:
        sys.stderr.write(f"{hint}\n")
