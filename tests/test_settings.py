"""Contract section 2: every default, every problem at once, no secret shown."""

from __future__ import annotations

import socket
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pushserver.errors import SettingsError
from pushserver.limits import Limits
from pushserver.model import DataType, Market, Proxy, Secret
from pushserver.settings import Address, Settings

FERNET_KEY = Fernet.generate_key().decode()
REQUIRED = {"JWT_SECRETS": "canary-" + "k" * 32, "CREDENTIALS_KEYS": FERNET_KEY}


def settings_from(**environ: str) -> Settings:
    return Settings.from_env({**REQUIRED, **environ})


def problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        settings_from(**environ)
    return error.value.problems


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("redis_url", Secret("redis://127.0.0.1:6379/0")),
        ("database_url", Secret("sqlite:///pushserver.db")),
        ("jwt_algorithm", "HS256"),
        ("jwt_jwks_url", None),
        ("jwt_public_key_file", None),
        ("jwt_issuer", None),
        ("jwt_audience", None),
        ("jwt_ttl_s", 3600),
        ("bybit_rest_url", "https://api.bybit.com"),
        ("bybit_stream_url", "wss://stream.bybit.com/v5/private"),
        ("bybit_ticker_url", "wss://stream.bybit.com/v5/public/linear"),
        ("bybit_markets", (Market("linear", "USDT"),)),
        (
            "push_intervals",
            {DataType.BALANCE: 10, DataType.POSITIONS: 5, DataType.PNL: 5, DataType.ORDERS: 15},
        ),
        ("bybit_ip_requests_per_5s", 480),
        ("bybit_stream_connects_per_5min", 400),
        ("max_streams_per_worker", 1_000),
        ("reconcile_s", 60),
        ("egress_id", socket.gethostname()),
        ("worker_concurrency", 100),
        ("web_concurrency", 2),
        ("drain_s", 10),
        ("bind", Address("0.0.0.0", 5000)),
        ("web_metrics_bind", Address("127.0.0.1", 9101)),
        ("worker_metrics_bind", Address("127.0.0.1", 9102)),
        ("cors_origins", None),
        ("trusted_proxies", ()),
        ("log_format", "text"),
        ("log_level", "info"),
        ("console", True),
    ],
)
def test_the_default_of_each_setting_is_the_contracts(name: str, default: object) -> None:
    assert getattr(settings_from(), name) == default
    assert getattr(settings_from(**{name.upper(): "  "}), name) == default or name.endswith(
        ("stream_url", "ticker_url")
    )


def test_every_limit_is_a_setting_of_its_name() -> None:
    assert settings_from().limits == Limits()
    limits = settings_from(**{field.name.upper(): str(field.metadata["high"]) for field in fields(Limits)}).limits
    assert [getattr(limits, field.name) for field in fields(Limits)] == [
        field.metadata["high"] for field in fields(Limits)
    ]
    assert dict(settings_from(STUCK_S="7").printable())["STUCK_S"] == "7"


def test_E01_a_tenth_of_a_workers_connections_is_kept_for_health_checks() -> None:
    assert Limits().worker_connections == 10_000
    assert settings_from(MAX_CONNECTIONS_PER_PROCESS="10").limits.worker_connections == 12


def test_B02_G01_what_is_allowed_and_unwise_is_a_warning() -> None:
    assert settings_from().warnings() == []
    assert settings_from(CORS_ORIGINS="https://app.example").warnings() == []
    [origins, *_] = settings_from(CORS_ORIGINS="https://app.example,*").warnings()
    assert "CORS_ORIGINS" in origins
    assert len(settings_from(REDIS_URL="redis://valkey:6379/0").warnings()) == 2


def test_G01_the_production_profile_refuses_what_is_otherwise_warned_of():
    assert settings_from(STRICT="1").strict
    with pytest.raises(SettingsError) as refused:
        settings_from(STRICT="1", REDIS_URL="redis://valkey:6379/0", CORS_ORIGINS="*")
    assert len(refused.value.problems) == 3
    assert all("STRICT=1" in problem for problem in refused.value.problems)


def test_an_empty_stream_address_switches_the_stream_off() -> None:
    settings = settings_from(BYBIT_STREAM_URL="", BYBIT_TICKER_URL=" ")
    assert (settings.bybit_stream_url, settings.bybit_ticker_url) == ("", "")


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        JWT_SECRETS="short", CREDENTIALS_KEYS="x", REDIS_URL="http://x", BIND="nowhere", LOG_LEVEL="loud", JWT_TTL_S="0"
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "REDIS_URL", "JWT_SECRETS", "JWT_TTL_S", "CREDENTIALS_KEYS", "BIND", "LOG_LEVEL",
    ]  # fmt: skip
    assert all("\n" not in problem for problem in found)


def test_what_is_required_and_missing_is_named() -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_env({})
    assert error.value.problems == ["JWT_SECRETS is required and not set", "CREDENTIALS_KEYS is required and not set"]


@pytest.mark.parametrize(
    "secrets", ["k" * 31, "k" * 32 + ",", "k" * 40 + ",short", ",", "change-me-" + "k" * 32, "your-secret-" + "k" * 32]
)
def test_A19_a_short_or_example_signing_secret_stops_the_process(secrets: str) -> None:
    found = problems(JWT_SECRETS=secrets)
    assert len(found) == 1 and found[0].startswith("JWT_SECRETS: ")


def test_A19_the_length_of_a_secret_is_counted_in_bytes() -> None:
    assert settings_from(JWT_SECRETS="é" * 16).jwt_secrets == (Secret("é" * 16),)


def test_several_secrets_and_keys_are_kept_in_order() -> None:
    other = Fernet.generate_key().decode()
    settings = settings_from(JWT_SECRETS=f"{'a' * 32}, {'b' * 32}", CREDENTIALS_KEYS=f"{FERNET_KEY},{other}")
    assert settings.jwt_secrets == (Secret("a" * 32), Secret("b" * 32))
    assert settings.credentials_keys == (Secret(FERNET_KEY), Secret(other))


def test_F01_no_secret_is_shown_anywhere() -> None:
    settings = settings_from(
        REDIS_URL="redis://user:canary@h:1/0",
        DATABASE_URL="postgresql://user:canary/p@canary@h/db?password=canary",
    )
    shown = repr(settings) + repr(settings.printable())
    assert "canary" not in shown and FERNET_KEY not in shown
    printable = dict(settings.printable())
    assert printable["JWT_SECRETS"] == "***"
    assert printable["REDIS_URL"] == "redis://***@h:1/0"
    assert "h/db" in printable["DATABASE_URL"]


def test_F01_a_problem_never_quotes_a_secret() -> None:
    found = problems(
        JWT_SECRETS="canary", CREDENTIALS_KEYS="canary", REDIS_URL="canary://u:canary@h", DATABASE_URL="canary"
    )
    assert "canary" not in "".join(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BYBIT_REST_URL", "http://api.bybit.com"),
        ("BYBIT_REST_URL", "ftp://api.bybit.com"),
        ("BYBIT_REST_URL", "https://user:pw@api.bybit.com"),
        ("BYBIT_REST_URL", "https://"),
        ("BYBIT_REST_URL", "http://127.evil.example"),
        ("BYBIT_REST_URL", "https://api.bybit.com:port"),
        ("BYBIT_STREAM_URL", "ws://stream.bybit.com"),
        ("BYBIT_STREAM_URL", "https://stream.bybit.com"),
        ("JWT_JWKS_URL", "http://issuer.example/keys"),
    ],
)
def test_H09_an_address_that_could_be_read_or_bent_on_the_way_is_refused(name: str, value: str) -> None:
    assert len(problems(**{name: value})) == 1


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:9", "[::1]:9", "127.0.0.2"])
def test_H09_plain_addresses_are_for_this_machine_only(host: str) -> None:
    settings = settings_from(BYBIT_REST_URL=f"http://{host}/", BYBIT_STREAM_URL=f"ws://{host}/v5/private")
    assert settings.bybit_rest_url == f"http://{host}"


@pytest.mark.parametrize(
    "raw", ["linear", "spot:USDT", "futures", "linear:USDT,linear:USDT", "linear:usdt", "linear:USDT,"]
)
def test_markets_that_do_not_exist_are_refused(raw: str) -> None:
    assert problems(BYBIT_MARKETS=raw)[0].startswith("BYBIT_MARKETS: ")


def test_several_markets_may_be_named() -> None:
    assert settings_from(BYBIT_MARKETS="linear:USDT,linear:USDC,inverse,spot").bybit_markets == (
        Market("linear", "USDT"), Market("linear", "USDC"), Market("inverse"), Market("spot"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "raw", ["balance", "balance=0.5", "balance=x", "cash=5", "balance=nan", "balance=inf", "balance=5,"]
)
def test_intervals_that_make_no_sense_are_refused(raw: str) -> None:
    assert problems(PUSH_INTERVALS=raw)[0].startswith("PUSH_INTERVALS: ")


def test_egress_addresses_are_proxies_and_the_direct_way() -> None:
    settings = settings_from(EGRESS_PROXIES="direct, http://10.0.0.1:3128,http://me:p%40ss@proxy.local:8080")
    assert settings.egress_proxies == (
        None,
        Proxy("10.0.0.1", 3128),
        Proxy("proxy.local", 8080, Secret("me:p@ss")),
    )
    shown = dict(settings.printable())["EGRESS_PROXIES"]
    assert shown == "direct,10.0.0.1:3128,***@proxy.local:8080"
    assert settings_from().egress_proxies == ()


@pytest.mark.parametrize(
    "raw",
    ["10.0.0.1:3128", "https://10.0.0.1:1", "http://me:canary@host", "http://h:1,http://me:canary@h:1", "direct,,"],
)
def test_what_is_no_egress_address_is_refused_without_quoting_it(raw: str) -> None:
    [problem] = problems(EGRESS_PROXIES=raw)
    assert problem.startswith("EGRESS_PROXIES") and "canary" not in problem


def test_some_intervals_may_be_changed() -> None:
    intervals = settings_from(PUSH_INTERVALS="balance=1, orders=2.5").push_intervals
    assert (intervals[DataType.BALANCE], intervals[DataType.ORDERS], intervals[DataType.PNL]) == (1, 2.5, 5)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", None),
        (" , ,", None),
        ("https://a.example", ("https://a.example",)),
        ("https://a.example/, http://b:8080", ("https://a.example", "http://b:8080")),
        ("*", ("*",)),
    ],
)
def test_B02_origins_are_never_an_empty_list(raw: str, expected: object) -> None:
    assert settings_from(CORS_ORIGINS=raw).cors_origins == expected


@pytest.mark.parametrize("raw", ["a.example", "https://a.example/path", "null", "https://", "https://a b"])
def test_B02_what_is_no_origin_is_refused(raw: str) -> None:
    assert problems(CORS_ORIGINS=raw)[0].startswith("CORS_ORIGINS: ")


def test_B03_trusted_proxies_are_addresses_networks_and_the_unix_socket() -> None:
    settings = settings_from(TRUSTED_PROXIES="192.0.2.1, 10.0.0.0/8,2001:db8::/32,unix")
    assert settings.trusted_proxies == (
        ip_network("192.0.2.1/32"), ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), "unix",
    )  # fmt: skip
    assert dict(settings.printable())["TRUSTED_PROXIES"] == "192.0.2.1/32,10.0.0.0/8,2001:db8::/32,unix"


@pytest.mark.parametrize("raw", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1,", "0.0.0.0/0", "::/0", "*"])
def test_B03_a_proxy_that_is_no_address_or_everybody_is_refused(raw: str) -> None:
    assert problems(TRUSTED_PROXIES=raw)[0].startswith("TRUSTED_PROXIES: ")


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://h:1/0",
        "unix:///tmp/x.sock",
        "redis+sentinel://h1:1,h2:2/0/name",
        "redis+sentinel://u:p,w@h1:1,h2:2/0/name",
        "redis+cluster://h1:1,h2:2",
        "redis+cluster://u:p@[::1]:1/0",
        "redis://[::1]:6379/0",
        "redis://user:pass:word@h:65535",
    ],
)
def test_every_kind_of_redis_is_accepted(url: str) -> None:
    assert settings_from(REDIS_URL=url).redis_url == Secret(url)


@pytest.mark.parametrize(
    "url",
    [
        "h:6379",
        "redis://",
        "redis+sentinel://h:1/0",
        "redis+sentinel://h:1",
        "redis+cluster://h",
        "redis+cluster://h:1,",
        "redis+cluster://h:1/1",
        "kafka://h",
    ],
)
def test_what_names_no_redis_is_refused(url: str) -> None:
    assert problems(REDIS_URL=url)[0].startswith("REDIS_URL: ")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (":0", ("0.0.0.0", 0)),
        ("h:1", ("h", 1)),
        ("[::1]:5", ("::1", 5)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
    ],
)
def test_addresses_to_listen_on(raw: str, expected: tuple[str, int]) -> None:
    assert settings_from(BIND=raw).bind == Address(*expected)


@pytest.mark.parametrize("raw", ["5000", "h:", "h:65536", "h:-1", "h:x"])
def test_what_is_no_address_to_listen_on_is_refused(raw: str) -> None:
    assert problems(BIND=raw)[0].startswith("BIND: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEB_CONCURRENCY", "0"),
        ("WORKER_CONCURRENCY", "1e3"),
        ("BYBIT_IP_REQUESTS_PER_5S", "601"),
        ("JWT_TTL_S", "86401"),
        ("JWT_TTL_S", "٣"),
        ("MAX_CONNECTIONS_PER_USER", "0"),
        ("MAX_MESSAGE_BYTES", "64k"),
        ("STUCK_S", "601"),
        ("EGRESS_ID", "a b"),
        ("CONSOLE", "yes"),
        ("STRICT", "yes"),
        ("LOG_FORMAT", "xml"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_ALGORITHM", "RS256"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: str) -> None:
    assert len(problems(**{name: value})) == 1


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:notaport/0",
        "rediss://h:0",
        "redis://h:65536/0",
        "redis://user:canary@h:/0",
        "redis://user:canary/x@h:1/0",
        "redis://user:canary\u2100@h:1",
        "redis+sentinel://h1:1,h2:notaport/0/name",
        "redis+sentinel://h1:1,h2/0/name",
        "redis+sentinel://h1:1,:2/0/name",
        "redis+sentinel://h1:1,/0/name",
    ],
)
def test_a_redis_whose_port_is_none_is_refused_without_quoting_it(url: str) -> None:
    [problem] = problems(REDIS_URL=url)
    assert problem.startswith("REDIS_URL: ") and "canary" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:////a/b.db",
        "postgresql://u:p@h/x",
        "postgres://u:p@h/x",
        "postgresql+psycopg://h/x",
        "mysql+pymysql://h/x",
        "mariadb://h/x",
        "oracle+oracledb://h/x",
        "mssql+pyodbc://h/x",
    ],
)
def test_every_kind_of_database_is_accepted(url: str) -> None:
    assert settings_from(DATABASE_URL=url).database_url == Secret(url)


@pytest.mark.parametrize("url", ["nosuch://canary", "postgresqlx://canary", "SQLite:canary", "://canary", "sqlite+://"])
def test_an_unknown_kind_of_database_is_refused(url: str) -> None:
    [problem] = problems(DATABASE_URL=url)
    assert problem.startswith("DATABASE_URL: ") and "canary" not in problem


def pem(key: Any, *, private: bool = False) -> bytes:
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    if private:
        written: bytes = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    else:
        written = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    return written


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA_KEY), ("ES256", P256_KEY)])
def test_a_public_key_of_the_algorithms_family_is_accepted(tmp_path: Path, algorithm: str, key: Any) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(key))
    settings = settings_from(JWT_ALGORITHM=algorithm, JWT_PUBLIC_KEY_FILE=str(path))
    assert (settings.jwt_algorithm, settings.jwt_public_key_file) == (algorithm, path)


@pytest.mark.parametrize(
    ("algorithm", "content"),
    [
        ("RS256", b""),
        ("RS256", b"\xff\x00 no key"),
        ("RS256", pem(P256_KEY)),
        ("RS256", pem(RSA_KEY, private=True)),
        ("ES256", pem(RSA_KEY)),
        ("ES256", pem(ec.generate_private_key(ec.SECP384R1()))),
        ("ES256", pem(ed25519.Ed25519PrivateKey.generate())),
    ],
)
def test_a_file_without_a_public_key_of_the_algorithms_family_is_refused(
    tmp_path: Path, algorithm: str, content: bytes
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    assert problems(JWT_ALGORITHM=algorithm, JWT_PUBLIC_KEY_FILE=str(path)) == [
        f"JWT_PUBLIC_KEY_FILE: {path} holds no public key for {algorithm}"
    ]


def test_a_public_key_file_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "no.pem"
    for algorithm in ("RS256", "HS256"):
        found = problems(JWT_ALGORITHM=algorithm, JWT_PUBLIC_KEY_FILE=str(path))
        assert found == [f"JWT_PUBLIC_KEY_FILE: {path} is not a file"]


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {**REQUIRED, "EGRESS_ID": "here"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_env().egress_id == "here"
