"""What can happen between our socket and theirs, against a real local server."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import ssl
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pushserver.clock import ManualClock
from pushserver.errors import AnswerMalformed, ExchangeError, ExchangeUnavailable, KeyRefused
from pushserver.exchange.bybit import BybitExchange
from pushserver.exchange.transport import MAX_BODY
from pushserver.model import Credentials, Secret
from pushserver.observers import RecordingObserver, RequestAnswered
from tests.exchange.stub import NOW_MS, Step, Stub, always, envelope, http

GOOD = http(envelope())
MEGABYTE = b" " * 1_000_000


def failing(exchange: BybitExchange, deadline_s: float) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        exchange.server_time_ms(deadline_s)
    return caught.value


def test_one_connection_serves_one_request_after_the_other(
    stub: Stub, exchange: BybitExchange, deadline_s: float
) -> None:
    assert [exchange.server_time_ms(deadline_s) for _ in range(5)] == [NOW_MS] * 5
    assert (len(stub.requests), stub.connections) == (5, 1)


def test_a_closed_idle_connection_is_replaced_without_a_failure(
    stub: Stub, exchange: BybitExchange, deadline_s: float
) -> None:
    stub.handler = always(GOOD, None)
    for _ in range(3):
        exchange.server_time_ms(deadline_s)
        time.sleep(0.02)
    assert stub.connections == 3


def test_a_connection_closed_while_it_is_used_again_is_tried_once_more(
    stub: Stub, exchange: BybitExchange, deadline_s: float
) -> None:
    stub.handler = lambda request: [GOOD] if request.connection != 1 or len(stub.requests) == 1 else [None]
    assert exchange.server_time_ms(deadline_s) == exchange.server_time_ms(deadline_s) == NOW_MS
    assert (len(stub.requests), stub.connections) == (3, 2)


def test_H05_a_new_connection_closed_without_a_word_is_not_tried_again(
    stub: Stub, exchange: BybitExchange, deadline_s: float
) -> None:
    stub.handler = always(None)
    assert isinstance(failing(exchange, deadline_s), ExchangeUnavailable)
    assert len(stub.requests) == 1


def test_H05_a_refused_connection_is_an_unavailable_exchange(
    exchange_at: Callable[..., BybitExchange], deadline_s: float
) -> None:
    with Stub(always(GOOD)) as gone:
        url = gone.url
    # More often than there are slots: each failure gives its own back.
    exchange = exchange_at(url, concurrency=1)
    for _ in range(3):
        error = failing(exchange, deadline_s)
        assert (type(error), error.code) == (ExchangeUnavailable, "exchange_unavailable")


def test_a_connection_the_exchange_wants_closed_is_not_used_again(
    stub: Stub, exchange: BybitExchange, deadline_s: float
) -> None:
    stub.handler = always(http(envelope(), Connection="close"), 3600.0)
    for _ in range(3):
        exchange.server_time_ms(deadline_s)
    assert stub.connections == 3


def test_H05_an_unknown_name_is_an_unavailable_exchange(
    exchange_at: Callable[..., BybitExchange], deadline_s: float
) -> None:
    assert isinstance(failing(exchange_at("http://exchange.invalid"), deadline_s), ExchangeUnavailable)


@pytest.mark.parametrize(
    "steps",
    [
        [3600.0],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", 3600.0],
        [step for byte in GOOD for step in (bytes([byte]), 0.05)],
        [b"HTTP/1.1 100 Continue\r\n\r\n", 3600.0],
    ],
    ids=["silence", "half an answer", "drip feed", "continue and silence"],
)
def test_H06_a_call_ends_at_its_deadline_however_slowly_the_bytes_come(
    stub: Stub, exchange: BybitExchange, clock: ManualClock, steps: list[Step]
) -> None:
    stub.handler = always(*steps)
    started_s = time.monotonic()
    error = failing(exchange, clock.monotonic_s() + 0.3)
    assert (type(error), error.code) == (ExchangeUnavailable, "exchange_timeout")
    assert 0.2 < time.monotonic() - started_s < 1.5


def test_a_single_request_has_a_limit_of_its_own(
    stub: Stub, exchange_at: Callable[..., BybitExchange], deadline_s: float
) -> None:
    stub.handler = always(3600.0)
    started_s = time.monotonic()
    assert failing(exchange_at(stub.url, request_timeout_s=0.2), deadline_s).code == "exchange_timeout"
    assert time.monotonic() - started_s < 1.5


def test_nothing_is_sent_when_the_time_is_used_up(stub: Stub, exchange: BybitExchange, clock: ManualClock) -> None:
    assert failing(exchange, clock.monotonic_s()).code == "exchange_timeout"
    assert stub.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_H06_a_redirect_is_never_followed(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, status: int
) -> None:
    with Stub(always(GOOD)) as elsewhere:
        stub.handler = always(http(b"", status, Location=f"{elsewhere.url}/v5/market/time"))
        with pytest.raises(ExchangeUnavailable) as caught:
            exchange.wallet(credentials, deadline_s)
        assert (caught.value.code, caught.value.exchange_code) == ("exchange_redirect", status)
        assert (len(stub.requests), elsewhere.connections) == (1, 0)


@pytest.mark.parametrize(
    "steps",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", 3600.0],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"f4240\r\n" + MEGABYTE + b"\r\n"] * 12],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *[MEGABYTE] * 12, None],
        [http(gzip.compress(b"{}") + gzip.compress(MEGABYTE) * 100, Content_Encoding="gzip")],
        [http(gzip.compress(b" " * 100_000_000, 1), Content_Encoding="gzip")],
        [b"HTTP/1.1 200 OK\r\n", *[b"X-Filler: " + b"y" * 8_000 + b"\r\n"] * 40, 3600.0],
        [
            *[b"HTTP/1.1 100 Continue\r\nX-Filler: " + b"y" * 8_000 + b"\r\n\r\n"] * 2,
            b"HTTP/1.1 200 O" + b"K" * 200_000,
        ],
    ],
    ids=["declared", "chunked", "until close", "gzip members", "gzip bomb", "endless head", "endless status"],
)
def test_H06_an_answer_too_large_is_refused_before_it_is_kept(
    stub: Stub, exchange: BybitExchange, deadline_s: float, steps: list[Step]
) -> None:
    stub.handler = always(*steps)
    error = failing(exchange, deadline_s)
    assert isinstance(error, AnswerMalformed) and "absurd size" in error.message


def test_a_large_answer_below_the_limit_is_taken_also_packed(
    stub: Stub, exchange: BybitExchange, deadline_s: float
) -> None:
    body = envelope(filler="x" * (MAX_BODY - 1_000))
    stub.handler = always(http(gzip.compress(body, 1), Content_Encoding="gzip"))
    assert exchange.server_time_ms(deadline_s) == NOW_MS
    assert stub.requests[0].headers["accept-encoding"] == "gzip"


def test_an_answer_in_several_gzip_members_is_put_together(
    stub: Stub, exchange: BybitExchange, deadline_s: float
) -> None:
    body = envelope()
    stub.handler = always(http(gzip.compress(body[:10]) + gzip.compress(body[10:]), Content_Encoding="gzip"))
    assert exchange.server_time_ms(deadline_s) == NOW_MS


def test_an_answer_that_ends_with_the_connection_is_whole(
    stub: Stub, exchange: BybitExchange, deadline_s: float
) -> None:
    stub.handler = always(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + envelope(), None)
    assert exchange.server_time_ms(deadline_s) == NOW_MS


def test_an_interim_answer_is_passed_over(stub: Stub, exchange: BybitExchange, deadline_s: float) -> None:
    stub.handler = always(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 0.02, GOOD)
    assert exchange.server_time_ms(deadline_s) == NOW_MS


@pytest.mark.parametrize(
    "steps",
    [
        [GOOD[:-10], None],
        [b"HTTP/1.1 200 OK\r\nContent-Le", None],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", None],
    ],
    ids=["in the body", "in the head", "in a chunk"],
)
def test_H05_a_cut_connection_is_an_unavailable_exchange(
    stub: Stub, exchange: BybitExchange, deadline_s: float, steps: list[Step]
) -> None:
    stub.handler = always(*steps)
    error = failing(exchange, deadline_s)
    assert (type(error), error.code) == (ExchangeUnavailable, "exchange_unavailable")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\nBad Header\x00: x\r\n\r\n",
        http(b"plain", Content_Encoding="gzip"),
        http(zlib.compress(envelope()), Content_Encoding="deflate"),
        http(gzip.compress(envelope())[:-9], Content_Encoding="gzip"),
        http(envelope(), 204),
    ],
    ids=[
        "ssh",
        "two lengths",
        "bad length",
        "bad chunk",
        "bad header",
        "no gzip",
        "deflate",
        "half gzip",
        "no content",
    ],
)
def test_H06_what_is_no_answer_is_malformed(
    stub: Stub, exchange: BybitExchange, deadline_s: float, answer: bytes
) -> None:
    stub.handler = always(answer, None)
    assert isinstance(failing(exchange, deadline_s), AnswerMalformed)


def test_C03_bytes_after_an_answer_never_become_the_next_one(
    stub: Stub, exchange: BybitExchange, deadline_s: float
) -> None:
    forged = http(envelope(time_ms=NOW_MS + 1))
    for extra in (forged, http(b"", 403), b"HTTP/1.1 200 OK\r\n"):
        stub.handler = always(GOOD + extra)
        assert isinstance(failing(exchange, deadline_s), AnswerMalformed)
    stub.handler = always(GOOD, 0.05, forged)
    assert exchange.server_time_ms(deadline_s) == NOW_MS
    time.sleep(0.1)
    stub.handler = always(GOOD)
    assert exchange.server_time_ms(deadline_s) == NOW_MS
    assert stub.requests[-1].connection != stub.requests[-2].connection


@pytest.mark.parametrize(
    "steps",
    [[3600.0], [None], [GOOD[:-3], None], [b"nonsense"], [http(b"", 302)], [http(b"x" * 9_000_000)], [GOOD + GOOD]],
    ids=["hang", "close", "cut", "nonsense", "redirect", "huge", "two answers"],
)
def test_H08_every_failure_gives_its_slot_back(
    stub: Stub, exchange_at: Callable[..., BybitExchange], deadline_s: float, steps: list[Step]
) -> None:
    exchange = exchange_at(stub.url, concurrency=1, request_timeout_s=0.3)
    stub.handler = always(*steps)
    for _ in range(3):
        failing(exchange, deadline_s)
    stub.handler = always(GOOD)
    assert exchange.server_time_ms(deadline_s) == NOW_MS


def test_a_call_abandoned_from_outside_gives_its_slot_back(
    stub: Stub, exchange_at: Callable[..., BybitExchange], deadline_s: float
) -> None:
    exchange = exchange_at(stub.url, concurrency=1)
    stub.handler = always(3600.0)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        exchange.server_time_ms(deadline_s)
    killed = gevent.spawn(exchange.server_time_ms, deadline_s)
    gevent.sleep(0.1)
    killed.kill()
    stub.handler = always(GOOD)
    assert exchange.server_time_ms(deadline_s) == NOW_MS


def test_H05_waiting_for_a_slot_ends_with_the_deadline(
    stub: Stub, exchange_at: Callable[..., BybitExchange], clock: ManualClock
) -> None:
    exchange = exchange_at(stub.url, concurrency=1)
    stub.handler = always(3600.0)
    first = gevent.spawn(exchange.server_time_ms, clock.monotonic_s() + 3.0)
    while not stub.requests:
        gevent.sleep(0.01)
    calls = [gevent.spawn(exchange.server_time_ms, clock.monotonic_s() + 0.3) for _ in range(4)]
    gevent.joinall(calls, timeout=2)
    assert [getattr(call.exception, "code", None) for call in calls] == ["exchange_timeout"] * 4
    assert len(stub.requests) == 1
    first.kill()


def test_at_most_so_many_connections_are_opened_as_allowed(
    stub: Stub, exchange_at: Callable[..., BybitExchange], deadline_s: float
) -> None:
    exchange = exchange_at(stub.url, concurrency=3)
    stub.handler = always(0.02, GOOD)
    calls = [gevent.spawn(exchange.server_time_ms, deadline_s) for _ in range(30)]
    gevent.joinall(calls, raise_error=True)
    assert (len(stub.requests), stub.connections) == (30, 3)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_H09_proxies_of_the_environment_are_ignored(
    stub: Stub, exchange: BybitExchange, deadline_s: float, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert exchange.server_time_ms(deadline_s) == NOW_MS


def test_H09_a_netrc_file_is_ignored(
    stub: Stub, exchange: BybitExchange, deadline_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    exchange.server_time_ms(deadline_s)
    assert "authorization" not in stub.requests[0].headers


@pytest.mark.parametrize("api_key", ["key\r\nX-Injected: yes", "key with blank", "", "schlüssel", "k" * 129, "\x00"])
def test_B10_a_key_that_would_break_a_header_is_refused_unsent(
    stub: Stub, exchange: BybitExchange, deadline_s: float, api_key: str
) -> None:
    with pytest.raises(KeyRefused):
        exchange.wallet(Credentials(api_key, Secret("secret")), deadline_s)
    assert stub.connections == 0


def test_every_request_is_reported_with_its_result_and_duration(
    stub: Stub, exchange: BybitExchange, observer: RecordingObserver, deadline_s: float
) -> None:
    exchange.server_time_ms(deadline_s)
    stub.handler = always(http(b"", 503))
    failing(exchange, deadline_s)
    # The injected clock stands still, so the durations are nought.
    assert [record for record in observer.records if isinstance(record, RequestAnswered)] == [
        RequestAnswered("server_time", "ok", 0.0),
        RequestAnswered("server_time", "exchange_unavailable", 0.0, "exchange"),
    ]


def self_signed(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server context for 127.0.0.1 and the certificate that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "exchange under test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "key.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_file)
    return context, pem


def test_a_certificate_nobody_vouches_for_is_refused(
    exchange_at: Callable[..., BybitExchange], credentials: Credentials, deadline_s: float, tmp_path: Path
) -> None:
    context, _pem = self_signed(tmp_path)
    with Stub(always(GOOD), tls=context) as stub:
        with pytest.raises(ExchangeUnavailable):
            exchange_at(stub.url).wallet(credentials, deadline_s)
        assert stub.requests == []


def test_a_trusted_certificate_is_accepted_and_its_connection_kept(
    exchange_at: Callable[..., BybitExchange], deadline_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, pem = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with Stub(always(GOOD), tls=context) as stub:
        exchange = exchange_at(stub.url)
        assert [exchange.server_time_ms(deadline_s) for _ in range(3)] == [NOW_MS] * 3
        assert stub.connections == 1


def test_a_certificate_for_another_name_is_refused(
    exchange_at: Callable[..., BybitExchange], deadline_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, pem = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with Stub(always(GOOD), tls=context) as stub:
        url = stub.url.replace("127.0.0.1", "localhost")
        assert isinstance(failing(exchange_at(url), deadline_s), ExchangeUnavailable)
        assert stub.requests == []
