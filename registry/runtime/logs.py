"""Logs: one line an event on stderr, the message constant, what varies in fields.

`feed lost error="Connection refused" revision=90812`
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """A logger of one part that takes fields as keywords."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **fields: Any) -> None:
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._log(logging.ERROR, message, fields)

    def exception(self, message: str, **fields: Any) -> None:
        """An error with the traceback of the exception being handled."""
        self._logger.error(message, extra={"fields": fields}, exc_info=True)

    def at(self, level: str, message: str, **fields: Any) -> None:
        """Log at a level that is known only at run time."""
        self._log(LEVELS[level], message, fields)

    def _log(self, level: int, message: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, extra={"fields": fields})


def get(name: str) -> Log:
    """The log of *name*: a part, or a part and a module of it (`dnsd.updater`)."""
    return Log(name)


class Transition:
    """Says a change of state once, however often it is reported."""

    def __init__(self, log: Log, state: str = "") -> None:
        self._log = log
        self.state = state

    def enter(self, state: str, message: str, *, level: str = "info", **fields: Any) -> bool:
        """Log *message* if *state* differs from the one before; whether it did."""
        if state == self.state:
            return False
        self.state = state
        self._log.at(level, message, **fields)
        return True


def configure(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Send all logs to *stream* (stderr) in that format; called once, by the life cycle."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.raiseExceptions = False  # a full disk behind stderr is no reason to fail


def set_level(level: str) -> None:
    """Change the least level that is logged."""
    logging.getLogger().setLevel(LEVELS[level])


class TextFormatter(logging.Formatter):
    """`2026-11-24T17:30:00.123Z info dnsd feed lost error="…"`."""

    def format(self, record: logging.LogRecord) -> str:
        level, message = record.levelname.lower(), one_line(record.getMessage())
        parts = [
            f"{_time(record)} {level} {record.name} {message}",
            *(f"{key}={quoted(value)}" for key, value in _fields(record)),
        ]
        if record.exc_info:
            parts.append(f"traceback={quoted(self.formatException(record.exc_info))}")
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields beside them."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        document.update((key, value) for key, value in _fields(record) if key not in document)
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def _fields(record: logging.LogRecord) -> list[tuple[str, Any]]:
    return list(getattr(record, "fields", {}).items())


def quoted(value: Any) -> str:
    """*value* as one word: in JSON quotes when it has spaces or anything unprintable."""
    shown = f"{value:.3f}" if isinstance(value, float) else str(value)
    if shown and shown.isascii() and shown.isprintable() and not set(shown) & set(' "=\\'):
        return shown
    return json.dumps(shown)


def one_line(message: str) -> str:
    """*message* without line ends and control characters, so that no one forges a line."""
    return message if message.isprintable() else json.dumps(message)
