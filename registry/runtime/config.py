"""Settings: one frozen dataclass a part, read from options, environment, a TOML file, defaults.

The order is option, `CALLBOARD_<PART>_<OPTION>`, `CALLBOARD_<OPTION>`, the field's own
variables, `[part]` table, bare key, default.  Everything that is wrong is said at once.
"""

import dataclasses
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from registry import names
from registry.errors import CallboardError

T = TypeVar("T")

PARTS = ("dnsd", "registrar", "sidecar", "gateway")

KNOWN_SETTINGS = frozenset(
    "access_log address_file admin allow_endpoints allow_upstreams balance body_timeout"
    " check_config client_burst client_rate config cookie_secret data_dir dns docker_container"
    " docker_host drain events events_token fall fallback guard_hold head_timeout health"
    " health_endpoint health_interval health_timeout heartbeat_interval host host_suffix"
    " idle_timeout initial_wait_timeout insecure instance_id lease_ttl listen log_format"
    " log_level master max_connections max_connections_per_client max_requests metadata"
    " min_body_rate name networks notify notify_source ns nsid port ports prefer_zone priority"
    " probe probe_command queue queue_timeout rate_limit rate_slip read_tokens record_ttl"
    " redis redis_ca register_unhealthy registry_ca registry_cert registry_key registry_url"
    " request_timeout resolv_conf reverse rise routes sentinel server_timing service_burst"
    " service_rate service_version service_zone stale_bound stop_timeout tags tls_cert"
    " tls_client_ca tls_key token tokens transfers trusted_proxies try_timeout tsig_keys"
    " tunnel_timeout upstream_ca upstream_timeout version_header wait_replicas weight workers"
    " zone".split()
)
"""Settings of any part.  One file and one environment serve all parts, so a part accepts the
keys of the others and refuses what none of them has.  tests/test_docs.py keeps this true."""

NOT_SETTINGS = frozenset(
    {
        "CALLBOARD_DEMO",
        "CALLBOARD_GATEWAY",
        "CALLBOARD_READY_FILE",
        "CALLBOARD_REGISTRAR",
        "CALLBOARD_REGISTRAR_URL",
        "CALLBOARD_WORKER",
    }
)
"""Variables of ours that are no part's setting: for the command, and from supervisor to worker."""

FOR_TESTS = "CALLBOARD_TEST_"
"""How variables of our tests begin; the parts that they start inherit them."""


class ConfigError(CallboardError):
    """The configuration is wrong; *problems* holds every fault with source, rule and remedy."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class HelpRequested(Exception):
    """`--help` was given; the argument is the text to print."""


class HostPort(NamedTuple):
    """Where to listen or connect; an IPv6 host is written in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, value: str) -> "HostPort":
        """`127.0.0.1:53`, `[::]:53`, `name:53`; ValueError says what is missing."""
        host, colon, port = value.strip().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or (":" in host and not bracketed):
            raise ValueError(f"{value!r} is not HOST:PORT, such as 127.0.0.1:8888 or [::1]:8888")
        if not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"port {port!r} is not in 0..65535")
        return cls(host[1:-1] if bracketed else host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every address of the machine."""
        return self.host in ("0.0.0.0", "::")


# --- parsers: text in, value or ValueError out ------------------------------------------------


def text(value: str) -> str:
    """Any text but an empty one."""
    if not value:
        raise ValueError("it is empty")
    return value


def boolean(value: str) -> bool:
    """true, yes, on, 1 and their opposites, in any case."""
    match value.lower():
        case "true" | "yes" | "on" | "1":
            return True
        case "false" | "no" | "off" | "0":
            return False
    raise ValueError(f"{value!r} is not true or false")


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers in low..high."""

    def parse(value: str) -> int:
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            raise ValueError(f"{value[:40]!r} is not a whole number")
        if not low <= int(value) <= high:
            raise ValueError(f"{value} is not in {low}..{high}")
        return int(value)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """A parser of seconds in low..high, fractions allowed."""

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{value[:40]!r} is not a number of seconds") from None
        if not low <= number <= high:
            raise ValueError(f"{value} is not in {low:g}..{high:g} seconds")
        return number

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    """A parser that takes only the words in *allowed*."""

    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
        return value

    return parse


def words(value: str) -> tuple[str, ...]:
    """Words separated by commas; spaces around them do not count."""
    return tuple(w.strip() for w in value.split(",") if w.strip())


def host_port(value: str) -> HostPort:
    return HostPort.parse(value)


def host_ports(value: str) -> tuple[HostPort, ...]:
    """One or more HOST:PORT, separated by commas."""
    found = tuple(HostPort.parse(w) for w in words(value))
    if not found:
        raise ValueError("it names no HOST:PORT")
    return found


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(value: str) -> tuple[Network, ...]:
    """Networks such as 10.0.0.0/8,fd00::/8; a lone address is a network of one."""
    return tuple(ipaddress.ip_network(w, strict=False) for w in words(value))


REFUSED_ZONES = ("local.", "localhost.", "invalid.", "onion.", "arpa.")
"""Names that resolvers treat in ways of their own (RFC 6761, 6762, 7686)."""


def zone(value: str) -> str:
    """A DNS zone, lower case with its final dot."""
    name = names.normal_zone(value)
    for refused in REFUSED_ZONES:
        if name == refused or (name.endswith("." + refused) and name != "home.arpa."):
            raise ValueError(
                f"{value!r} lies under {refused}, which resolvers do not ask servers for;"
                " use a sub-domain you own, or one under internal."
            )
    return name


def zones(value: str) -> tuple[str, ...]:
    """One or more zones; the first is canonical."""
    found = tuple(dict.fromkeys(zone(w) for w in words(value)))
    if not found:
        raise ValueError("it names no zone")
    return found


def url(value: str) -> str:
    """Any URL with a scheme."""
    if not urlsplit(value).scheme:
        raise ValueError(f"{value!r} is not a URL: it has no scheme")
    return value


# --- fields -----------------------------------------------------------------------------------


def option(
    parse: Callable[[str], Any],
    *,
    default: Any = MISSING,
    help: str,
    env: tuple[str, ...] = (),
    secret: bool = False,
    metavar: str = "VALUE",
) -> Any:
    """A setting: a dataclass field with how to read it and what it means.

    *default* is the typed value; without one the setting is required.  *env* names further
    variables.  A *secret* is never shown, and may come from the file that `<NAME>_FILE` names.
    """
    metadata = {"parse": parse, "help": help, "env": env, "secret": secret, "metavar": metavar}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class Common:
    """The settings that every part has."""

    config: str = option(text, default="", help="TOML file to read settings from", metavar="FILE")
    log_format: str = option(choice("text", "json"), default="text", help="text or json")
    log_level: str = option(
        choice("debug", "info", "warning", "error"), default="info", help="least level to log"
    )
    admin: HostPort | None = option(
        host_port,
        default=None,
        help="where /healthz, /readyz and /metrics are served",
        metavar="HOST:PORT",
    )
    check_config: bool = option(
        boolean, default=False, help="check the configuration, bind nothing, and exit"
    )
    health: bool = option(
        boolean, default=False, help="ask the running part's admin side, and exit"
    )


def settings_of(cls: type) -> Iterator[dataclasses.Field[Any]]:
    """The fields of a configuration class that are settings."""
    return (f for f in fields(cls) if "parse" in f.metadata)


def flag(name: str) -> str:
    """`lease_ttl` → `--lease-ttl`."""
    return "--" + name.replace("_", "-")


def no_problems(_config: Any) -> Iterable[str]:
    return ()


def load(
    cls: type[T],
    part: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    admin: HostPort | None,
    problems: Callable[[T], Iterable[str]] = no_problems,
) -> tuple[T, Common]:
    """The settings of *part*; ConfigError holds every problem, HelpRequested the help.

    *admin* is the default address of its admin side, *problems* the rules across fields.
    """
    found: list[str] = []
    reader = _Reader(part, environ, found)
    reader.read_argv(argv, [*settings_of(cls), *settings_of(Common)], cls, admin)
    common_values = reader.values(Common)
    if common_values.get("config"):
        reader.read_file(common_values["config"])
        common_values = reader.values(Common)
    values = reader.values(cls)
    reader.refuse_unknown_variables()
    if found:
        raise ConfigError(found)
    if "admin" not in common_values:
        common_values["admin"] = admin
    config = cls(**values)
    if further := list(problems(config)):
        raise ConfigError(further)
    return config, Common(**common_values)


class _Reader:
    """Collects raw texts with their sources, and every problem met on the way."""

    def __init__(self, part: str, environ: Mapping[str, str], problems: list[str]) -> None:
        self._part = part
        self._environ = environ
        self._problems = problems
        self._argv: dict[str, str] = {}
        self._file: dict[str, tuple[str, str]] = {}

    def read_argv(
        self,
        argv: Sequence[str],
        known: list[dataclasses.Field[Any]],
        cls: type,
        admin: HostPort | None,
    ) -> None:
        flags = {flag(f.name): f for f in known}
        rest = list(argv)
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if name in ("--help", "-h"):
                raise HelpRequested(help_text(cls, self._part, admin))
            negated = name.startswith("--no-") and "--" + name[5:] in flags and name not in flags
            found = flags.get("--" + name[5:] if negated else name)
            if found is None:
                self._problems.append(f"option {name}: there is no such option{_near(name, flags)}")
            elif found.metadata["parse"] is boolean:
                self._argv[found.name] = "false" if negated else value if equals else "true"
            elif equals or rest:
                self._argv[found.name] = value if equals else rest.pop(0)
            else:
                self._problems.append(f"option {name}: it needs a value ({found.metadata['help']})")

    def read_file(self, path: str) -> None:
        import tomllib  # only for whoever has a file

        try:
            with open(path, "rb") as file:
                document = tomllib.load(file)
        except (OSError, tomllib.TOMLDecodeError) as error:
            self._problems.append(f"file {path}: {error}")
            return
        tables = {"callboard": document, self._part: document.get(self._part, {})}
        for table, content in tables.items():
            if not isinstance(content, dict):
                self._problems.append(f"file {path}: {table} is not a table")
                continue
            for key, value in content.items():
                name = key.replace("-", "_")
                where = (
                    f"file {path}: {key}"
                    if table == "callboard"
                    else f"file {path}: [{table}] {key}"
                )
                if isinstance(value, dict) or _is_table_list(value):
                    if table == "callboard" and key not in (*PARTS, "service"):
                        self._problems.append(f"{where}: no such table{_near(key, PARTS)}")
                elif name not in KNOWN_SETTINGS:
                    self._problems.append(f"{where}: unknown setting{_near(name, KNOWN_SETTINGS)}")
                else:
                    self._file[name] = (_as_text(value), where)

    def values(self, cls: type) -> dict[str, Any]:
        """Parsed values of the settings that are set; those left to their default are absent."""
        values: dict[str, Any] = {}
        for f in settings_of(cls):
            raw, source = self._raw(f)
            if raw is None:
                if f.default is MISSING:
                    self._note(
                        f"{source}: required, and not set; {f.metadata['help']}"
                        f" (as {flag(f.name)} or {_variables(self._part, f)[-1]})"
                    )
                continue
            try:
                values[f.name] = f.metadata["parse"](raw)
            except ValueError as error:
                self._note(f"{source}: {error}; it is: {f.metadata['help']}")
        return values

    def _note(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.append(problem)

    def _raw(self, f: dataclasses.Field[Any]) -> tuple[str | None, str]:
        if f.name in self._argv:
            return self._argv[f.name], f"option {flag(f.name)}"
        for variable in _variables(self._part, f):
            if variable in self._environ:
                return self._environ[variable], f"environment {variable}"
            path = self._environ.get(variable + "_FILE") if f.metadata["secret"] else None
            if path is not None:
                return self._read_secret(path, variable + "_FILE"), f"file of {variable}_FILE"
        if f.name in self._file:
            return self._file[f.name]
        return None, f"setting {f.name}"

    def _read_secret(self, path: str, variable: str) -> str | None:
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            self._note(f"environment {variable}: {error}")
            return None

    def refuse_unknown_variables(self) -> None:
        for variable in self._environ:
            if not variable.startswith("CALLBOARD_") or variable in NOT_SETTINGS:
                continue
            if variable.startswith(FOR_TESTS):
                continue
            name = variable.removeprefix("CALLBOARD_")
            for part in PARTS:
                name = name.removeprefix(part.upper() + "_")
            if not {name.lower(), name.lower().removesuffix("_file")} & KNOWN_SETTINGS:
                near = _near(variable, [f"CALLBOARD_{n.upper()}" for n in KNOWN_SETTINGS])
                self._note(f"environment {variable}: unknown setting{near}")


def _variables(part: str, f: dataclasses.Field[Any]) -> tuple[str, ...]:
    name = f.name.upper()
    return (f"CALLBOARD_{part.upper()}_{name}", f"CALLBOARD_{name}", *f.metadata["env"])


def _near(word: str, known: Iterable[str]) -> str:
    import difflib  # only for whoever mistyped: the sidecar counts every module

    found = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(v, dict) for v in value)


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_as_text(v) for v in value)
    return str(value)


def default_text(f: dataclasses.Field[Any]) -> str:
    """The default of a setting as one would write it; empty when there is none."""
    value = f.default
    if value is MISSING or value is None or f.metadata["secret"]:
        return ""
    if isinstance(value, tuple) and not isinstance(value, HostPort):
        return ",".join(str(v) for v in value)
    return _as_text(value)


def help_text(cls: type, part: str, admin: HostPort | None) -> str:
    """What `--help` prints: every setting with its variable, default and meaning."""
    lines = [f"usage: callboard {part} [options]", "", "options:"]
    for f in [*settings_of(cls), *settings_of(Common)]:
        is_flag = f.metadata["parse"] is boolean
        lines.append(f"  {flag(f.name)}" + ("" if is_flag else f" {f.metadata['metavar']}"))
        default = str(admin or "off") if f.name == "admin" else default_text(f)
        shown = f" (default {default})" if default and not is_flag else ""
        lines.append(f"      {f.metadata['help']}{shown}")
        lines.append(f"      environment: {', '.join(_variables(part, f)[1:])}")
    return "\n".join(lines) + "\n"
