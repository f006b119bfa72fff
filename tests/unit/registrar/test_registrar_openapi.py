"""The published description is valid, and true of what the registrar takes and answers."""

from typing import Any, cast

import openapi_spec_validator
import pytest
from openapi_schema_validator import OAS31Validator

from registrar import openapi
from registrar.beats import Heartbeats
from registrar.consul_reads import ConsulReads
from registrar.lists import Lists
from registrar.registrations import Rules, parse_registration
from registrar.releasing import Releasing
from registrar.routes import Handlers, api_routes
from registrar.writes import Writes
from registry.errors import InvalidInstance
from registry.model import MAX_INTEGER
from tests.support.registrar import a_registrar

DOCUMENT = openapi.document("1")
PARTS = DOCUMENT["components"]["schemas"]
GOOD: dict[str, Any] = {"service_name": "ok", "address": "10.0.0.7", "ports": {"http": 80}}


def validator(name: str) -> Any:
    return OAS31Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )


def test_it_is_a_valid_openapi_document() -> None:
    openapi_spec_validator.validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")


def test_every_route_is_described_and_nothing_else() -> None:
    kinds = (Writes, Releasing, Heartbeats, Lists, ConsulReads)
    nobody = Handlers(*(cast(Any, kind.__new__(kind)) for kind in kinds))
    routes = {(r.method.lower(), r.prefixes[0] + r.path) for r in api_routes(nobody)}
    described = {
        (m, path) for path, item in DOCUMENT["paths"].items() for m in item if m != "servers"
    }
    pages = {("get", f"/{p}") for p in "health healthz readyz metrics openapi.json".split()}

    assert described == routes | pages


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"weight": 0}, True),
        ({"weight": 65535}, True),
        ({"weight": 65536}, False),
        ({"weight": -1}, False),
        ({"weight": "1"}, False),
        ({"weight": True}, False),
        ({"weight": 5.0}, True),
        ({"weight": 5.5}, False),
        ({"weight": None}, True),
        ({"priority": 65535}, True),
        ({"priority": 65536}, False),
        ({"lease_ttl": 0}, True),
        ({"lease_ttl": 5}, True),
        ({"lease_ttl": 4}, False),
        ({"lease_ttl": 3600}, True),
        ({"lease_ttl": 3601}, False),
        ({"record_ttl": 0}, False),
        ({"generation": MAX_INTEGER}, True),
        ({"generation": MAX_INTEGER + 1}, False),
        ({"service_name": "a" * 63}, True),
        ({"service_name": "a" * 64}, False),
        ({"service_name": "A_b-9"}, True),
        ({"service_name": "-a"}, False),
        ({"service_name": "a.b"}, False),
        ({"instance_id": "x_"}, False),
        ({"ports": {"http": 65535}}, True),
        ({"ports": {"http": 65536}}, False),
        ({"ports": {"http": 0}}, False),
        ({"ports": {}}, False),
        ({"ports": {f"p{n}": 1 for n in range(16)}}, True),
        ({"ports": {f"p{n}": 1 for n in range(17)}}, False),
        ({"ports": {"HTTP": 1}}, False),
        ({"ports": {"a" * 16: 1}}, False),
        ({"ports": {"80": 1}}, False),
        ({"ports": {"a--b": 1}}, False),
        ({"ports": {"a-1": 1}}, True),
        ({"ports": {"x": {"port": 1, "protocol": "udp"}}}, True),
        ({"ports": {"x": {"port": 1, "protocol": "sctp"}}}, False),
        ({"ports": {"x": {"port": 1, "extra": 1}}}, False),
        ({"endpoint": "https://web:8443/"}, True),
        ({"endpoint": "ftp://web"}, False),
        ({"metadata": {"a": 1, "b": True, "c": "x"}}, True),
        ({"metadata": {"a": []}}, False),
        ({"metadata": {f"k{n}": "" for n in range(65)}}, False),
        ({"metadata": {"k": "v" * 256}}, True),
        ({"metadata": {"k": "v" * 257}}, False),
        ({"tags": ["a"] * 16}, True),
        ({"tags": [""]}, False),
        ({"version": ""}, False),
        ({"version": "1.2_a-B"}, True),
        ({"zone": "a b"}, False),
        ({"health_endpoint": "/v1/sys/health?x=1"}, True),
        ({"health_endpoint": "health"}, False),
        ({"address": ["10.0.0.1", "2001:db8::3"]}, True),
        ({"address": 5}, False),
        ({"address": []}, False),
        ({"address": None}, False),
        ({"address": None, "host": "web"}, True),
        ({"address": None, "host": "web", "ports": None}, False),
        ({"address": None, "endpoint": "http://web"}, True),
        ({"address": None, "ports": None, "endpoint": "http://web"}, True),
        ({"unknown": 1}, False),
    ],
)
def test_the_schema_and_the_registrar_judge_alike(change: dict[str, Any], good: bool) -> None:
    body = {**GOOD, **change}

    assert validator("RegistrationBody").is_valid(body) is good
    assert is_taken(body) is good


def is_taken(body: dict[str, Any]) -> bool:
    try:
        parse_registration(body, Rules(("svc.internal.",)), "")
    except InvalidInstance:
        return False
    return True


async def test_answers_are_as_described() -> None:
    async with a_registrar() as registrar:
        registered = await registrar.register(
            "web", "one", ports={"g": {"port": 1, "protocol": "udp"}}
        )
        beaten = await registrar.call("POST", "/heartbeat", {"service_name": "web"})
        listed = await registrar.call("POST", "/heartbeat", [{"service_name": "web"}, {}])
        state = await registrar.call(
            "PUT", "/services/web/instances/one/state", {"state": "draining"}
        )
        service = await registrar.call("GET", "/services/web")
        registrar.view.lose(1.0)
        stale = await registrar.call("GET", "/services/web")
        registrar.view.current = True
        removed = await registrar.call("DELETE", "/services/web/instances/one")
        problem = await registrar.call("POST", "/register", {})
        published = await registrar.call("GET", "/openapi.json")

    for name, document in (
        ("Registered", registered),
        ("HeartbeatReceived", beaten.body),
        ("HeartbeatResults", listed.body),
        ("StateSet", state.body),
        ("Service", service.body),
        ("Service", stale.body),
        ("Deregistered", removed.body),
        ("Problem", problem.body),
    ):
        validator(name).validate(document)
    assert published.body["paths"] == DOCUMENT["paths"]


READS = (
    ("Explanation", "/explain?name=web"),
    ("Explanation", "/explain?name=nothing&type=TXT"),
    ("Explanation", "/explain?name=catalog"),
    ("Explanation", "/explain?name=example.org."),
    ("ConsulServices", "/v1/catalog/services"),
    ("ConsulAgent", "/v1/agent/self"),
    ("TargetGroup", "/sd/prometheus"),
    ("ConsulCatalogEntry", "/v1/catalog/service/web"),
    ("ConsulHealthEntry", "/v1/health/service/web"),
    ("ConsulCheck", "/v1/health/state/any"),
    ("Problem", "/explain?name="),
)


@pytest.mark.parametrize(("shape", "path"), READS)
async def test_other_reads_are_as_described(shape: str, path: str) -> None:
    """What is a list is one of the shape."""
    async with a_registrar() as registrar:
        await registrar.register("web", "one", tags=["a"], version="1", metadata={"k": "v"})
        settings = await registrar.call("PUT", "/services/web/settings", {"answers": 1})
        answer = await registrar.call("GET", path)

    validator("SettingsSet").validate(settings.body)
    found = answer.body if isinstance(answer.body, list) else [answer.body]
    assert found
    for document in found:
        validator(shape).validate(document)
