"""The proxies under test and what they stand before, each started from a configuration that does
the same: `/v2/web/` to two nginx, `/v2/ws/` to a WebSocket end, the prefix cut off, one core."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

PROXY_CORE, LOAD_CORE = 0, 1

READY_WITHIN = 20.0

SMALL = b"hello, world\n"
LARGE = 64 * 1024

UPSTREAM = """
worker_processes 1;
daemon off;
pid {dir}/upstream.pid;
error_log stderr crit;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 3600;
    client_body_temp_path {dir}/upstream.body;
    client_body_buffer_size 64k;
    open_file_cache max=16;
    sendfile on;
    server {{
        listen 127.0.0.1:{first} backlog=4096;
        listen 127.0.0.1:{second} backlog=4096;
        location = /small {{ return 200 "hello, world\\n"; }}
        location = /post {{ return 200 "hello, world\\n"; }}
        location = /large {{ alias {dir}/large; }}
        location = /huge {{ alias {dir}/huge; }}
    }}
}}
"""

NGINX = """
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {dir}/nginx.body;
    client_body_buffer_size 64k;
    proxy_temp_path {dir}/nginx.proxy;
    proxy_buffers 16 16k;
    proxy_buffer_size 16k;
    proxy_max_temp_file_size 0;
    upstream web {{
        server 127.0.0.1:{first};
        server 127.0.0.1:{second};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    upstream ws {{ server 127.0.0.1:{websocket}; }}
    map $http_upgrade $hop {{ default upgrade; "" ""; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Connection $hop;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header X-Forwarded-For $remote_addr;
        location /v2/web/ {{ proxy_pass http://web/; }}
        location /v2/ws/ {{ proxy_pass http://ws/; }}
    }}
}}
"""

HAPROXY = """
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 30s
    timeout tunnel 1h
    timeout http-request 10s
    option forwardfor
frontend in
    bind 127.0.0.1:{port} backlog 4096
    acl ws path_beg /v2/ws/
    http-request replace-path /v2/[a-z]+/(.*) /\\1
    use_backend ws if ws
    default_backend web
backend web
    http-reuse always
    server one 127.0.0.1:{first}
    server two 127.0.0.1:{second}
backend ws
    server one 127.0.0.1:{websocket}
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          use_remote_address: true
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /v2/web/}}
                route: {{cluster: web, prefix_rewrite: /}}
              - match: {{prefix: /v2/ws/}}
                route: {{cluster: ws, prefix_rewrite: /, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: web
    type: STATIC
    connect_timeout: 2s
    circuit_breakers: {{thresholds: [{{max_connections: 16384, max_requests: 16384, max_pending_requests: 16384}}]}}
    load_assignment:
      cluster_name: web
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {first}}}}}}}
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {second}}}}}}}
  - name: ws
    type: STATIC
    connect_timeout: 2s
    circuit_breakers: {{thresholds: [{{max_connections: 16384, max_requests: 16384, max_pending_requests: 16384}}]}}
    load_assignment:
      cluster_name: ws
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {websocket}}}}}}}
"""  # noqa: E501 - Envoy's type names are that long

TRAEFIK = """
log: {{level: ERROR}}
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
entryPoints: {{in: {{address: "127.0.0.1:{port}"}}}}
providers: {{file: {{filename: {dir}/traefik-routes.yaml}}}}
"""

TRAEFIK_ROUTES = """
http:
  routers:
    web: {{rule: "PathPrefix(`/v2/web/`)", service: web, middlewares: [cut]}}
    ws: {{rule: "PathPrefix(`/v2/ws/`)", service: ws, middlewares: [cut]}}
  middlewares:
    cut: {{stripPrefix: {{prefixes: ["/v2/web", "/v2/ws"]}}}}
  services:
    web:
      loadBalancer:
        servers: [{{url: "http://127.0.0.1:{first}"}}, {{url: "http://127.0.0.1:{second}"}}]
    ws: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{websocket}"}}]}}}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that runs: its port, and the pid of its first process."""

    name: str
    port: int
    pid: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/v2/{path}"

    def seconds(self) -> float:
        """Processor time that all its processes have used so far, in the kernel and outside."""
        ticks = 0
        for pid in with_children(self.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def kib(self) -> float:
        """Its proportional set size, all processes together."""
        total = 0
        for pid in with_children(self.pid):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                total += int(line.split()[1]) if line.startswith("Pss:") else 0
        return float(total)


def with_children(pid: int) -> list[int]:
    """*pid* and the processes that it and its threads started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += with_children(int(child))
    return found


@dataclass
class Stage:
    """Starts processes in *directory*, pinned to one core each, and ends them."""

    directory: Path
    ports: dict[str, int] = field(default_factory=dict)
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], core: int | None) -> int:
        """Run *command*; its output goes to a file of its own.  Its pid."""
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        with (self.directory / f"{name}.out").open("wb") as output:
            process = subprocess.Popen(
                [*pinned, *command], stdout=output, stderr=output, cwd=ROOT, start_new_session=True
            )
        self._processes.append(process)
        return process.pid

    def config(self, name: str, template: str, port: int = 0) -> str:
        """*template* filled in, as a file; its path."""
        path = self.directory / name
        path.write_text(template.format(dir=self.directory, port=port, **self.ports))
        return str(path)

    def end(self, pid: int) -> None:
        """End the process that `start` gave *pid* for, and what it started."""
        process = next(p for p in self._processes if p.pid == pid)
        self._processes.remove(process)
        process.terminate()
        _wait_or_kill(process)

    def stop(self) -> None:
        """End all of it, the last first."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            _wait_or_kill(process)


def _wait_or_kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(8)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def program(name: str, extra: str = "") -> str | None:
    """On PATH, in the directory *extra*, beside this interpreter, or where Debian puts servers."""
    places = [extra, str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return shutil.which(name, path=os.pathsep.join([*filter(None, places), "/usr/sbin"]))


def start_upstreams(stage: Stage) -> None:
    """nginx as two upstreams, the WebSocket end and the DNS server, on the load's core."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ports = {name: free_port() for name in ("first", "second", "websocket", "dns")}
    stage.ports |= ports
    (stage.directory / "large").write_bytes(b"x" * LARGE)
    with (stage.directory / "huge").open("wb") as file:
        file.truncate(64 << 20)
    stage.directory.chmod(0o755)  # nginx's worker is somebody else
    nginx = program("nginx")
    assert nginx is not None
    stage.start("upstream", [nginx, "-c", stage.config("upstream.conf", UPSTREAM)], LOAD_CORE)
    services = [f"web={ports['first']},{ports['second']}", f"ws={ports['websocket']}"]
    origin = [sys.executable, "-m", "benchmarks.gateway.origin"]
    numbers = [str(ports["dns"]), str(ports["websocket"])]
    stage.start("origin", [*origin, *numbers, *services], LOAD_CORE)
    wait_for(stage, ports["first"], "/small")


def start_ours(
    stage: Stage, *further: str, name: str = "Callboard", core: int | None = PROXY_CORE
) -> Proxy:
    """The gateway with everything on that is on by default; *further* are options."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "resolver_gateway", "--listen", f"127.0.0.1:{port}"),
        *("--dns", f"127.0.0.1:{stage.ports['dns']}", "--admin", "127.0.0.1:0", *further),
    ]
    return _started(stage, name, port, stage.start(name, command, core))


def start_nginx(stage: Stage, path: str) -> Proxy:
    port = free_port()
    config = stage.config("nginx.conf", NGINX, port)
    return _started(stage, "nginx", port, stage.start("nginx", [path, "-c", config], PROXY_CORE))


def start_haproxy(stage: Stage, path: str) -> Proxy:
    port = free_port()
    config = stage.config("haproxy.cfg", HAPROXY, port)
    command = [path, "-f", config]
    return _started(stage, "HAProxy", port, stage.start("haproxy", command, PROXY_CORE))


def start_envoy(stage: Stage, path: str) -> Proxy:
    port = free_port()
    config = stage.config("envoy.yaml", ENVOY, port)
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    command = [path, "-c", config, *options]
    return _started(stage, "Envoy", port, stage.start("envoy", command, PROXY_CORE))


def start_traefik(stage: Stage, path: str) -> Proxy:
    port = free_port()
    stage.config("traefik-routes.yaml", TRAEFIK_ROUTES)
    config = stage.config("traefik.yaml", TRAEFIK, port)
    # One core is all it may run on; its scheduler is told so rather than left to find out.
    command = ["env", "GOMAXPROCS=1", path, f"--configFile={config}"]
    return _started(stage, "Traefik", port, stage.start("traefik", command, PROXY_CORE))


PEERS = {
    "nginx": ("nginx", start_nginx),
    "HAProxy": ("haproxy", start_haproxy),
    "Envoy": ("envoy", start_envoy),
    "Traefik": ("traefik", start_traefik),
}
"""Name → its program, and how it is started."""


def _started(stage: Stage, name: str, port: int, pid: int) -> Proxy:
    wait_for(stage, port, "/v2/web/small")
    return Proxy(name, port, pid)


def wait_for(stage: Stage, port: int, path: str) -> None:
    """Return once what listens on *port* answers; what was said on stderr when it does not."""
    deadline = time.monotonic() + READY_WITHIN
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as sock:
            sock.sendall(request)
            if sock.recv(4096).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.1)
    said = "\n".join(p.read_text(errors="replace")[-2000:] for p in stage.directory.glob("*.out"))
    raise SystemExit(f"error: nothing answers on port {port}:\n{said}")
