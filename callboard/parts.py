"""The parts as programs: which module each is, how this interpreter runs it, where it is found."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

MODULES: Final = {
    "dnsd": "dnsd",
    "registrar": "registrar",
    "sidecar": "sidecar",
    "gateway": "resolver_gateway",
}
"""Name of a part → module to run."""

DEFAULT_DNS: Final = "127.0.0.1:1053"
DEFAULT_REGISTRAR: Final = "http://127.0.0.1:8888"
"""Where the commands ask when they are not told."""


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs *module* with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* for a process that runs one of our modules.

    `python -m` looks into the working directory first, where somebody's `registry/` would take
    the place of ours; PYTHONSAFEPATH forbids that, unless we are ourselves run from there.
    """
    if os.path.dirname(os.path.dirname(os.path.abspath(__file__))) == os.getcwd():
        return dict(environ)
    return {**environ, "PYTHONSAFEPATH": "1"}


def become(part: str, arguments: Sequence[str]) -> NoReturn:
    """Turn this process into a part: it then weighs what the part weighs, and has its pid."""
    argv = command(MODULES[part], arguments)
    os.execve(argv[0], argv, environment(os.environ))
