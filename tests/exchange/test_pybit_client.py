"""pybit as we use it: signed right, silent, without retries, and showing no secret."""

from __future__ import annotations

import logging
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from pybit import _helpers
from pybit.unified_trading import HTTP

from pushserver.clock import ManualClock
from pushserver.errors import ExchangeError
from pushserver.exchange.bybit import BybitExchange
from pushserver.exchange.port import Endpoint
from pushserver.exchange.pybit_client import METHODS, Pybit, PybitClient
from pushserver.model import Credentials
from tests.exchange.stub import NOW_MS, Stub, always, envelope, http, in_turn, page

WALLET = http(envelope({"list": [{"accountType": "UNIFIED"}]}))


def test_F06_the_signature_is_the_one_openssl_makes(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(WALLET)
    exchange.wallet(credentials, deadline_s)
    headers = stub.requests[0].headers
    assert stub.requests[0].target == "/v5/account/wallet-balance?accountType=UNIFIED"
    assert headers["x-bapi-api-key"] == "canary-api-key-0001"
    assert headers["x-bapi-timestamp"] == str(NOW_MS)
    assert headers["x-bapi-recv-window"] == "5000"
    assert headers["x-bapi-sign"] == "9df562406896d1bb4bc046a613fcbef203f22cc71e3aa00eb087f3b371b2aa7d"
    assert "content-length" not in headers


def test_a_cursor_is_sent_and_signed_as_it_came(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    rows = [{"symbol": f"S{number}", "positionIdx": 0} for number in range(200)]
    stub.handler = in_turn(http(page(*rows, cursor="BTCUSDT%2C1767000000001%2C0")), http(page()))
    exchange.positions(credentials, deadline_s)
    second = stub.requests[1]
    assert second.query == "category=linear&cursor=BTCUSDT%2C1767000000001%2C0&limit=200&settleCoin=USDT"
    assert second.headers["x-bapi-sign"] == "62d98f146eb2df50b782660d5d97c1c72b180efee6cf948fe603af4eb7b46e39"


def test_our_headers_are_pybit_s_own_with_another_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version of pybit that signs otherwise must be seen here."""
    monkeypatch.setattr(_helpers, "generate_timestamp", lambda: NOW_MS)
    theirs = HTTP(api_key="key", api_secret="secret")
    ours = PybitClient(api_key="key", api_secret="secret")
    ours.stamp_ms = lambda: NOW_MS
    assert ours._prepare_headers("a=b", 5000) == theirs._prepare_headers("a=b", 5000)


def test_F01_no_repr_shows_a_secret(credentials: Credentials) -> None:
    shown: list[str] = []

    class Client:
        headers: ClassVar[dict[str, str]] = {}

        def prepare_request(self, request: Any) -> Any:
            return request

        def send(self, request: Any, timeout: float) -> Any:
            callers_locals = sys._getframe(1).f_locals
            shown.extend(repr(value) for value in callers_locals.values())
            raise ExchangeError("stop here")

    pybit = Pybit("http://127.0.0.1:9")
    with pytest.raises(ExchangeError):
        pybit.get(Endpoint.WALLET, Client(), credentials, lambda: NOW_MS, {"accountType": "UNIFIED"})
    assert any("PybitClient" in text for text in shown)
    assert not any("canary-api-secret" in text for text in shown)
    assert "canary" not in repr(pybit) + repr(vars(pybit)) + repr(credentials)


def test_C03_nothing_of_a_user_stays_behind(credentials: Credentials) -> None:
    class Client:
        headers: ClassVar[dict[str, str]] = {}

        def prepare_request(self, request: Any) -> Any:
            raise ExchangeError("stop here")

        send = prepare_request

    pybit = Pybit("http://127.0.0.1:9")
    with pytest.raises(ExchangeError):
        pybit.get(Endpoint.WALLET, Client(), credentials, lambda: NOW_MS, {})
    assert (pybit._template.api_key, pybit._template.api_secret, pybit._template.client) == (None, None, None)


@pytest.mark.parametrize(
    "answer",
    [
        http(b"", 500),
        http(b"nonsense"),
        http(envelope(code=10004, message="error sign! origin_string[canary-api-key-0001]")),
        http(envelope(code=10001, message="bad canary-api-key-0001 canary-api-secret-000000000000000001")),
        b"not http at all\r\n",
        http(envelope(), 302),
    ],
)
def test_F02_a_failure_carries_no_key_no_header_and_no_frames_of_pybit(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, answer: bytes
) -> None:
    stub.handler = always(answer, None)
    with pytest.raises(ExchangeError) as caught:
        exchange.wallet(credentials, deadline_s)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # The first frame is this test, which knows the answer.
    text = "".join(traceback.StackSummary.from_list(told.stack[1:]).format())
    text += "".join(str(frame.locals) for frame in told.stack[1:])
    assert len(told.stack) > 1
    assert "canary-api-secret" not in text and "X-BAPI-SIGN" not in text
    assert caught.value.__context__ is None and caught.value.__cause__ is None
    assert not any("pybit/" in frame.filename for frame in told.stack)
    assert "canary" not in str(caught.value)


def test_F02_an_error_of_pybit_s_own_becomes_a_typed_failure(
    stub: Stub,
    exchange: BybitExchange,
    credentials: Credentials,
    deadline_s: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(self: Any, *_: object) -> Any:
        raise KeyError(f"{self.api_key} {self.api_secret}")

    monkeypatch.setattr(PybitClient, "_check_status_code", broken)
    stub.handler = always(WALLET)
    with caplog.at_level(logging.DEBUG), pytest.raises(ExchangeError) as caught:
        exchange.wallet(credentials, deadline_s)
    assert caught.value.code == "exchange_unavailable"
    assert "KeyError" in caplog.text and "canary" not in caplog.text + str(caught.value)


def test_making_clients_adds_no_log_handlers() -> None:
    root = logging.getLogger()
    kept, root.handlers = root.handlers, []
    try:
        logger = logging.getLogger("pybit._http_manager")
        before = list(logger.handlers)
        for _ in range(3):
            Pybit("http://127.0.0.1:9")
        assert logger.handlers == before
    finally:
        root.handlers = kept


@pytest.mark.parametrize("code", [10002, 10006, 30034, 30035, 130035, 130150])
def test_H01_pybit_neither_sleeps_nor_retries(
    stub: Stub,
    exchange: BybitExchange,
    credentials: Credentials,
    deadline_s: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pybit._http_manager.time.sleep", lambda seconds: pytest.fail("pybit slept"))
    stub.handler = always(http(envelope(code=code), X_Bapi_Limit_Reset_Timestamp=str(NOW_MS + 60_000)))
    with pytest.raises(ExchangeError):
        exchange.wallet(credentials, deadline_s)
    # A refused time is signed again once, by us.
    assert len(stub.requests) == (2 if code == 10002 else 1)


def test_I08_failures_log_nothing_by_themselves(
    stub: Stub,
    exchange: BybitExchange,
    credentials: Credentials,
    deadline_s: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        for answer in (http(b"", 403), http(envelope(code=10006)), http(b"<html>")):
            stub.handler = always(answer)
            with pytest.raises(ExchangeError):
                exchange.wallet(credentials, deadline_s)
    assert caplog.text == ""


def test_F01_credentials_cannot_be_pickled_with_their_secret(credentials: Credentials) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(credentials)


def test_every_endpoint_has_its_method(exchange_at: Callable[..., BybitExchange], clock: ManualClock) -> None:
    assert set(METHODS) == set(Endpoint)
