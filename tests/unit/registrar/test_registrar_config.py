"""What the registrar refuses to start with."""

import pytest

from registrar.config import Config, problems
from registry.runtime.config import ConfigError, HostPort, load


def loaded(*argv: str) -> Config:
    config, _ = load(Config, "registrar", argv, {}, admin=None, problems=problems)
    return config


def test_the_defaults() -> None:
    assert loaded() == Config()
    assert Config().zone == ("svc.internal.",)


@pytest.mark.parametrize("listen", ["0.0.0.0:8888", "[::]:8888", "10.0.0.7:8888", "web:8888"])
def test_beyond_loopback_only_with_tokens_or_insecure(listen: str) -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        loaded("--listen", listen)

    assert loaded("--listen", listen, "--insecure").insecure
    assert loaded("--listen", listen, "--tokens", "/etc/tokens.toml").tokens


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--read-tokens",), "read_tokens"),
        (("--tls-cert", "x"), "tls_cert"),
        (("--tls-key", "x"), "tls_cert"),
        (("--tls-client-ca", "x"), "tls_client_ca"),
        (("--max-connections", "0"), "max-connections"),
    ],
)
def test_what_goes_together_is_given_together(argv: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        loaded(*argv)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:8888", "localhost:8888"])
def test_loopback_needs_nothing(listen: str) -> None:
    assert loaded("--listen", listen).listen == HostPort.parse(listen)


def test_everything_can_be_set() -> None:
    config = loaded(
        *("--listen", "127.0.0.1:1", "--redis", "unix:///run/store", "--zone", "a.test,b.test"),
        *("--lease-ttl", "6", "--allow-endpoints", "127.0.0.0/8", "--trusted-proxies", "10.0.0.1"),
        *("--address-file", "/tmp/address"),
    )

    assert config.zone == ("a.test.", "b.test.")
    assert (config.lease_ttl, config.address_file) == (6, "/tmp/address")
    assert [str(n) for n in config.trusted_proxies] == ["10.0.0.1/32"]


@pytest.mark.parametrize(
    "argv", [("--lease-ttl", "4"), ("--allow-endpoints", "x"), ("--redis", "localhost")]
)
def test_what_is_wrong_is_named(argv: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=argv[0]):
        loaded(*argv)


def test_the_password_of_the_store_is_not_shown() -> None:
    assert "secret" not in repr(loaded("--redis", "redis://:secret@127.0.0.1/0"))


def test_health_is_asked_where_it_listens() -> None:
    assert loaded("--listen", "127.0.0.1:9").health_address == HostPort("127.0.0.1", 9)
    over_tls = loaded("--tls-cert", "c", "--tls-key", "k")
    assert over_tls.health_address is None, "it may want to see a certificate"
