"""Namespaces of a test's own: network, mounts, processes, with real programs inside.

Whatever runs inside dies with the namespace's first process, and that one with the test:
nothing is left, whichever way the test ends.
"""

import contextlib
import ctypes
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from registry.runtime.process import die_with

ROOT = Path(__file__).parents[2]
"""Where the packages are, for `python -m …` inside."""

RUN_SECONDS = 20.0
"""Bound of one program's run: above the 5 s and 10 s after which stub resolvers ask again."""

FIRST_PROCESS = "ip link set lo up && echo ready && exec sleep infinity"

SERVED = ("10.53.0.0/24", "fd53::/64")
"""Where clients find servers."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(Exception):
    """This machine does not let us make namespaces."""


@functools.cache
def why_not() -> str:
    """Why no namespaces can be made here; empty when they can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    missing = [p for p in ("unshare", "nsenter", "ip", "mount") if shutil.which(p) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        with Namespace() as server, Namespace() as client:
            connect(server, client, 1)
    except (NamespaceError, OSError) as error:
        return f"namespaces are not permitted: {error}"
    return ""


class Namespace:
    """Exists while it is entered; files made with it are removed with it."""

    def __init__(self) -> None:
        self.pid = 0
        self._directory = Path(tempfile.mkdtemp(prefix="cb-ns-"))
        # Servers that give up root still find their files.
        self._directory.chmod(0o755)
        self._programs: list[subprocess.Popen[bytes]] = []

    def __repr__(self) -> str:
        return f"<Namespace of process {self.pid}, {len(self._programs)} programs>"

    def __enter__(self) -> Self:
        flags = ("--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child")
        self._holder = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", FIRST_PROCESS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(die_with, os.getpid()),
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            _, errors = self._holder.communicate()
            shutil.rmtree(self._directory, ignore_errors=True)
            raise NamespaceError(errors.strip())
        outside = self._holder.pid
        self.pid = int(Path(f"/proc/{outside}/task/{outside}/children").read_text())
        return self

    def __exit__(self, *exc: object) -> None:
        self._holder.kill()  # takes the first process along, and that one all inside
        self._holder.communicate()
        for program in self._programs:
            program.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def command(self, *words: str, cwd: str = "/") -> list[str]:
        """*words* as a command line that runs inside."""
        enter = ("nsenter", "--target", str(self.pid), "--net", "--mount", "--pid")
        return [*enter, f"--wdns={cwd}", "--", *words]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program inside until its end; with *check*, its failure is an AssertionError."""
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            env=os.environ | {"LC_ALL": "C"},
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def start(self, *words: str, environ: Mapping[str, str] | None = None) -> "Program":
        """Start a program inside, which ends with the namespace if not before."""
        log = self.path(f"{len(self._programs)}-{Path(words[0]).name}.log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.command(*words, cwd=str(ROOT)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | (environ or {}),
            )
        self._programs.append(process)
        return Program(process, log)

    def path(self, name: str) -> Path:
        """A path that is removed with the namespace."""
        return self._directory / name

    def file(self, name: str, text: str) -> Path:
        """A file there that holds *text*."""
        path = self.path(name)
        path.write_text(text)
        return path

    def directory(self, name: str) -> Path:
        """A directory there in which everybody may write."""
        path = self.path(name)
        path.mkdir()
        path.chmod(0o777)
        return path

    def replace(self, file: str, text: str) -> None:
        """Let *file*, which exists outside, read as *text* inside."""
        source = self.file(file.removeprefix("/").replace("/", "-"), text)
        self.run("mount", "--bind", str(source), file)

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket of this process that sends and receives inside."""
        with self._entered():
            return socket.socket(family, kind)

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """This thread is inside: what it makes of sockets stays there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            _enter(inside)
            yield
        finally:
            _enter(home)
            os.close(inside)
            os.close(home)


class Program:
    """A program that runs in a namespace."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def text(self) -> str:
        """All that it has printed."""
        return self._log.read_text(errors="replace")


def connect(server: Namespace, client: Namespace, number: int) -> None:
    """A cable from *client*, the *number*th of this server, to all addresses in SERVED.

    The client gets 10.53.1.*number* and fd53:1::*number*; the server's addresses may be on its
    loopback interface.
    """
    cable = f"client{number}"
    _ip(
        server,
        f"link add {cable} type veth peer name eth0 netns {client.pid}",
        f"link set {cable} up",
        f"addr add fe80::1/64 dev {cable} nodad",
        f"route add 10.53.1.{number}/32 dev {cable}",
        f"route add fd53:1::{number:x}/128 via fe80::2 dev {cable}",
    )
    _ip(
        client,
        "link set eth0 up",
        "addr add fe80::2/64 dev eth0 nodad",
        f"addr add 10.53.1.{number}/32 dev eth0",
        f"addr add fd53:1::{number:x}/128 dev eth0 nodad",
        f"route add {SERVED[0]} dev eth0 src 10.53.1.{number}",
        f"route add {SERVED[1]} via fe80::1 dev eth0 src fd53:1::{number:x}",
    )


def serve_at(server: Namespace, *addresses: str) -> None:
    """Give *server* these addresses, which lie in SERVED."""
    _ip(server, *(f"addr add {a}/{128 if ':' in a else 32} dev lo" for a in addresses))


def _ip(namespace: Namespace, *lines: str) -> None:
    # Its network alone: a process's number is to be read as we know it, not as it is inside.
    done = subprocess.run(
        ["nsenter", "--target", str(namespace.pid), "--net", "--", "ip", "-batch", "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    if done.returncode != 0:
        raise NamespaceError(done.stderr.strip())


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise NamespaceError(f"setns: {os.strerror(ctypes.get_errno())}")
