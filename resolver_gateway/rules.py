"""What holds for one service where it differs from the others: the file of `--routes`.

One TOML table a service; what it does not say is as the options say.  A file with anything wrong
in it is refused whole, with everything that is wrong.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from registry import names
from registry.runtime import config
from registry.runtime.config import option
from resolver_gateway.balancer import BY_CHANCE, Balance, parse_balance
from resolver_gateway.naming import Subset

MAX_VERSIONS: Final = 16
"""Versions that share a service's requests; a request may ask for each in turn."""

MAX_SERVICES: Final = 4096
"""Tables of one file; as many services as the cache keeps."""


def parse_versions(value: str) -> tuple[tuple[str, int], ...]:
    """`1.2=90,2.0=10`: versions with their shares."""
    shares: dict[str, int] = {}
    for word in config.words(value):
        version, _, share = word.rpartition("=")
        shares[locality(version)] = config.integer(0, 65535)(share)
    if len(shares) > MAX_VERSIONS:
        raise ValueError(f"there are more than {MAX_VERSIONS} versions")
    if shares and not any(shares.values()):
        raise ValueError("no version has a share above 0")
    return tuple(shares.items())


def locality(value: str) -> str:
    """A version, tag or zone."""
    if problem := names.problem_of_locality(value):
        raise ValueError(problem)
    return value


def port_name(value: str) -> str:
    """The name of a port, as registered."""
    if problem := names.problem_of_port_name(value):
        raise ValueError(problem)
    return value


def per_second(value: str) -> float:
    """Requests a second; 0 for no limit."""
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{value[:40]!r} is not a number of requests a second") from None
    if number != 0 and not 0.001 <= number <= 1_000_000:
        raise ValueError(f"{value} is not 0 or in 0.001..1000000 requests a second")
    return number


whole: Final = config.integer(0, 1_000_000)
"""A number of requests."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for a service; times are seconds, 0 is no limit."""

    balance: Balance = option(parse_balance, default=BY_CHANCE, help="as --balance")
    versions: tuple[tuple[str, int], ...] = option(
        parse_versions,
        default=(),
        help='shares of the requests that name no version: { "1.2" = 90, "2.0" = 10 }',
    )
    tag: str = option(locality, default="", help="only instances with this tag")
    zone: str = option(locality, default="", help="only instances of this zone")
    port: str = option(port_name, default="", help="name of the port; http, or https with tls")
    tls: bool = option(config.boolean, default=False, help="speak TLS to its instances")
    tls_name: str = option(
        config.text, default="", help="the name of their certificate; <service>.<zone> else"
    )
    try_timeout: float = option(config.seconds(0, 3600), default=0.0, help="as --try-timeout")
    request_timeout: float = option(
        config.seconds(0, 3600), default=0.0, help="as --request-timeout"
    )
    rate: float = option(per_second, default=0.0, help="as --service-rate")
    burst: int = option(whole, default=0, help="as --service-burst")
    client_rate: float = option(
        per_second, default=0.0, help="requests a second of one client to this service"
    )
    client_burst: int = option(whole, default=0, help="of these at once; 0: twice the rate")
    max_requests: int = option(whole, default=0, help="as --max-requests")
    queue: int = option(whole, default=0, help="as --queue")
    queue_timeout: float = option(config.seconds(0.01, 600), default=1.0, help="as --queue-timeout")

    def shared_out(self, workers: int) -> "Rule":
        """This rule for one of *workers*; what holds for one client is not shared out."""
        return replace(
            self,
            rate=self.rate / workers,
            burst=-(-self.burst // workers),
            max_requests=-(-self.max_requests // workers),
        )

    @property
    def subset(self) -> Subset:
        """The instances that this rule leaves."""
        return Subset(tag=self.tag, zone=self.zone)

    @property
    def srv_port(self) -> str:
        """The name of the port that is asked for."""
        return self.port or ("https" if self.tls else "http")

    @property
    def is_plain(self) -> bool:
        """Whether instances are drawn by weight, and nobody is limited or hurried."""
        return self.balance == BY_CHANCE and not (
            self.is_limited or self.try_timeout or self.request_timeout
        )

    @property
    def is_limited(self) -> bool:
        """Whether requests may be refused or have to wait."""
        return bool(self.rate or self.client_rate or self.max_requests)


class Rules:
    """The rule of every service."""

    def __init__(self, default: Rule, services: Mapping[str, Rule] | None = None) -> None:
        self.default = default
        self.services = dict(services or {})

    def __repr__(self) -> str:
        return f"<Rules for {len(self.services)} services>"

    def of(self, service: str) -> Rule:
        """The rule of *service* (folded)."""
        return self.services.get(service, self.default)

    def shared_out(self, workers: int) -> "Rules":
        """These rules for one of *workers* that have the limits of services between them."""
        services = {name: rule.shared_out(workers) for name, rule in self.services.items()}
        return Rules(self.default.shared_out(workers), services)


class RulesRefused(ValueError):
    """A file of routes with something wrong in it; *problems* holds all that is."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_rules(text: str, default: Rule, source: str) -> Rules:
    """The rules that *text*, the content of *source*, says; RulesRefused when it cannot."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesRefused([f"file {source}: {error}"]) from error
    found: dict[str, Rule] = {}
    problems: list[str] = []
    for name, table in document.items():
        where = f"file {source}: [{name}]"
        if problem := names.problem_of_service(name.lower()):
            problems.append(f"{where}: {problem}")
        elif not isinstance(table, dict):
            problems.append(f"{where}: it is no table; a service is [{name}] with keys below it")
        else:
            found[names.fold(name)] = _rule_of(table, default, where, problems)
    if len(found) > MAX_SERVICES:
        problems.append(f"file {source}: there are more than {MAX_SERVICES} services")
    if problems:
        raise RulesRefused(problems)
    return Rules(default, found)


def _rule_of(table: Mapping[str, Any], default: Rule, where: str, problems: list[str]) -> Rule:
    known = {f.name: f for f in config.settings_of(Rule)}
    said: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            problems.append(f"{where} {key}: unknown key{meant}")
            continue
        try:
            said[name] = known[name].metadata["parse"](_as_text(value))
        except ValueError as error:
            problems.append(f"{where} {key}: {error}; it is: {known[name].metadata['help']}")
    return replace(default, **said)


def _as_text(value: object) -> str:
    """A TOML value as its parser takes it."""
    if isinstance(value, dict):
        return ",".join(f"{key}={content}" for key, content in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)
