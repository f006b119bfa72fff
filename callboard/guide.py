"""What `up` prints once all is ready: where things are, and commands that work as printed."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from callboard.demo import STARRED
from callboard.parts import DEFAULT_DNS, DEFAULT_REGISTRAR
from registry.runtime.config import HostPort


@dataclass(frozen=True, slots=True)
class Scene:
    """All that the text depends on."""

    seconds: float
    zone: str
    dns: HostPort
    registrar: str
    gateway: str
    store: str
    command: str
    demo_pid: int | None = None
    """Of a process to kill: the last instance of the starred service; None without a demo."""
    platform: str = "linux"
    has: Callable[[str], bool] = lambda program: shutil.which(program) is not None


def guide(scene: Scene) -> str:
    """The whole text, with a newline at its end."""
    return "\n".join([*_where(scene), "", *_try(scene), "", *_whole_machine(scene), ""])


def _where(scene: Scene) -> list[str]:
    lines = [
        f"ready in {scene.seconds:.1f} s",
        "",
        f"  dnsd       {scene.dns} (UDP and TCP), zone {scene.zone}",
        f"  registrar  {scene.registrar}",
        f"  gateway    {scene.gateway}",
        f"  store      {scene.store}",
    ]
    if scene.demo_pid is not None:
        lines += [
            "  demo       12 services on loopback addresses; one sidecar serves 11 of them,",
            f"             the 3 instances of {STARRED} have one each",
        ]
    return lines


def _try(scene: Scene) -> list[str]:
    """Commands, each on a line of its own and nothing else on it."""
    zone = scene.zone.removesuffix(".")
    asking = "" if str(scene.dns) == DEFAULT_DNS else f" --dns {scene.dns}"
    telling = "" if scene.registrar == DEFAULT_REGISTRAR else f" -r {scene.registrar}"
    ours, shown = scene.command, STARRED
    lines = ["try:"]
    if scene.demo_pid is not None:
        lines += [
            f"  {ours} ls{telling}",
            f"  {ours} show {shown}{telling}",
            f"  {ours} dig {shown}.{zone}{asking}",
            f"  {ours} dig _http._tcp.{shown}.{zone} SRV{asking}",
        ]
    lines += _programs(scene, zone) if scene.demo_pid is not None else []
    lines += [
        "register a service of your own, and see it:",
        f"  {ours} register web http://127.0.0.1:3000{telling}",
        f"  {ours} show web{telling}",
        f"  {ours} dig web.{zone}{asking}",
    ]
    if scene.demo_pid is None:
        lines += [f"  {ours} ls{telling}"]
    else:
        lines += [
            "kill an instance, and see it leave the answers within 12 s:",
            f"  kill -9 {scene.demo_pid}",
        ]
    return lines


def _programs(scene: Scene, zone: str) -> list[str]:
    """Lines for programs that may not be installed."""
    lines = []
    if scene.has("dig"):
        host, port = scene.dns
        lines.append(f"  dig @{host} -p {port} _http._tcp.{STARRED}.{zone} SRV")
    if scene.has("curl"):
        lines.append(f"  curl {scene.gateway}/v2/{STARRED}/hello")
    return lines


def _whole_machine(scene: Scene) -> list[str]:
    """How every program here can ask; needs root, so it is told and not done."""
    zone = scene.zone.removesuffix(".")
    if scene.platform == "darwin":
        host, port = scene.dns
        how = f"/etc/resolver/{zone} with the lines `nameserver {host}` and `port {port}`"
    else:
        how = (
            "with systemd-resolved, /etc/systemd/resolved.conf.d/callboard.conf with the lines"
            f" `[Resolve]`, `DNS={scene.dns}` and `Domains=~{zone}`"
        )
    return [f"for every program on this machine: {how}", "Ctrl-C stops all of it"]


def command_name(
    argv: Sequence[str], executable: str, cwd: Path, environ: Mapping[str, str]
) -> str:
    """How the reader runs this command again: by its name where PATH finds it, else by a path."""
    program = argv[0]
    if Path(program).name == "__main__.py":
        return f"{_from(executable, cwd)} -m callboard"
    found = shutil.which("callboard", path=environ.get("PATH"))
    if found is not None and Path(found).resolve() == Path(program).resolve():
        return "callboard"
    return _from(program, cwd)


def _from(program: str, cwd: Path) -> str:
    """*program* as seen from *cwd* when it lies below, else in full."""
    path = (cwd / program).absolute()
    try:
        return str(path.relative_to(cwd))
    except ValueError:
        return str(path)
