"""`guard release`: an operator says that those whom a guard holds are gone indeed."""

from callboard.client import Registrar, path_of
from callboard.failure import NOT_FOUND, Failure
from callboard.output import Result, columns


def release(registrar: Registrar, name: str) -> Result:
    """Let the suspects of service *name* go; how many they were."""
    try:
        document = registrar.call("POST", path_of("v1", "guard", name, "release")).document
    except Failure as failure:
        raise registrar.missing(name) if failure.status == NOT_FOUND else failure from None
    table = columns(("SERVICE", "EVICTED"), [(name, str(document["evicted"]))])
    return Result(document=document, names=[name], table=table, wide=table)
