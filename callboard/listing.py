"""`ls` and `show`: what is registered, as tables and as the registrar's own JSON."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from callboard.client import Answer, Registrar, path_of
from callboard.failure import NOT_FOUND, Failure
from callboard.output import PLAIN, Result, Style, columns

Document = Mapping[str, Any]


def services(
    registrar: Registrar, filters: Mapping[str, Sequence[str]], style: Style = PLAIN
) -> Result:
    """Every service, sorted by name; *filters* keep those that have an instance to fit them."""
    query = urlencode([("detail", "true"), *((k, v) for k in filters for v in filters[k])])
    answer = registrar.get(f"/services?{query}")
    listed = sorted(answer.document, key=lambda service: str(service["service_name"]))
    headings = ("SERVICE", "SERVING", "ADDRESSES")
    return Result(
        document=listed,
        names=[service["service_name"] for service in listed],
        table=columns(headings, [_service_row(s) for s in listed], style),
        wide=columns(
            (*headings, "VERSIONS", "ZONES", "TAGS"),
            [(*_service_row(s), *_variety(s)) for s in listed],
            style,
        ),
        notes=_notes_of_list(answer, listed),
    )


def service(registrar: Registrar, name: str, style: Style = PLAIN) -> Result:
    """One service with its instances; a Failure that names near ones when there is none."""
    try:
        answer = registrar.get(path_of("services", name))
    except Failure as failure:
        raise registrar.missing(name) if failure.status == NOT_FOUND else failure from None
    instances: list[Document] = answer.document["instances"]
    return Result(
        document=answer.document,
        names=[instance["instance_id"] for instance in instances],
        table=columns(_HEADINGS, [_instance_row(i, answer.now) for i in instances], style),
        wide=columns(
            (*_HEADINGS, *_WIDE_HEADINGS),
            [(*_instance_row(i, answer.now), *_wide_cells(i, answer.now)) for i in instances],
            style,
        ),
        notes=answer.notes,
    )


_HEADINGS = (
    "ADDRESS",
    "INSTANCE",
    "STATE",
    "REASON",
    "PRIORITY/WEIGHT",
    "VERSION",
    "ZONE",
    "TAGS",
    "LEASE-LEFT",
    "REGISTERED",
)
_WIDE_HEADINGS = ("LAST-BEAT", "PORTS", "HOST", "HEALTH", "METADATA", "REVISION")


def _notes_of_list(answer: Answer, listed: Sequence[Document]) -> tuple[str, ...]:
    if listed:
        return answer.notes
    return (
        *answer.notes,
        "no service is listed; `callboard register NAME URL` registers one of yours",
    )


def _service_row(document: Document) -> tuple[str, ...]:
    instances = document["instances"]
    serving = [i for i in instances if i["state"] == "serving"]
    addresses = ",".join(where(i) for i in serving)
    return document["service_name"], f"{len(serving)}/{len(instances)}", addresses


def _variety(document: Document) -> tuple[str, ...]:
    """Versions, zones and tags that occur among the instances."""
    instances = document["instances"]
    versions = {version_of(i) for i in instances}
    zones = {i["zone"] or "" for i in instances}
    tags = {tag for i in instances for tag in i["tags"]}
    return tuple(",".join(sorted(found - {""})) for found in (versions, zones, tags))


def _instance_row(document: Document, now: float) -> tuple[str, ...]:
    return (
        where(document),
        document["instance_id"],
        document["state"],
        document.get("state_reason") or "",
        f"{document['priority']}/{document['weight']}",
        version_of(document),
        document["zone"] or "",
        ",".join(document["tags"]),
        lease_left(document),
        ago(now - document["registered_at"]),
    )


def _wide_cells(document: Document, now: float) -> tuple[str, ...]:
    beat = document.get("last_heartbeat")
    return (
        ago(now - beat) if beat is not None else "",
        ",".join(f"{name}={port_text(port)}" for name, port in document["ports"].items()),
        document["host"] or "",
        document["health_endpoint"],
        ",".join(f"{k}={v}" for k, v in sorted(document["metadata"].items())),
        document["revision"],
    )


def version_of(document: Document) -> str:
    """The instance's version: its own, else the one its health check told."""
    return str(document["version"] or document["metadata"].get("version", ""))


def where(document: Document) -> str:
    """`10.0.0.7:8080`: every address with the port that the instance's endpoint names."""
    port = str(document["endpoint"]).rpartition(":")[2]
    hosts = document["addresses"] or [document["host"] or "?"]
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts)


def port_text(port: Any) -> str:
    """`8080`, or `4000/udp` where it is not TCP."""
    return f"{port['port']}/{port['protocol']}" if isinstance(port, dict) else str(port)


def lease_left(document: Document) -> str:
    """How long the instance stays without a renewal."""
    if document.get("static"):
        return "static"
    left = document.get("ttl_remaining")
    return "?" if left is None else f"{left}s"


def ago(seconds: float) -> str:
    """A span of time as one short word: `0s`, `59s`, `3m`, `5h`, `12d`."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
