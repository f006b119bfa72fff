"""How a command fails: one exception with what happened, what may help, and the exit status."""

from collections.abc import Mapping
from typing import Any, Final

from registry.errors import CallboardError

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
NOT_FOUND: Final = 3
UNREACHABLE: Final = 4
INTERRUPTED: Final = 130
"""128 + SIGINT, as a shell reports it."""


class Failure(CallboardError):
    """A command cannot do what it was asked.

    *messages* are the faults, at least one, each a line of its own; *hints* say what may help;
    *problem* is the document that the registrar gave as its reason, if it gave one.
    """

    def __init__(
        self,
        *messages: str,
        status: int = FAILED,
        hints: tuple[str, ...] = (),
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        self.messages = messages
        self.status = status
        self.hints = hints
        self.problem = problem
        super().__init__("; ".join(messages))

    def as_document(self) -> dict[str, Any]:
        """What `-o json` prints of it."""
        error: dict[str, Any] = {"status": self.status, "messages": list(self.messages)}
        if self.hints:
            error["hints"] = list(self.hints)
        if self.problem is not None:
            error["problem"] = dict(self.problem)
        return {"error": error}
