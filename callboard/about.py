"""`version` and `completion`: what the command says of itself."""

import subprocess
import sys
from importlib import metadata
from typing import Any

from click import Command
from click.shell_completion import get_completion_class

from callboard.output import Result, columns
from callboard.store_process import find_server


def version_of_callboard() -> str:
    """The version installed; `0` in a tree that was never installed."""
    try:
        return metadata.version("callboard")
    except metadata.PackageNotFoundError:
        return "0"


def version() -> Result:
    """Callboard, Python, and the server that `callboard up` would start as its store."""
    ours = version_of_callboard()
    server = find_server()
    document: dict[str, Any] = {
        "callboard": ours,
        "python": sys.version.split()[0],
        "store": None if server is None else _version_of_server(server),
        "store_path": server,
    }
    rows = [(name, value or "none") for name, value in document.items() if name != "store_path"]
    if server is not None:
        rows.append(("store-path", server))
    table = columns(("WHAT", "VERSION"), rows)
    return Result(document, [ours], table, table)


def _version_of_server(path: str) -> str:
    """`Valkey 9.1.2`, from `Valkey server v=9.1.2 sha=…`; `unknown` where it says otherwise."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    words = done.stdout.split()
    number = next((w.removeprefix("v=") for w in words if w.startswith("v=")), None)
    return f"{words[0]} {number}" if number is not None else "unknown"


def completion(shell: str, command: Command) -> Result:
    """The script that teaches *shell* to complete `callboard`; printed, never installed."""
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(command, {}, "callboard", "_CALLBOARD_COMPLETE").source()
    return Result({"shell": shell, "script": script}, [shell], script, script)
