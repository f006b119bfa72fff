# ruff: noqa: E501 - paths are read whole, on one line
"""No request reaches a service other than the one that it names, whatever its path and host say.

Two services, each with an upstream that says which it is, and readers that take a path apart in
every way that servers are known to: whatever passes must stay below the root for all of them.
"""

import itertools
import posixpath
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import pytest

from tests.support.http import Upstream, World, gateway

DOTS = [
    b"..", b"%2e%2e", b".%2e", b"%2E.", b"%252e%252e", b"%25252e%25252e", b"..;", b"..;x=y", b"..%3bx",
    b"%2e%2e;x", b"..%00", b"..%09", b"..%20", b"%c0%ae%c0%ae", b"%u002e%u002e", b"..;%2f..",
]  # fmt: skip
SLASHES = [
    b"/", b"%2f", b"%2F", b"%252f", b"\\", b"%5c", b"%255c", b"//", b"/./", b"/;/", b"%c0%af", b"%u002f", b"/%2e/",
]  # fmt: skip
BEFORE = [b"", b"a/../", b"/", b"./"]

CLIMBING = [
    before + dots + slash + b"admin/x"
    for before, dots, slash in itertools.product(BEFORE, DOTS, SLASHES)
]

WITHIN = [
    b"", b"a", b"a/b", b"a/../b", b"a/b/../../c", b"a/%2e%2e/b", b"a%2f..%2fb", b"...", b"....//", b"a..b", b"..a", b"a..",
    b".hidden", b"a;b=c/d", b";", b"a//b", b"//a", b"a/./b", b"a%2fb", b"%2fa", b"a%252fb", b"a\\b", b"%5ca", b"~user",
    b"%7Euser", b"%zz", b"%", b"a%00b", b"a|b", b"{a}", b"[a]", b"a'b", b"a\"b", b"<a>", b"^", b"`", b"a@b", b"a:b", b"a,b",
    b"a+b", b"a%20b", b"%e2%98%95", b"a%2e", b"v2/admin/x", b"http://admin/x", b"admin", b"%2e", b".", b"x?y=/../../admin",
    b"x?/v2/admin/", b"?a;b", b"?%2e%2e/", b"?a=..%2f", b"a/;/b", b"a;x/..;y", b"-", b"_", b"=", b"&", b"*", b"!", b"(a)",
    b"a?b?c", b"%41", b"a/%2e/b",
]  # fmt: skip
"""What stays within the service, each of which keeps its bytes."""

ELSEWHERE = [
    b"/", b"/admin/x", b"//v2/admin/x", b"/./v2/admin/x", b"/v2", b"/v2/", b"/v2//admin/x", b"/v2/./admin/x", b"/V2/admin/x",
    b"/v2/../v2/admin/x", b"/v2/%61dmin/x", b"/v2/admin%2fx", b"/v2/admin%00/x", b"/v2/admin;x/x", b"/v2/admin./x",
    b"/v2\\admin\\x", b"\\v2\\admin", b"/v2/;/admin/x", b"/v2/payments%2f..%2fadmin/x", b"/v2/payments;/../admin/x",
    b"/v2/payments%3b/x", b"/v2/payments\\..\\admin\\x", b"/v2/..;/admin", b"/v2/.%2e/admin", b"/%76%32/admin/x",
    b"/x/../v2/admin/x", b"/v2/pay%6dents/x", b"/v2/*/x", b"/v2/admin,payments/x", b"/v2/admin:80/x", b"/v2/%2e/admin/x",
    b"/gateway/../v2/admin/x", b"/gateway/status/../../v2/admin/x", b"/v1/admin/x", b"/v2x/admin", b"?/v2/admin/x",
]  # fmt: skip
"""What names no service, or none of ours."""

HOSTS = [
    b"admin", b"admin:80", b"admin.svc.internal", b"_http._tcp.admin.svc.internal", b"payments@admin", b"localhost",
    b"127.0.0.1", b"[::1]", b"169.254.169.254", b"admin.", b"ADMIN", b"a.b.c.d.e",
]  # fmt: skip

POINTING = [
    b"X-Original-URL: /v2/admin/x", b"X-Rewrite-URL: /v2/admin/x", b"X-Forwarded-Host: admin", b"X-Forwarded-Prefix: /v2/admin",
    b"X-Forwarded-Server: admin", b"X-Host: admin", b"Forwarded: host=admin", b"X-HTTP-Method-Override: PUT", b"Referer: /v2/admin/",
    b"X-Forwarded-Path: /v2/admin", b"Location: /v2/admin", b"X-Service: admin", b"Proxy-Host: admin", b"X-Original-Host: admin",
]  # fmt: skip


def test_there_are_enough_of_them() -> None:
    assert len(CLIMBING) + len(WITHIN) + len(ELSEWHERE) + len(HOSTS) + len(POINTING) >= 300


class Both:
    """Two services, and what each of them was asked for."""

    def __init__(self, world: World, payments: Upstream, admin: Upstream) -> None:
        self.world = world
        self.payments = payments
        self.admin = admin

    async def ask(
        self, target: bytes, host: bytes = b"g", *lines: bytes
    ) -> tuple[int, bytes, bytes]:
        """Status and body of the answer, and the target that reached `payments`, if any did."""
        before = len(self.payments.requests)
        head = b"\r\n".join([b"GET %b HTTP/1.1" % target, b"Host: %b" % host, *lines])
        answer = await self.world.ask(head + b"\r\n\r\n")
        reached = b""
        if len(self.payments.requests) > before:
            reached = self.payments.requests[-1].split(b" ")[1]
        return answer.status, answer.body, reached


async def both(world: World) -> Both:
    payments, admin = await Upstream("payments").start(), await Upstream("admin").start()
    world.dns.instances = {"payments": [payments.record], "admin": [admin.record]}
    return Both(world, payments, admin)


# --- how servers are known to read a path

Reader = Callable[[bytes], bytes]


def _times(number: int) -> Reader:
    def decode(path: bytes) -> bytes:
        for _ in range(number):
            path = unquote_to_bytes(path.replace(b"%u00", b"%"))
            path = path.replace(b"\xc0\xae", b".").replace(b"\xc0\xaf", b"/")
        return path

    return decode


def _without_parameters(path: bytes) -> bytes:
    return b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))


def _cut_at_nul(path: bytes) -> bytes:
    return b"/".join(s.partition(b"\x00")[0].strip(b" \t") for s in path.split(b"/"))


READERS: list[tuple[Reader, ...]] = [
    (_times(number), *rest)
    for number in range(5)
    for rest in itertools.permutations(
        [_without_parameters, _cut_at_nul, lambda path: path.replace(b"\\", b"/")]
    )
]


def leaves_its_root(path: bytes) -> bool:
    """Whether any reader finds *path* (from its `/` on) above where it began."""
    for steps in READERS:
        read = path
        for step in steps:
            read = step(read)
        # A directory of ours before it, so that climbing past the root is seen.
        if not posixpath.normpath(b"/root/service/" + read.lstrip(b"/")).startswith(
            b"/root/service"
        ):
            return True
    return False


def test_the_readers_see_what_climbs() -> None:
    for path in (b"/../x", b"/..%2fx", b"/%252e%252e/x", b"/..;/x", b"/..\\x", b"/a/../../x"):
        assert leaves_its_root(path)
    assert not leaves_its_root(b"/a/../x")


async def test_no_path_that_climbs_for_any_reader_reaches_an_upstream() -> None:
    async with _world() as pair:
        refused = 0
        for rest in CLIMBING:
            status, body, reached = await pair.ask(b"/v2/payments/" + rest)

            assert body != b"admin", rest
            assert not leaves_its_root(reached.partition(b"?")[0]), (rest, reached)
            refused += status == 400
            assert status == 400 or reached == b"/" + rest
        assert refused > len(CLIMBING) * 0.9
        assert pair.admin.requests == []


async def test_a_path_that_stays_within_its_service_keeps_its_bytes() -> None:
    async with _world() as pair:
        for rest in WITHIN:
            status, body, reached = await pair.ask(b"/v2/payments/" + rest)

            assert (status, body, reached) == (200, b"payments", b"/" + rest), rest
        assert pair.admin.requests == []


async def test_a_path_that_names_no_service_reaches_none() -> None:
    async with _world() as pair:
        for target in ELSEWHERE:
            status, _, reached = await pair.ask(target)

            assert status in (400, 404), target
            assert reached == b""
        assert pair.admin.requests == []


@pytest.mark.parametrize("form", [b"/v2/payments/x", b"http://%b/v2/payments/x"])
async def test_the_host_has_no_say(form: bytes) -> None:
    async with _world() as pair:
        for host in HOSTS:
            status, body, reached = await pair.ask(form % host if b"%b" in form else form, host)

            if b"@" in host:
                assert status == 400
            else:
                assert (status, body, reached) == (200, b"payments", b"/x"), host
        assert pair.admin.requests == []


async def test_no_field_points_elsewhere() -> None:
    async with _world() as pair:
        for line in POINTING:
            status, body, _ = await pair.ask(b"/v2/payments/x", b"g", line)

            assert (status, body) == (200, b"payments"), line
        assert pair.admin.requests == []


async def test_the_service_that_is_named_is_reached_in_all_its_spellings() -> None:
    async with _world() as pair:
        for name in (b"admin", b"ADMIN", b"Admin", b"ADMIN_URL"):
            assert (await pair.ask(b"/v2/%b/x" % name))[1] == b"admin"
        assert pair.payments.requests == []


class _world:
    """`async with` a gateway to both services."""

    async def __aenter__(self) -> Both:
        self._gateway = gateway()
        self._pair = await both(await self._gateway.__aenter__())
        return self._pair

    async def __aexit__(self, *exc: object) -> None:
        await self._gateway.__aexit__(None, None, None)
        await self._pair.payments.stop()
        await self._pair.admin.stop()
