"""Who may write: tokens, rights, patterns, names that belong to somebody, quotas, the audit."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from registrar import access
from registrar.access import Access, Strangers, secret_in
from registrar.errors import Forbidden, LimitReached, Unauthorized
from registrar.holdings import Holdings
from registrar.tokens import Token, Tokens, digest_of
from registry import names
from registry.catalog import Catalog, Service
from tests.support.registrar import Registrar, Response, a_registrar

ALL = frozenset(("register", "deregister", "state", "settings", "guard", "read"))

TOKENS = Tokens(
    {
        digest_of("red"): Token("red-team", ("red-*", "shared"), ALL),
        digest_of("red-old"): Token("red-team", ("red-*", "shared"), ALL),
        digest_of("blue"): Token("blue-team", ("*",), ALL),
        digest_of("beat"): Token("beater", ("*",), frozenset({"register"})),
        digest_of("small"): Token("small", ("*",), ALL, max_services=1, max_instances=2),
        digest_of("op"): Token("operators", ("*",), ALL, operator=True),
    }
)

BODY = {"address": "10.0.0.7", "ports": {"http": 80}, "instance_id": "one"}
GOOD = {**BODY, "service_name": "red-web"}
DRAINING = {"state": "draining"}

CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/register", GOOD),
    ("POST", "/heartbeat", {"service_name": "red-web", "instance_id": "one"}),
    ("PUT", "/services/red-web/instances/one/state", DRAINING),
    ("PUT", "/services/red-web/settings", {"answers": 1}),
    ("DELETE", "/services/red-web/instances/one", None),
    ("DELETE", "/deregister/red-web", None),
]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def as_(
    token: str, registrar: Registrar, method: str, path: str, body: Any = None
) -> Response:
    return await registrar.call(method, path, body, headers=bearer(token))


# --- whose token ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({}, None),
        ({"Authorization": "Bearer x"}, "x"),
        ({"Authorization": "bearer  x "}, "x"),
        ({"Authorization": "Basic x"}, ""),
        ({"Authorization": "Bearer"}, ""),
        ({"X-Registry-Token": "x"}, "x"),
        ({"X-Consul-Token": "x"}, "x"),
        ({"X-Registry-Token": ""}, None),
        ({"Authorization": "Bearer a", "X-Registry-Token": "b"}, "a"),
    ],
)
def test_where_a_token_stands(headers: dict[str, str], secret: str | None) -> None:
    assert secret_in(headers) == secret


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_every_change_takes_a_token(method: str, path: str, body: Any) -> None:
    async with a_registrar(TOKENS) as registrar:
        none = await as_("", registrar, method, path, body)
        wrong = await as_("cbt_guess", registrar, method, path, body)
        listed = await registrar.call("GET", "/services")

    for refused in (none, wrong):
        assert refused.status == 401
        assert refused.body["type"] == "urn:callboard:problem:unauthorized"
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="callboard"'
    assert listed.body == []


@pytest.mark.parametrize("header", ["Authorization", "X-Registry-Token"])
async def test_a_valid_token_may_what_its_entry_says(header: str) -> None:
    async with a_registrar(TOKENS) as registrar:
        statuses = []
        for method, path, body in CALLS:
            headers = {header: ("Bearer " if header == "Authorization" else "") + "red"}
            statuses.append((await registrar.call(method, path, body, headers=headers)).status)

    assert statuses == [201, 200, 200, 200, 200, 200]


async def test_two_tokens_of_one_name_are_one_holder() -> None:
    """So a token is exchanged while both are in use."""
    async with a_registrar(TOKENS) as registrar:
        statuses = [
            (await as_(token, registrar, "POST", "/register", GOOD)).status
            for token in ("red-old", "red", "red-old")
        ]

    assert statuses == [201, 200, 200]


@pytest.mark.parametrize(("method", "path", "body"), CALLS[2:])
async def test_a_token_without_the_right_is_403(method: str, path: str, body: Any) -> None:
    async with a_registrar(TOKENS) as registrar:
        await as_("beat", registrar, "POST", "/register", GOOD)
        answer = await as_("beat", registrar, method, path, body)

    assert answer.status == 403
    assert "has no right to" in answer.body["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"User-Agent": "callboard-registrar"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-HTTP-Method-Override": "GET"},
        {"Authorization": "Basic cmVkOg=="},
        {"Authorization": "Bearer " + digest_of("red")},
        {"Cookie": "token=red"},
    ],
)
async def test_nothing_but_a_token_lets_a_change_pass(headers: dict[str, str]) -> None:
    async with a_registrar(TOKENS) as registrar:
        answers = [
            await registrar.call(method, path, body, headers=headers)
            for method, path, body in (
                CALLS[0],
                ("POST", "/v1/register", GOOD),
                ("DELETE", "/deregister/red-web", None),
                ("POST", "/register?token=red", GOOD),
            )
        ]

    assert {answer.status for answer in answers} == {401}


@pytest.mark.parametrize("path", ["//register", "/REGISTER", "/register/", "/./register;x"])
async def test_no_other_spelling_of_a_path_is_a_way_around(path: str) -> None:
    async with a_registrar(TOKENS) as registrar:
        answer = await registrar.call("POST", path, GOOD)

    assert answer.status in (401, 404)


# --- whose name -------------------------------------------------------------------------------


def spellings(name: str) -> st.SearchStrategy[str]:
    """Every way to write *name* that is folded to it."""
    chars = [st.sampled_from("-_" if c == "-" else [c, c.upper()]) for c in name]
    return st.tuples(*chars).map("".join)


@given(spellings("blue-pay-ments"))
def test_any_spelling_of_a_name_that_is_not_covered_is_refused(name: str) -> None:
    judge = Access(TOKENS)

    with pytest.raises(Forbidden):
        judge.require_name(TOKENS.holder("red"), name, "")


@given(spellings("red-web"))
def test_any_spelling_of_somebody_elses_name_is_refused(name: str) -> None:
    judge = Access(TOKENS)

    assert names.fold(name) == "red-web"
    judge.require_name(TOKENS.holder("red"), name, "red-team")
    judge.require_name(TOKENS.holder("op"), name, "red-team")
    with pytest.raises(Forbidden):
        judge.require_name(TOKENS.holder("blue"), name, "red-team")


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_a_name_belongs_to_who_registered_it_first(method: str, path: str, body: Any) -> None:
    """Both patterns cover it; for the second it is 403 in any spelling."""
    async with a_registrar(TOKENS) as registrar:
        await as_("red", registrar, "POST", "/register", GOOD)
        other = await as_("blue", registrar, method, path.replace("red-web", "RED_web"), body)
        listed = (await registrar.call("GET", "/services/red-web")).body["instances"]

    assert other.status == 403
    assert "red-team" not in json.dumps(other.body), "who owns it is nobody's business"
    assert [i["state"] for i in listed] == ["serving"]


async def test_the_store_decides_whose_name_it_is_when_two_are_as_fast() -> None:
    """Two registrars, neither of which has heard of the other's registration yet."""
    async with a_registrar(TOKENS) as registrar:
        store = registrar.store.store
        hidden = registrar.view.catalog.revision
        await as_("red", registrar, "POST", "/register", GOOD)
        changes = store._changes
        store._changes = [c for c in changes if c.revision <= hidden]
        registrar.view._catalog = Catalog(hidden)
        answers = [await as_("blue", registrar, *call) for call in (CALLS[0], *CALLS[2:])]
        store._changes = changes

    assert {answer.status for answer in answers} == {403}
    assert not any("red-team" in answer.body["detail"] for answer in answers)


async def test_a_name_is_free_again_once_its_service_is_forgotten() -> None:
    async with a_registrar(TOKENS) as registrar:
        await as_("red", registrar, "POST", "/register", GOOD)
        await as_("red", registrar, "DELETE", "/deregister/red-web")
        early = await as_("blue", registrar, "POST", "/register", GOOD)
        await registrar.advance(121)
        late = await as_("blue", registrar, "POST", "/register", GOOD)

    assert (early.status, late.status) == (403, 201)


async def test_an_operator_may_act_on_everybodys_names_and_takes_none() -> None:
    async with a_registrar(TOKENS) as registrar:
        await as_("red", registrar, "POST", "/register", GOOD)
        second = {**GOOD, "instance_id": "two"}
        statuses = [
            (await as_("op", registrar, *call)).status
            for call in (("POST", "/register", second), *CALLS[1:5])
        ]
        again = await as_("red", registrar, "POST", "/register", GOOD)

    assert statuses == [201, 200, 200, 200, 200]
    assert again.status == 201


async def test_what_was_registered_before_there_were_tokens_belongs_to_who_comes_first() -> None:
    async with a_registrar(TOKENS) as registrar:
        registrar.service._access._tokens = None
        await registrar.register("web", "one")
        registrar.service._access.use(TOKENS)
        body = {**BODY, "service_name": "web", "instance_id": "two"}
        first = await as_("blue", registrar, "POST", "/register", body)
        second = await as_("small", registrar, "POST", "/register", body)

    assert (first.status, second.status) == (201, 403)


async def test_each_heartbeat_of_a_list_is_judged_by_itself() -> None:
    async with a_registrar(TOKENS) as registrar:
        await as_("red", registrar, "POST", "/register", GOOD)
        await as_("blue", registrar, "POST", "/register", {**BODY, "service_name": "blue-web"})
        beats = [{"service_name": name} for name in ("red-web", "blue-web", "none")]
        answer = await as_("red", registrar, "POST", "/heartbeat", beats)

    assert [result["status"] for result in answer.body["results"]] == [200, 403, 403]


# --- reads ------------------------------------------------------------------------------------

READS = ("/services", "/services/red-web", "/events", "/sd/prometheus", "/explain?name=x",
         "/v1/catalog/services", "/v1/health/service/red-web", "/v1/agent/self")  # fmt: skip

OPEN = ("/health", "/healthz", "/readyz", "/metrics", "/openapi.json")


@pytest.mark.parametrize("path", READS)
async def test_reads_take_a_token_where_that_is_configured(path: str) -> None:
    async with a_registrar(TOKENS, read_tokens=True) as registrar:
        none = await as_("", registrar, "GET", path)
        without = await as_("beat", registrar, "GET", path)

    assert (none.status, without.status) == (401, 403)


@pytest.mark.parametrize("path", [p for p in READS if p != "/events"])
async def test_who_may_read_reads_everything(path: str) -> None:
    async with a_registrar(TOKENS, read_tokens=True) as registrar:
        await as_("blue", registrar, "POST", "/register", GOOD)
        answer = await as_("red", registrar, "GET", path)

    assert answer.status == 200


@pytest.mark.parametrize("path", [p for p in READS if p != "/events"])
async def test_reads_are_open_otherwise_but_a_wrong_token_is_told_so(path: str) -> None:
    async with a_registrar(TOKENS) as registrar:
        await as_("red", registrar, "POST", "/register", GOOD)
        none = await as_("", registrar, "GET", path)
        without = await as_("beat", registrar, "GET", path)
        wrong = await as_("cbt_guess", registrar, "GET", path)

    assert (none.status, without.status, wrong.status) == (200, 200, 401)


@pytest.mark.parametrize("path", OPEN)
async def test_health_and_metrics_never_take_a_token(path: str) -> None:
    async with a_registrar(TOKENS, read_tokens=True) as registrar:
        statuses = [(await as_(token, registrar, "GET", path)).status for token in ("", "wrong")]

    assert statuses == [200, 200]


# --- quotas -----------------------------------------------------------------------------------


async def test_a_token_holds_no_more_than_its_quota() -> None:
    async with a_registrar(TOKENS) as registrar:

        async def register(service: str, instance: str) -> Response:
            body = {**BODY, "service_name": service, "instance_id": instance}
            return await as_("small", registrar, "POST", "/register", body)

        first = await register("web", "one")
        other = await register("db", "one")
        second = await register("web", "two")
        third = await register("web", "three")
        again = await register("web", "one")
        await as_("small", registrar, "DELETE", "/services/web/instances/one")
        freed = await register("web", "three")

    assert [first.status, second.status, again.status, freed.status] == [201, 201, 200, 201]
    assert (other.status, other.body["type"]) == (429, "urn:callboard:problem:limit-token-services")
    assert (third.status, third.body["type"]) == (
        429,
        "urn:callboard:problem:limit-token-instances",
    )


def a_service(owner: str, count: int) -> Service:
    return Service("web", dict.fromkeys(map(str, range(count))), owner=owner)  # type: ignore[arg-type]


def test_holdings_follow_each_service() -> None:
    holdings = Holdings()
    holdings.update("web", a_service("red", 3))
    holdings.update("db", a_service("red", 1))
    holdings.update("other", a_service("", 7))

    assert holdings.of("red") == (2, 4)
    holdings.update("web", a_service("red", 1))
    assert holdings.of("red") == (2, 2)
    holdings.update("web", a_service("red", 0))
    assert holdings.of("red") == (2, 1), "its name is kept until the service is forgotten"
    holdings.update("web", None)
    holdings.update("db", a_service("blue", 1))
    assert (holdings.of("red"), holdings.of("blue")) == ((0, 0), (1, 1))
    assert repr(holdings) == "<Holdings of 1 owners>"


def test_registrations_under_way_count() -> None:
    """Many at once are no way around a quota."""
    token, holdings = Token("x", ("*",), max_services=2, max_instances=2), Holdings()

    with holdings.room(token, new_service=True, new_instance=True):
        with holdings.room(token, new_service=True, new_instance=True):
            with (
                pytest.raises(LimitReached, match="2 instances"),
                holdings.room(token, new_service=False, new_instance=True),
            ):
                pytest.fail("it was let in")
            with holdings.room(token, new_service=False, new_instance=False):
                pass
        with holdings.room(token, new_service=True, new_instance=True):
            pass


# --- guessing ---------------------------------------------------------------------------------


def test_an_address_may_fail_some_times_and_then_slowly() -> None:
    strangers = Strangers()

    burst = [strangers.may_fail("192.0.2.1", 100.0) for _ in range(access.FAILURES + 5)]
    assert burst == [True] * access.FAILURES + [False] * 5
    assert strangers.may_fail("192.0.2.2", 100.0)
    assert not strangers.may_fail("192.0.2.1", 100.0 + access.FAILURE_SECONDS - 0.1)
    assert strangers.may_fail("192.0.2.1", 100.0 + access.FAILURE_SECONDS + 0.1)


def test_a_host_with_ipv6_is_one_network() -> None:
    strangers = Strangers()
    for number in range(access.FAILURES):
        strangers.may_fail(f"2001:db8::{number:x}", 0.0)

    assert not strangers.may_fail("2001:db8::ffff", 0.0)
    assert strangers.may_fail("2001:db8:0:1::1", 0.0)


def test_strangers_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_STRANGERS", 10)
    strangers = Strangers()
    for number in range(100):
        strangers.may_fail(f"192.0.2.{number}", 0.0)

    assert len(strangers._free_at) == 10


async def test_who_only_guesses_is_told_to_stop_and_others_go_on() -> None:
    async with a_registrar(TOKENS) as registrar:
        answers = [
            await as_("cbt_guess", registrar, "POST", "/register", GOOD)
            for _ in range(access.FAILURES + 1)
        ]
        valid = await as_("red", registrar, "POST", "/register", GOOD)
        metrics = (await registrar.call("GET", "/metrics")).body

    assert [a.status for a in answers] == [401] * access.FAILURES + [429]
    assert answers[-1].body["type"] == "urn:callboard:problem:limit-unauthorized"
    assert valid.status == 201, "behind one address there may be strangers and friends"
    assert f'registrar_refusals_total{{problem="unauthorized"}} {access.FAILURES}.0' in metrics
    assert 'registrar_refusals_total{problem="limit-unauthorized"} 1.0' in metrics


def test_without_a_token_one_is_a_stranger_too() -> None:
    judge = Access(TOKENS)
    for _ in range(access.FAILURES):
        with pytest.raises(Unauthorized):
            judge.admit({}, "192.0.2.1", "register", 0.0)

    with pytest.raises(LimitReached):
        judge.admit({}, "192.0.2.1", "register", 0.0)


# --- the audit --------------------------------------------------------------------------------


@pytest.fixture
def audited(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, Any]]]:
    """What the audit said so far, as fields, with the message as `what`."""
    lines: list[dict[str, Any]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append({"what": record.getMessage(), **record.fields})  # type: ignore[attr-defined]

    logger, handler = logging.getLogger("registrar.audit"), Collect()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def test_every_change_is_a_line_that_says_who_did_what(audited: list[dict[str, Any]]) -> None:
    async with a_registrar(TOKENS) as registrar:
        for call in (*CALLS[:4], CALLS[0], ("POST", "/register", {**GOOD, "weight": 1})):
            await as_("red", registrar, *call)
        for call in CALLS[4:5]:
            await as_("red", registrar, *call)
        await as_("red", registrar, "POST", "/register", GOOD)
        await as_("red", registrar, *CALLS[5])
        await as_("red", registrar, *CALLS[5])
        await as_("blue", registrar, *CALLS[0])
        await as_("guess", registrar, *CALLS[0])

    assert [(line["what"], line["name"]) for line in audited] == [
        ("instance registered", "red-web/one"),
        ("state set", "red-web/one"),
        ("settings set", "red-web"),
        ("instance changed", "red-web/one"),
        ("instance deregistered", "red-web/one"),
        ("instance registered", "red-web/one"),
        ("service deregistered", "red-web"),
    ]
    assert all(line["who"] == "red-team" for line in audited)
    assert all(line["source"] == "127.0.0.1" for line in audited)
    revisions = [line["revision"] for line in audited]
    assert revisions == sorted(set(revisions))


async def test_where_nobody_says_who_they_are_the_line_says_so(
    audited: list[dict[str, Any]],
) -> None:
    async with a_registrar() as registrar:
        await registrar.register("web", "one")

    assert [line["who"] for line in audited] == ["anyone"]


async def test_a_token_is_in_no_answer_log_or_metric(caplog: pytest.LogCaptureFixture) -> None:
    canary = "cbt_canary"
    tokens = Tokens({digest_of(canary): Token("bird", ("*",), ALL)})
    caplog.set_level(logging.DEBUG)
    async with a_registrar(tokens) as registrar:
        answers = []
        for token in (canary, canary + "x"):
            for method, path, body in (*CALLS, ("POST", "/register", {}), ("GET", "/none", None)):
                answers.append(await as_(token, registrar, method, path, body))
        answers += [await as_(canary, registrar, "GET", p) for p in (*OPEN, "/services")]

    said = "".join(f"{a.body}{a.headers}" for a in answers) + caplog.text
    said += "".join(str(getattr(record, "fields", "")) for record in caplog.records)
    assert "canary" not in said
    assert digest_of(canary) not in said
