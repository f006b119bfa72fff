"""One line in the log for every change that somebody makes: who, from where, what, at which
revision.  Never the token, only its name."""

from typing import Any

from registrar.access import name_of
from registrar.calls import Call
from registry.runtime import logs

log = logs.get("registrar.audit")


def say(what: str, call: Call, **fields: Any) -> None:
    """*what* was done by *call*; *fields* say to what."""
    log.info(what, who=name_of(call.who), source=call.caller or "local", **fields)
