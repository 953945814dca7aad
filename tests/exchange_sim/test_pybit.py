"""Bybit's own client against the simulated exchange, over real HTTP."""

from __future__ import annotations

import contextlib
import socket
from decimal import Decimal
from urllib.parse import urlsplit

import pytest
from pybit.exceptions import FailedRequestError, InvalidRequestError
from pybit.unified_trading import HTTP

from pushserver.exchange_sim.client import SimControl
from pushserver.exchange_sim.credentials import demo_credentials
from tests.exchange_sim.conftest import client_of


def test_pybit_reads_every_endpoint(sim: SimControl) -> None:
    client = client_of(sim.base_url)
    wallet = client.get_wallet_balance(accountType="UNIFIED")["result"]["list"][0]
    assert Decimal(wallet["totalEquity"]) == sum(Decimal(coin["usdValue"]) for coin in wallet["coin"])
    assert client.get_account_info()["result"]["unifiedMarginStatus"] == 5
    assert client.get_positions(category="linear", settleCoin="USDT")["result"]["list"]
    assert client.get_closed_pnl(category="linear")["result"]["list"]
    assert client.get_open_orders(category="linear", settleCoin="USDT")["result"]["list"]
    assert client.get_api_key_information()["result"]["userID"] == 1
    assert int(client.get_server_time()["result"]["timeSecond"]) > 1_700_000_000
    assert len(client.get_tickers(category="linear")["result"]["list"]) == 4


@pytest.mark.parametrize("rows", [0, 1, 50, 51, 120])
def test_pybit_pages_through_all_orders(sim: SimControl, rows: int) -> None:
    order = {"symbol": "BTCUSDT", "side": "Buy", "quantity": "0.001", "price": "50000"}
    sim.change(1, drop=["orders"], orders=[order] * rows)
    client = client_of(sim.base_url)
    seen: list[str] = []
    cursor = None
    while True:
        page = client.get_open_orders(category="linear", settleCoin="USDT", limit=50, cursor=cursor)["result"]
        seen += [row["orderId"] for row in page["list"]]
        cursor = page["nextPageCursor"]
        if len(page["list"]) < 50:
            break
        assert cursor
    assert len(seen) == len(set(seen)) == rows


def test_a_wrong_secret_and_an_unknown_key_are_told_apart(sim: SimControl) -> None:
    api_key, secret = demo_credentials(1)
    for key, wrong, code in ((api_key, secret[:-1] + "!", 10004), ("nobody", secret, 10003)):
        client = HTTP(api_key=key, api_secret=wrong)
        client.endpoint = sim.base_url
        with pytest.raises(InvalidRequestError) as caught:
            client.get_account_info()
        assert caught.value.status_code == code


def test_a_key_never_shows_another_users_account(sim: SimControl) -> None:
    for user in (1, 2):
        sim.put_account(user, wallet={"USDT": 1000 + user})
    totals = [
        client_of(sim.base_url, user).get_wallet_balance(accountType="UNIFIED")["result"]["list"][0]["totalEquity"]
        for user in (1, 2)
    ]
    assert totals == ["1001", "1002"]


def test_a_skewed_server_clock_refuses_pybits_timestamps(sim: SimControl) -> None:
    sim.skew_clock(-5_000)
    with pytest.raises(InvalidRequestError) as caught:
        client_of(sim.base_url).get_account_info()
    assert caught.value.status_code == 10002


def test_the_user_limit_comes_with_its_headers(sim: SimControl) -> None:
    sim.set_limits(per_endpoint={"/v5/account/info": 2})
    client = client_of(sim.base_url, return_response_headers=True)
    _, _, headers = client.get_account_info()
    assert (headers["X-Bapi-Limit"], headers["X-Bapi-Limit-Status"]) == ("2", "1")
    with pytest.raises(InvalidRequestError) as caught:
        for _ in range(3):
            client.get_account_info()
    assert caught.value.status_code == 10006
    assert int(caught.value.resp_headers["X-Bapi-Limit-Reset-Timestamp"]) > 0


def test_a_ban_is_http_403_until_it_ends(sim: SimControl) -> None:
    sim.set_limits(requests=3, ban_s=0.5)
    client = client_of(sim.base_url)
    with pytest.raises(FailedRequestError) as caught:
        for _ in range(4):
            client.get_server_time()
    assert caught.value.status_code == 403
    assert sim.counters()["bans"] == 1 and "127.0.0.1" in sim.counters()["banned"]
    sim.lift_ban()
    assert client.get_server_time()["retCode"] == 0


def test_large_answers_come_compressed_and_whole(sim: SimControl) -> None:
    closed = [{"symbol": "BTCUSDT", "closed_pnl": n} for n in range(100)]
    sim.change(1, drop=["closed"], closed=closed)
    client = client_of(sim.base_url, return_response_headers=True)
    body, _, headers = client.get_closed_pnl(category="linear", limit=100)
    assert headers["Content-Encoding"] == "gzip" and headers["Transfer-Encoding"] == "chunked"
    assert sum(Decimal(row["closedPnl"]) for row in body["result"]["list"]) == 4950


def test_the_control_client_covers_a_trading_day(sim: SimControl) -> None:
    assert sim.users() == [1, 2, 3]
    sim.put_account(9, api_key="k9", api_secret="s9", wallet={"USDT": "1000"})
    order_id = sim.place_order(9, "BTCUSDT", "Buy", "0.01", 60000)
    sim.fill_order(9, order_id, quantity="0.004")
    sim.cancel_order(9, order_id)
    sim.close_position(9, "BTCUSDT", price="61000")
    sim.set_position(9, "ETHUSDT", "Sell", 1, "3000", leverage=5)
    sim.set_marks(ETHUSDT="2990")
    sim.set_usd_prices(USDT="1")
    sim.set_wallet(9, USDT=2000)
    figures = sim.figures(9)
    assert figures["positions"][0]["unrealized_pnl"] == "10" and figures["orders"] == []
    assert figures["balance"]["total_balance"] == "2010"
    assert [e["user"] for e in sim.truth(kind="change")][-7:] == [9] * 7
    sim.put_key("k9b", "s9b", 9)
    sim.change_key("k9b", read_only=False)
    assert sim.account(9)["keys"] == ["k9", "k9b"]
    sim.revoke_key("k9")
    mark = sim.mark_counters()
    assert sim.counters(mark)["requests"] == 0 and sim.faults() == []
    assert sim.market()["market_frozen"] is True
    assert sim.unfreeze()["market_frozen"] is False
    assert sim.freeze()["activity_frozen"] is True
    sim.delete_account(9)
    assert sim.users() == [1, 2, 3]


def test_one_connection_serves_many_requests_and_rubbish_ends_it(sim: SimControl) -> None:
    address = urlsplit(sim.base_url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as plain:
        for _ in range(3):
            plain.sendall(b"GET /v5/market/time HTTP/1.1\r\nHost: x\r\n\r\n")
            assert plain.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        plain.sendall(b"GET /v5/market/time HTTP/1.1\r\n\r\nGET /v5/nothing HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = b""
        while chunk := plain.recv(65536):
            received += chunk
        assert received.count(b"HTTP/1.1 ") == 2 and b"404 Not Found" in received
    for rubbish in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"x" * 70_000):
        with socket.create_connection((address.hostname, address.port), timeout=5) as plain:
            plain.sendall(rubbish)
            with contextlib.suppress(ConnectionResetError):  # closed with bytes unread: the same, told more rudely
                assert plain.recv(100) == b""
