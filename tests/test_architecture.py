"""The import rules of ARCHITECTURE.md, executed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICES = ("dnsd", "registrar", "sidecar", "resolver_gateway")
PACKAGES = ("callboard", "registry", *SERVICES)

SHELLS = {
    "callboard": {"*"},
    "registry": {"store", "feed", "follower", "redis_client", "sentinels"},
    "registry.runtime": {"lifecycle", "admin", "http", "supervisor", "process", "logs", "metrics"},
    "dnsd": {
        "udp", "tcp", "updater", "workers", "metrics", "service", "__main__", "sockets", "mmsg",
        "outgoing",
        "notifier", "primary",
    },
    "registrar": {
        "writes", "beats", "lists", "consul_reads", "watchers", "sweeper", "lookups", "batching",
        "gate", "reads", "metrics", "audit", "service", "files", "listener", "connections", "app",
        "releasing", "routes", "__main__",
    },
    "sidecar": {
        "agent", "calls", "children", "client", "commands", "docker", "metrics", "probe", "run",
        "service", "tls", "__main__",
    },
    "resolver_gateway": {
        "dnsclient", "resolver", "events", "downstream", "outflow", "tunnel", "upstream", "pool",
        "handler", "door", "finding", "attempts", "tasks", "pages", "probe", "metrics", "worker",
        "service", "__main__",
    },
}  # fmt: skip
"""Modules that touch the world; every other one is a core."""

IMPURE = frozenset(
    "asyncio socket time random os logging redis aiohttp prometheus_client subprocess threading"
    " uvloop httptools tenacity select signal".split()
)

ONLY_IN = {
    "redis": {"registry.store", "registry.feed", "registry.redis_client", "registry.sentinels"},
    "aiohttp": {"registrar"},
    "pydantic": {"registrar"},
    "httptools": {"resolver_gateway"},
    "dnslib": {"dnsd", "resolver_gateway", "callboard"},
}
"""Foreign libraries and the packages or modules that may import them."""


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def is_shell(module: str) -> bool:
    package, _, name = module.rpartition(".")
    shells = SHELLS.get(package, set())
    return "*" in shells or name in shells or module.split(".")[0] == "callboard"


def cores() -> list[tuple[str, Path]]:
    return [(m, p) for m, p in modules() if not is_shell(m)]


def test_pure_cores_do_not_touch_the_world() -> None:
    """Time and randomness come in as arguments; only shells have sockets, clocks and logs."""
    for module, path in cores():
        for imported in imports_of(path):
            assert imported.partition(".")[0] not in IMPURE, f"{module} imports {imported}"


def test_pure_cores_have_no_coroutines() -> None:
    """Except the store in memory, which never waits, and protocols, which do nothing."""
    for module, path in cores():
        if module in ("registry.memory", "registry.leases", "registrar.view"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.AsyncFunctionDef), f"{module}: async {node.name}"


def test_services_meet_only_over_the_wire() -> None:
    for module, path in modules():
        package = module.partition(".")[0]
        others = {*SERVICES, "callboard"} - {package}
        if package == "callboard":
            continue
        for imported in imports_of(path):
            assert imported.partition(".")[0] not in others, f"{module} imports {imported}"


def test_the_command_starts_parts_and_imports_none() -> None:
    for module, path in modules():
        if module.startswith("callboard."):
            for imported in imports_of(path):
                assert imported.partition(".")[0] not in SERVICES, f"{module} imports {imported}"


def test_sidecar_and_gateway_never_see_the_store() -> None:
    forbidden = {"registry.store", "registry.feed", "registry.follower", "registry.redis_client"}
    for module, path in modules():
        if module.split(".")[0] in ("sidecar", "resolver_gateway", "callboard"):
            assert not forbidden & set(imports_of(path)), module


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_foreign_libraries_stay_where_they_belong(library: str) -> None:
    for module, path in modules():
        allowed = module in ONLY_IN[library] or module.split(".")[0] in ONLY_IN[library]
        for imported in imports_of(path):
            assert imported.partition(".")[0] != library or allowed, f"{module} imports {imported}"


def test_runtime_knows_neither_store_nor_feed() -> None:
    for module, path in modules():
        if module.startswith("registry.runtime"):
            assert not {"registry.store", "registry.feed"} & set(imports_of(path)), module


def test_the_hot_path_is_free_of_dns_libraries() -> None:
    for name in ("wire", "responder", "memo", "udp", "tcp"):
        assert "dnslib" not in set(imports_of(ROOT / "dnsd" / f"{name}.py")), name


def test_the_shells_named_here_exist() -> None:
    """A name that no longer exists would exempt whatever takes it next."""
    known = {m for m, _ in modules()}
    named = {f"{p}.{n}" for p, names in SHELLS.items() for n in names if n != "*"}
    assert named <= known, f"not there any more: {sorted(named - known)}"


@pytest.mark.parametrize("package", SERVICES)
def test_a_part_imports_no_more_than_it_needs(package: str) -> None:
    """`python -m sidecar` must stay light; the others load no other part's libraries."""
    unwanted = {
        "sidecar": {"aiohttp", "redis", "pydantic", "uvloop", "dnslib", "httptools"},
        "dnsd": {"aiohttp", "pydantic", "httptools"},
        "registrar": {"httptools", "dnslib"},
        "resolver_gateway": {"aiohttp", "redis", "pydantic"},
    }[package]
    code = f"import {package}.__main__, sys; print(*(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not unwanted & set(loaded)
