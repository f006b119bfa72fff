"""https registrars: by whom they are trusted, and what is shown to them."""

import signal
import ssl
import subprocess
from pathlib import Path

import pytest

from sidecar.answers import RegistrarUnavailable
from sidecar.client import RegistrarClient
from sidecar.tls import BadFiles, context_of
from tests.support.certificates import Authority
from tests.support.fake_registrar import FakeRegistrar, FakeService
from tests.support.sidecar import a_sidecar
from tests.support.waiting import until

DOCUMENT = {"service_name": "web", "instance_id": "web-1"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def server_side(authority: Authority, *, asks: bool = False) -> ssl.SSLContext:
    own = authority.sign("registrar")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate)
    context.load_cert_chain(own.certificate, own.key)
    context.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE
    return context


async def registers(registrar: FakeRegistrar, tls: ssl.SSLContext | None) -> bool:
    client = RegistrarClient([registrar.url], timeout=5.0, tls=tls)
    try:
        return (await client.register(DOCUMENT)).created
    except RegistrarUnavailable:
        return False


async def test_a_registrar_is_trusted_by_the_certificates_given_and_no_others(
    authority: Authority,
) -> None:
    async with FakeRegistrar(tls=server_side(authority)) as registrar:
        assert not await registers(registrar, None), "the system does not know it"
        assert registrar.entries == {}

        assert await registers(registrar, context_of(str(authority.certificate), "", ""))


async def test_a_certificate_is_shown_to_a_registrar_that_asks_for_one(
    authority: Authority,
) -> None:
    own = authority.sign("sidecar")
    async with FakeRegistrar(tls=server_side(authority, asks=True)) as registrar:
        assert not await registers(registrar, context_of(str(authority.certificate), "", ""))

        shown = context_of(str(authority.certificate), str(own.certificate), str(own.key))
        assert await registers(registrar, shown)


async def test_the_process_speaks_tls_and_reads_its_certificates_again(
    authority: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    other = tmp_path / "other"
    other.mkdir()
    trusted.write_bytes(Authority(other).certificate.read_bytes())
    async with FakeRegistrar(tls=server_side(authority)) as registrar, FakeService() as web:
        options = ("--name", "web", "--host", "127.0.0.1", "--port", str(web.port))
        tls = ("--registry-url", registrar.url, "--registry-ca", str(trusted))
        async with a_sidecar(*options, *tls, "--no-drain") as sidecar:
            await until(lambda: "registrar away" in sidecar.log, 20)
            assert registrar.entries == {}
            trusted.write_bytes(authority.certificate.read_bytes())
            sidecar.signal(signal.SIGHUP)

            await until(lambda: registrar.entries, 20)


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    """An encrypted key must not end in a question to a terminal that nobody looks at."""
    own, other = authority.sign("web"), authority.sign("other")
    certificate, secret = str(own.certificate), tmp_path / "secret.key"
    subprocess.run(
        ["openssl", "ec", "-in", own.key, "-aes256", "-passout", "pass:1234", "-out", secret],
        check=True,
        capture_output=True,
    )
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")

    for ca, shown, key, expected in [
        ("/no/such.pem", "", "", "registry_ca: /no/such.pem: No such file"),
        (str(bad), "", "", f"registry_ca: {bad}"),
        ("", "/no/such.pem", "", "registry_cert: /no/such.pem: No such file"),
        ("", certificate, str(other.key), "registry_cert"),
        ("", certificate, str(secret), "the key is encrypted"),
    ]:
        with pytest.raises(BadFiles, match=expected):
            context_of(ca, shown, key)
