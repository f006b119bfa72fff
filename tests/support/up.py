"""`callboard up` as a user starts it: a process, its ready file, its output, its family."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from callboard.child import children_of

START_SECONDS = 30.0
"""Bound of a start on a machine with all its cores taken."""

NOWHERE = ("--dns", "0", "--registrar", "0", "--gateway", "0")
"""Options that take free ports."""


class Up:
    """Runs while it is entered, in *directory*; `ready` is what the ready file says now."""

    def __init__(self, directory: Path, *options: str, environ: dict[str, str] | None = None):
        self.directory = directory
        self.file = directory / "ready.json"
        self.log = directory / "log"
        self.argv = [
            *(sys.executable, "-m", "callboard", "up"),
            *("--data-dir", str(directory / "data"), "--ready-file", str(self.file)),
            *options,
        ]
        self._environ = os.environ | {"XDG_RUNTIME_DIR": str(directory)} | (environ or {})

    def __enter__(self) -> "Up":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop()

    def start(self) -> None:
        """Start it, and wait for its ready file."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.file.exists():
            assert self.process.poll() is None, f"it ended:\n{self.text()}"
            assert time.monotonic() < deadline, f"not ready:\n{self.text()}"
            time.sleep(0.01)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(signum)
        return self.process.wait(START_SECONDS)

    @property
    def ready(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.file.read_text())
        return document

    def text(self) -> str:
        """All that it and its parts have printed."""
        return self.log.read_text(errors="replace")

    def family(self) -> list[int]:
        """It and everybody who descends from it."""
        found, todo = [], [self.process.pid]
        while todo:
            found.append(todo.pop())
            todo += children_of(found[-1])
        return found
