"""What the registrar reads from files, at its start and again on SIGHUP: tokens, certificates."""

import ssl
from collections.abc import Iterator

from registrar.config import Config
from registrar.config import problems as problems_across
from registrar.tokens import Tokens, TokensError, parse_tokens

MAX_TOKENS_FILE = 16 << 20
"""Octets: 10,000 tokens with many patterns."""


def read_tokens(path: str) -> Tokens:
    """The tokens in the file at *path*; TokensError says what is wrong, with it or in it."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_TOKENS_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise TokensError([str(error)]) from error
    if len(text) > MAX_TOKENS_FILE:
        raise TokensError([f"more than {MAX_TOKENS_FILE} characters"])
    return parse_tokens(text)


def tls_context(config: Config) -> ssl.SSLContext | None:
    """What the files of *config* say about TLS; None without. OSError (SSLError is one) else."""
    if not config.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # An encrypted key is refused; without a password OpenSSL would ask the terminal for one.
    context.load_cert_chain(config.tls_cert, config.tls_key, password="")
    context.set_alpn_protocols(["http/1.1"])
    if config.tls_client_ca:
        context.load_verify_locations(config.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session is not verified again: it would outlive the authority that it showed.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def problems(config: Config) -> Iterator[str]:
    """The rules across settings, and what is wrong with the files that they name."""
    yield from problems_across(config)
    if config.tokens:
        try:
            read_tokens(config.tokens)
        except TokensError as error:
            yield from (f"file {config.tokens}: {problem}" for problem in error.problems)
    if config.tls_cert and config.tls_key:
        try:
            tls_context(config)
        except OSError as error:
            files = ", ".join(filter(None, (config.tls_cert, config.tls_key, config.tls_client_ca)))
            yield f"setting tls_cert: {files}: {error}"
