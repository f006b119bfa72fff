"""TLS towards https registrars, from files."""

import ssl

from registry.errors import CallboardError


class BadFiles(CallboardError):
    """Certificates or key cannot be used; says which file and why."""


def context_of(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """Trusts the certificates in *ca* (empty: the system's), shows *certificate* if given one."""
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ValueError) as error:
        raise BadFiles(f"setting registry_ca: {ca}: {_explained(error)}") from error
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None, password=_no_password)
        except (OSError, ValueError) as error:
            names = " and ".join(name for name in (certificate, key) if name)
            raise BadFiles(f"setting registry_cert: {names}: {_explained(error)}") from error
    return context


def _no_password() -> str:
    # Without it OpenSSL would ask whoever sits at the terminal.
    raise ValueError("the key is encrypted; give one without a password, readable by us alone")


def _explained(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.partition(" (_ssl.c")[0]
