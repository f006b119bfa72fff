"""What is read from files: certificates and tokens, at the start and again on SIGHUP."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from registrar.config import Config
from registrar.files import problems, read_tokens, tls_context
from registrar.mint import entry_for
from registrar.tokens import TokensError, parse_tokens
from registry.errors import CallboardError
from registry.runtime.config import Common, HostPort
from tests.support.certificates import Authority, Pair
from tests.support.registrar import Registrar, a_registrar
from tests.support.waiting import until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.sign("registrar")


def settings(pair: Pair, client_ca: Path | None = None) -> dict[str, Any]:
    files = {"tls_cert": str(pair.certificate), "tls_key": str(pair.key)}
    return files | ({"tls_client_ca": str(client_ca)} if client_ca else {})


def trusting(authority: Authority, own: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


class Talk:
    """One connection over TLS; `name` is whom the registrar's certificate names."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        subject = writer.get_extra_info("peercert")["subject"]
        self.name = {key: value for part in subject for key, value in part}["commonName"]

    async def status(self) -> int:
        """Of one request; OSError when there is no answer."""
        self.writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            await self.reader.readexactly(
                int(head.lower().split(b"content-length: ")[1].split()[0])
            )
        return int(head.split()[1])


@contextlib.asynccontextmanager
async def talking(registrar: Registrar, context: ssl.SSLContext) -> AsyncIterator[Talk]:
    host, port = registrar.service.address
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        yield Talk(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def asked(registrar: Registrar, context: ssl.SSLContext) -> tuple[int, str]:
    """Status of one request on a connection of its own, and whom the certificate names."""
    async with talking(registrar, context) as talk:
        return await talk.status(), talk.name


REFUSED = (OSError, asyncio.IncompleteReadError)
"""With TLS 1.3 a client learns after its handshake that its certificate was not wanted."""


# --- TLS --------------------------------------------------------------------------------------


async def test_it_speaks_tls_and_nothing_else(authority: Authority, pair: Pair) -> None:
    async with a_registrar(**settings(pair)) as registrar:
        assert await asked(registrar, trusting(authority)) == (200, "registrar")
        with pytest.raises(aiohttp.ClientError):
            await registrar.call("GET", "/healthz")


async def test_clients_show_a_certificate_where_that_is_asked(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger").sign("eve")
    async with a_registrar(**settings(pair, authority.certificate)) as registrar:
        with pytest.raises(REFUSED):
            await asked(registrar, trusting(authority))
        with pytest.raises(REFUSED):
            await asked(registrar, trusting(authority, stranger))

        own = authority.sign("sidecar")
        assert await asked(registrar, trusting(authority, own)) == (200, "registrar")


async def test_a_new_certificate_is_taken_without_losing_a_connection(
    authority: Authority, tmp_path: Path
) -> None:
    current = Pair(tmp_path / "current.pem", tmp_path / "current.key")

    def put(pair: Pair) -> None:
        shutil.copy(pair.certificate, current.certificate)
        shutil.copy(pair.key, current.key)

    put(authority.sign("old"))
    async with (
        a_registrar(**settings(current)) as registrar,
        talking(registrar, trusting(authority)) as before,
    ):
        assert (await before.status(), before.name) == (200, "old")
        put(authority.sign("new"))
        assert await asked(registrar, trusting(authority)) == (200, "old")
        registrar.service.reload()

        assert await asked(registrar, trusting(authority)) == (200, "new")
        assert await before.status() == 200, "the connection from before goes on"


async def test_another_authority_for_clients_is_believed_and_the_old_one_no_more(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    other = Authority(tmp_path, "other")
    before, after = trusting(authority, authority.sign("a")), trusting(authority, other.sign("b"))
    shutil.copy(authority.certificate, trusted)
    async with a_registrar(**settings(pair, trusted)) as registrar:
        assert (await asked(registrar, before))[0] == 200
        with pytest.raises(REFUSED):
            await asked(registrar, after)
        shutil.copy(other.certificate, trusted)
        registrar.service.reload()

        assert (await asked(registrar, after))[0] == 200
        with pytest.raises(REFUSED):
            await asked(registrar, before)


async def test_a_certificate_that_cannot_be_read_leaves_the_old_one(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = authority.sign("kept")
    own = Pair(tmp_path / "own.pem", tmp_path / "own.key")
    shutil.copy(made.certificate, own.certificate)
    shutil.copy(made.key, own.key)
    async with a_registrar(**settings(own)) as registrar:
        own.certificate.write_text("nothing")
        with caplog.at_level(logging.ERROR, "registrar"):
            registrar.service.reload()

        assert "not read again" in caplog.text
        assert await asked(registrar, trusting(authority)) == (200, "kept")


def test_a_key_that_is_encrypted_is_refused_and_nobody_is_asked(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    subprocess.run(
        [*("openssl", "ec", "-in", str(pair.key), "-out", str(locked)),
         *("-aes128", "-passout", "pass:x")],
        check=True,
        capture_output=True,
    )  # fmt: skip

    with pytest.raises(OSError, match=r"(?i)decrypt|bad|password|PEM|SSL"):
        tls_context(Config(tls_cert=str(pair.certificate), tls_key=str(locked)))


def test_old_versions_of_tls_are_not_spoken(pair: Pair) -> None:
    context = tls_context(Config(**settings(pair)))

    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


# --- the files themselves ---------------------------------------------------------------------


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.toml"
    file.write_text(entry_for("cbt_first", "first", ["*"]))
    return file


def test_files_are_checked_before_anything_is_bound(tokens_file: Path, tmp_path: Path) -> None:
    def found(**more: Any) -> list[str]:
        return list(problems(Config(**more)))

    assert found(tokens=str(tokens_file)) == []
    (missing,) = found(tokens=str(tmp_path / "none"))
    assert "none" in missing
    tokens_file.write_text("[[token]]\nname = 'a b'\n")
    assert len(found(tokens=str(tokens_file))) == 3
    (certificate,) = found(tls_cert="/none", tls_key="/none")
    assert "tls_cert" in certificate
    assert len(found(tls_cert="/none", read_tokens=True)) == 2


def test_a_file_that_is_no_text_is_no_file_of_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(TokensError):
        read_tokens(str(file))


# --- SIGHUP -----------------------------------------------------------------------------------

BEAT = {"service_name": "web", "instance_id": "one"}


async def may_beat(registrar: Registrar, token: str) -> bool:
    """404: it may, and there is nothing to renew."""
    headers = {"X-Registry-Token": token}
    answer = await registrar.call("POST", "/heartbeat", BEAT, headers=headers)
    assert answer.status in (401, 404), answer
    return answer.status == 404


async def test_tokens_are_read_again_and_a_wrong_file_changes_nothing(
    tokens_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = parse_tokens(tokens_file.read_text())
    async with a_registrar(tokens, tokens_file) as registrar:
        assert await may_beat(registrar, "cbt_first")
        tokens_file.write_text(entry_for("cbt_second", "second", ["*"]))
        assert not await may_beat(registrar, "cbt_second"), "not before it is told to"
        registrar.service.reload()

        assert await may_beat(registrar, "cbt_second")
        assert not await may_beat(registrar, "cbt_first")
        tokens_file.write_text("[[token]]\nname = 'x'\n")
        with caplog.at_level(logging.ERROR, "registrar"):
            registrar.service.reload()
        assert await may_beat(registrar, "cbt_second")
    (record,) = (r for r in caplog.records if r.levelname == "ERROR")
    assert "sha256: it is required" in str(record.fields["error"])  # type: ignore[attr-defined]


async def test_the_level_of_the_log_is_read_again() -> None:
    before = logging.getLogger().level
    async with a_registrar() as registrar:
        config = Config(listen=HostPort("127.0.0.1", 0))
        registrar.service._read_again = lambda: (config, Common(log_level="error"))
        registrar.service.reload()
        after = logging.getLogger().level

        def broken() -> tuple[Config, Common]:
            raise CallboardError("unknown setting")

        registrar.service._read_again = broken
        registrar.service.reload()
    logging.getLogger().setLevel(before)

    assert after == logging.ERROR


@contextlib.asynccontextmanager
async def a_process(directory: Path, *options: str) -> AsyncIterator[tuple[Any, str]]:
    """A registrar as it is started, without a store; its process and its URL."""
    address = directory / "address"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "registrar", "--listen", "127.0.0.1:0"),
        *("--redis", f"unix://{directory}/none", "--address-file", str(address), *options),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(address.exists, seconds=20)
        yield process, json.loads(address.read_text())["registrar"]
    finally:
        process.terminate()
        await process.wait()


async def test_a_signal_has_the_process_read_again(tokens_file: Path, tmp_path: Path) -> None:
    """And --check-config reads as much: a wrong file is found before a restart."""
    async with (
        a_process(tmp_path, "--tokens", str(tokens_file)) as (process, url),
        aiohttp.ClientSession() as session,
    ):

        async def status(token: str) -> int:
            headers = {"X-Registry-Token": token}
            async with session.post(url + "/heartbeat", json=BEAT, headers=headers) as answer:
                return answer.status

        async def is_known(token: str) -> bool:
            return await status(token) == 503  # without its store

        assert [await status("cbt_first"), await status("cbt_second")] == [503, 401]
        tokens_file.write_text(entry_for("cbt_second", "second", ["*"]))
        process.send_signal(signal.SIGHUP)
        await until(lambda: is_known("cbt_second"))
        assert await status("cbt_first") == 401

    tokens_file.write_text("[[token]]\n")
    check = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "registrar", "--check-config", "--tokens", str(tokens_file)),
        stderr=asyncio.subprocess.PIPE,
        env=dict(os.environ),
    )
    _, said = await check.communicate()
    assert check.returncode == 2
    assert said.count(b"it is required") == 3
