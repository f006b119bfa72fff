"""The command line: every sub-command with its options.  What one does is imported when it runs."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from callboard.failure import DONE, FAILED, INTERRUPTED, WRONG_USAGE, Failure
from callboard.output import FORMATS, Format, Style, show, show_failure, style_of
from callboard.parts import DEFAULT_DNS, DEFAULT_REGISTRAR, MODULES, become

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = """Exit status: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 unreachable,
130 interrupted.  Results go to stdout, all else to stderr; -o json holds for errors too."""


def run(argv: list[str]) -> int:
    """Run the command *argv*; returns its exit status."""
    try:
        status = callboard.main(argv, prog_name="callboard", standalone_mode=False)
    except click.UsageError as error:
        show_failure(_usage_failure(error), _format_in(argv))
        return WRONG_USAGE
    except Failure as failure:
        show_failure(failure, _format_in(argv))
        return failure.status
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader had enough (`callboard ls | head`); Python must not flush into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status if isinstance(status, int) else DONE


def _usage_failure(error: click.UsageError) -> Failure:
    """A wrong command line in our form, with what click would suggest."""
    context = error.ctx
    hint = () if context is None else (f"`{context.command_path} --help` says more",)
    return Failure(error.format_message(), status=WRONG_USAGE, hints=hint)


def _format_in(argv: list[str]) -> Format:
    """The output format asked for, also where the command line could not be parsed."""
    for before, word in zip(["", *argv], argv, strict=False):
        if word in ("--json", "-ojson", "--output=json"):
            return "json"
        if before in ("-o", "--output") and word == "json":
            return "json"
    return "table"


# --- options shared by several commands -------------------------------------------------------


def _output_options(function: F) -> F:
    function = click.option("--json", "form", flag_value="json", help="The same as -o json.")(
        function
    )
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Columns for people, JSON for programs, or names alone.",
    )(function)


def _registrar_option(function: F) -> F:
    return click.option(
        "-r",
        "--registrar-url",
        envvar="CALLBOARD_REGISTRAR_URL",
        show_envvar=True,
        default=DEFAULT_REGISTRAR,
        show_default=True,
        metavar="URL",
        help="Which registrar to ask.",
    )(function)


def _complete_service(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Names of services that begin with what was typed; none when nobody answers at once."""
    from callboard.client import Registrar

    url = context.params.get("registrar_url") or DEFAULT_REGISTRAR
    try:
        names = Registrar(url, timeout=0.5).get("/services").document
    except Failure:
        return []
    return [name for name in names if name.startswith(incomplete)]


def _service_argument(function: F) -> F:
    return click.argument("name", shell_complete=_complete_service)(function)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def callboard() -> None:
    """DNS-based service discovery: services sign in, and everyone asks DNS where they are."""


# --- parts ------------------------------------------------------------------------------------


def _add_part(part: str, what: str) -> None:
    @callboard.command(
        part,
        help=f"{what} The same as `python -m {MODULES[part]}`; --help lists its options.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        become(part, arguments)


_add_part("dnsd", "Run the DNS server.")
_add_part("registrar", "Run the HTTP API over the lease store.")
_add_part("sidecar", "Keep services registered while they are healthy.")
_add_part("gateway", "Run the HTTP gateway that finds services by DNS.")


def _setting(flag: str, metavar: str, default: str, help: str) -> Callable[[F], F]:
    """An option of `up`: also a variable, CALLBOARD_UP_<OPTION> before CALLBOARD_<OPTION>."""
    variable = flag.removeprefix("--").replace("-", "_").upper()
    return click.option(
        flag,
        envvar=[f"CALLBOARD_UP_{variable}", f"CALLBOARD_{variable}"],
        metavar=metavar,
        help=f"{help}  [default: {default}]" if default else help,
    )


@callboard.command()
@click.option(
    "--demo/--no-demo",
    envvar=["CALLBOARD_UP_DEMO", "CALLBOARD_DEMO"],
    help="With twelve small services, or without them.  [default: no-demo]",
)
@_setting("--zone", "NAME[,...]", "svc.internal", "DNS zone of the services.")
@_setting("--dns", "HOST:PORT", DEFAULT_DNS, "Where dnsd listens, UDP and TCP.")
@_setting("--registrar", "HOST:PORT", "127.0.0.1:8888", "Where the registrar listens.")
@_setting("--gateway", "HOST:PORT", "127.0.0.1:8000", "Where the gateway listens.")
@_setting("--listen", "HOST", "127.0.0.1", "Host of those that were given no host.")
@_setting("--redis", "URL", "", "Use this store instead of an embedded one.")
@_setting("--data-dir", "DIR", "~/.local/state/callboard", "Where the embedded store writes.")
@_setting("--lease-ttl", "SECONDS", "60", "Lease of services that ask for none.")
@_setting("--ready-file", "FILE", "", "Write here where everything is, once it answers.")
@click.pass_context
def up(context: click.Context, /, demo: bool, **texts: str | None) -> int:
    """Run all of it on this machine, with an embedded store: no root, no Docker.

    Port 0 takes a free one.  Ctrl-C or SIGTERM stops all parts in order, a second one at once.
    """
    from callboard import plan, up

    given = plan.Given(texts, lambda name: _source_of(context, name))
    return up.main(plan.options_of(given, demo=demo, environ=os.environ), os.environ)


def _source_of(context: click.Context, name: str) -> str:
    """`option --dns`, or `environment CALLBOARD_DNS`."""
    from click.core import ParameterSource

    if context.get_parameter_source(name) is not ParameterSource.ENVIRONMENT:
        return "option --" + name.replace("_", "-")
    variables = (f"CALLBOARD_UP_{name.upper()}", f"CALLBOARD_{name.upper()}")
    return "environment " + next(v for v in variables if v in os.environ)


# --- questions --------------------------------------------------------------------------------


@callboard.command()
@click.option("--tag", multiple=True, help="Only services with an instance that has this tag.")
@click.option("--version", multiple=True, help="Only those with an instance of this version.")
@click.option("--zone", multiple=True, help="Only those with an instance in this locality.")
@click.option("--state", multiple=True, help="Only those with an instance in this state.")
@_registrar_option
@_output_options
def ls(registrar_url: str, form: Format, **filters: tuple[str, ...]) -> None:
    """List the services: how many instances serve, and where they are."""
    from callboard import listing
    from callboard.client import Registrar

    given = {name: values for name, values in filters.items() if values}
    show(listing.services(Registrar(registrar_url), given, _style()), form)


@callboard.command("show")
@_service_argument
@_registrar_option
@_output_options
def show_service(name: str, registrar_url: str, form: Format) -> None:
    """Show the instances of service NAME: where, in which state and why, for how long."""
    from callboard import listing
    from callboard.client import Registrar

    show(listing.service(Registrar(registrar_url), name, _style()), form)


@callboard.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="NAME [TYPE] [@SERVER[:PORT]] [+tcp] [+short]")
@click.option(
    "--dns",
    envvar="CALLBOARD_DNS",
    show_envvar=True,
    default=DEFAULT_DNS,
    show_default=True,
    metavar="HOST:PORT",
    help="Which DNS server to ask.",
)
@click.option(
    "--zone",
    envvar="CALLBOARD_ZONE",
    show_envvar=True,
    default="svc.internal",
    show_default=True,
    help="Zone of a NAME that has no dot.",
)
@_output_options
def dig(words: tuple[str, ...], dns: str, zone: str, form: Format) -> int:
    """Ask DNS for NAME, as dig does.

    TYPE is A unless given.  Exit status 3: the name, or a record of this type, does not exist.
    """
    from callboard import digging

    question = digging.question_of(words, _first_server(dns), zone.partition(",")[0])
    result, status = digging.dig(question)
    show(result, form)
    return status


def _first_server(text: str) -> Any:
    """The first of HOST:PORT[,...]: the gateway, which reads the same variable, takes several."""
    from registry.runtime.config import host_ports

    try:
        return host_ports(text)[0]
    except ValueError as error:
        raise Failure(f"option --dns: {error}", status=WRONG_USAGE) from error


# --- acts -------------------------------------------------------------------------------------


@callboard.command()
@click.argument("name")
@click.argument("url")
@click.option("--id", "instance", metavar="ID", help="Id of the instance; else made of the URL.")
@click.option("--priority", type=click.IntRange(0, 65535), help="Lower ones are used first.")
@click.option("--weight", type=click.IntRange(0, 65535), help="Share among its priority.")
@click.option("--version", help="Version of the service.")
@click.option("--zone", help="Locality of the instance (not the DNS zone).")
@click.option("--tag", "tags", multiple=True, help="A tag; may be repeated.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="A fact; may be repeated.")
@click.option("--health", metavar="PATH", help="Path of its health endpoint.")
@click.option("--lease-ttl", type=int, metavar="SECONDS", help="Lease; else the registrar's.")
@click.option("--static", is_flag=True, help="No lease: it stays until deregistered.")
@click.option("--keep", is_flag=True, help="Stay and renew the lease; Ctrl-C deregisters.")
@_registrar_option
@_output_options
def register(
    name: str,
    url: str,
    meta: tuple[str, ...],
    static: bool,
    keep: bool,
    lease_ttl: int | None,
    registrar_url: str,
    form: Format,
    **wishes: Any,
) -> None:
    """Register the service NAME at URL: http://, https://, tcp:// or udp://HOST:PORT."""
    from callboard import instances
    from callboard.client import Registrar

    if static and (keep or lease_ttl):
        raise click.UsageError("--static goes neither with --keep nor with --lease-ttl")
    wish = instances.Wish(
        service=name,
        url=url,
        metadata=_pairs(meta),
        lease_ttl=0 if static else lease_ttl,
        **wishes,
    )
    registrar = Registrar(registrar_url)
    result = instances.register(registrar, wish, keeping=keep)
    show(result, form)
    if keep:
        instances.keep(registrar, wish, result.document, _say)


def _pairs(texts: tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--meta {text!r} is not KEY=VALUE")
        found[key] = value
    return found


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


@callboard.command()
@_service_argument
@click.argument("instance", required=False, metavar="[ID]")
@_registrar_option
@_output_options
def deregister(name: str, instance: str | None, registrar_url: str, form: Format) -> None:
    """Take instance ID of service NAME away, or all its instances."""
    from callboard import instances
    from callboard.client import Registrar

    show(instances.deregister(Registrar(registrar_url), name, instance), form)


@callboard.command()
@_service_argument
@click.argument("instance", required=False, metavar="[ID]")
@click.option("--reason", help="Why; `show` tells it.")
@click.option("--undo", is_flag=True, help="Let it serve again.")
@_registrar_option
@_output_options
def drain(
    name: str,
    instance: str | None,
    reason: str | None,
    undo: bool,
    registrar_url: str,
    form: Format,
) -> None:
    """Take instance ID of service NAME out of DNS; it stays listed.  ID may be left out of one."""
    from callboard import instances
    from callboard.client import Registrar

    state = "serving" if undo else "draining"
    show(instances.set_state(Registrar(registrar_url), name, instance, state, reason), form)


@callboard.group()
def guard() -> None:
    """When too many leases end at once, instances are kept as suspect: `show` marks them."""


@guard.command()
@_service_argument
@_registrar_option
@_output_options
def release(name: str, registrar_url: str, form: Format) -> None:
    """Let the suspects of service NAME go now, and hold none of it for some minutes."""
    from callboard import guarding
    from callboard.client import Registrar

    show(guarding.release(Registrar(registrar_url), name), form)


# --- about ------------------------------------------------------------------------------------


@callboard.command()
@_output_options
def version(form: Format) -> None:
    """Say which versions of Callboard, Python and the embedded store are here."""
    from callboard import about

    show(about.version(), form)


@callboard.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@_output_options
def completion(shell: str, form: Format) -> None:
    """Print a script that completes this command; for bash: eval "$(callboard completion bash)"."""
    from callboard import about

    show(about.completion(shell, callboard), form)


def _style() -> Style:
    return style_of(sys.stdout, os.environ)
