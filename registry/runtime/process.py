"""What a process asks of the kernel for itself: to end with its parent, to be known by a name.

Linux only; elsewhere nothing happens, and whoever starts processes ends them.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
"""Looked up at import: between fork and exec nothing may be looked up any more."""


def die_with(parent: int) -> None:
    """SIGKILL for this process when *parent* ends; at once when it has ended already."""
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def call_self(name: str) -> None:
    """Be listed under *name*, of which the kernel keeps 15 octets."""
    if _libc is not None:
        _libc.prctl(_PR_SET_NAME, name[:15].encode())
