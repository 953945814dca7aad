"""The simulated streams as a client of the real program meets them."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import websocket

from pushserver.exchange_sim.client import SimControl
from pushserver.exchange_sim.credentials import demo_credentials

Json = dict[str, Any]


class Client:
    """One stream; ``next`` gives the next message."""

    def __init__(self, url: str, path: str, **options: Any) -> None:
        url = url.replace("http", "ws", 1) + path
        self.socket = websocket.create_connection(url, timeout=5, http_no_proxy=["*"], **options)

    def say(self, **message: Any) -> None:
        self.socket.send(orjson.dumps(message).decode())

    def next(self) -> Json:
        message: Json = orjson.loads(self.socket.recv())
        return message

    def until(self, topic: str) -> Json:
        while (message := self.next()).get("topic") != topic:
            pass
        return message

    def is_silent(self, seconds: float = 0.3) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.socket.recv()
        except websocket.WebSocketTimeoutException:
            return True
        finally:
            self.socket.settimeout(5)
        return False

    def authenticate(self, user: int, expires_in_ms: int = 10_000, secret: str | None = None) -> Json:
        api_key, own_secret = demo_credentials(user)
        expires = int(time.time() * 1000) + expires_in_ms
        text = f"GET/realtime{expires}".encode()
        signed = hmac.new((secret or own_secret).encode(), text, hashlib.sha256).hexdigest()
        self.say(req_id="1", op="auth", args=[api_key, expires, signed])
        return self.next()

    def subscribe(self, *topics: str) -> Json:
        self.say(req_id="2", op="subscribe", args=list(topics))
        return self.next()


@pytest.fixture
def opened(sim: SimControl) -> Iterator[Any]:
    clients: list[Client] = []

    def open_client(path: str = "/v5/private", **options: Any) -> Client:
        clients.append(Client(sim.base_url, path, **options))
        return clients[-1]

    yield open_client
    for client in clients:
        client.socket.close()


def private(opened: Any, user: int = 1) -> Client:
    client: Client = opened()
    assert client.authenticate(user)["success"] is True
    assert client.subscribe("position", "order", "wallet", "execution")["success"] is True
    return client


def test_a_subscriber_gets_no_snapshot_and_only_the_coins_that_were_touched(opened: Any, sim: SimControl) -> None:
    client = private(opened)
    assert client.is_silent()
    sim.set_wallet(1, USDC="123")
    message = client.next()
    assert message["topic"] == "wallet"
    assert [coin["coin"] for coin in message["data"][0]["coin"]] == ["USDC"]
    sim.set_wallet(2, USDC="5")
    assert client.is_silent(), "another user's wallet"


def test_an_order_is_told_with_a_redundant_position_and_a_close_as_flat(opened: Any, sim: SimControl) -> None:
    sim.put_account(7, api_key="k7", api_secret="s7", wallet={"USDT": "1000"})
    sim.put_key(*demo_credentials(7), user=7)
    client = private(opened, 7)
    sim.place_order(7, "BTCUSDT", "Buy", "0.01", "100")
    order, position = client.next(), client.next()
    assert order["topic"] == "order" and order["data"][0]["orderStatus"] == "New"
    assert position["topic"] == "position" and position["data"][0]["size"] == "0"
    assert "avgPrice" not in position["data"][0] and position["data"][0]["category"] == "linear"
    assert client.is_silent(), "an order moves no money"
    sim.change(7, trade=[{"symbol": "ETHUSDT", "side": "Buy", "quantity": "1"}])
    assert client.until("execution")["data"][0]["side"] == "Buy"
    assert client.until("position")["data"][0]["side"] == "Buy"
    sim.close_position(7, "ETHUSDT")
    flat = client.until("position")["data"][0]
    assert (flat["side"], flat["size"], flat["entryPrice"]) == ("", "0", "0")


@pytest.mark.parametrize(
    ("expires_in_ms", "secret", "text"),
    [(-1, None, "Params Error"), (10_000, "wrong", "Sign Error")],
)
def test_authentication_is_refused(opened: Any, expires_in_ms: int, secret: str | None, text: str) -> None:
    answer = opened().authenticate(1, expires_in_ms, secret)
    assert (answer["success"], answer["ret_msg"], answer["op"]) == (False, text, "auth")


def test_topics_need_a_user_and_must_exist_and_not_be_mixed(opened: Any) -> None:
    client = opened()
    assert "auth first" in client.subscribe("wallet")["ret_msg"]
    client.authenticate(1)
    assert client.subscribe("nonsense")["success"] is False
    assert client.subscribe("position", "position.linear")["success"] is False
    assert client.subscribe("position.linear")["success"] is True


def test_pings_are_answered_in_the_form_of_each_stream(opened: Any) -> None:
    client, tickers = opened(), opened("/v5/public/linear")
    client.say(req_id="x", op="ping")
    pong = client.next()
    assert (pong["op"], pong["req_id"]) == ("pong", "x") and pong["args"][0].isdigit()
    tickers.say(req_id="y", op="ping")
    assert {"success": True, "ret_msg": "pong", "op": "ping", "req_id": "y"}.items() <= tickers.next().items()


def test_tickers_come_whole_first_and_then_as_what_changed(opened: Any, sim: SimControl) -> None:
    client = opened("/v5/public/linear")
    assert client.subscribe("tickers.NOSUCH")["success"] is False
    assert client.subscribe("tickers.BTCUSDT")["success"] is True
    first = client.next()
    assert first["type"] == "snapshot" and {"markPrice", "fundingRate"} <= first["data"].keys()
    sim.set_marks(BTCUSDT="54321.5", ETHUSDT="1234")
    delta = client.next()
    assert delta["type"] == "delta" and delta["data"]["markPrice"] == "54321.5"
    assert "fundingRate" not in delta["data"]
    assert client.is_silent()


def test_connections_are_dropped_refused_and_counted(opened: Any, sim: SimControl) -> None:
    client = private(opened)
    assert sim.streams()["users"] == [1]
    (stream,) = sim.streams_of(1)
    assert stream["topics"] == ["execution", "order", "position", "wallet"] and stream["quiet_s"] < 5
    assert sim.drop_streams(user=1) == 1
    with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
        client.next()
    sim.stream_fault("refuse_handshake", {"status": 502}, times=1)
    with pytest.raises(websocket.WebSocketBadStatusException):
        opened()
    private(opened)
    sim.limit_streams(1)
    with pytest.raises(websocket.WebSocketBadStatusException):
        opened()
    assert sim.streams()["connects"]["127.0.0.1"] >= 3


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("mute", {}, []),
        ("duplicate", {}, ["wallet", "wallet"]),
        ("precede", {}, ["unknown", "wallet"]),
        ("replace", {"text": '{"topic":"position","data":[]}'}, ["position"]),
        ("delay", {"seconds": 0.2}, ["wallet"]),
    ],
)
def test_messages_go_wrong_as_they_are_told_to(
    opened: Any, sim: SimControl, kind: str, options: Json, expected: list[str]
) -> None:
    client = private(opened)
    sim.stream_fault(kind, options, user=1, times=1)
    sim.set_wallet(1, USDC="77")
    seen = [client.next()["topic"] for _ in expected]
    assert seen == expected
    assert client.is_silent()


def test_messages_are_swapped(opened: Any, sim: SimControl) -> None:
    client = private(opened)
    sim.stream_fault("reorder", user=1)
    sim.set_wallet(1, USDC="1")
    sim.set_wallet(1, USDC="2")
    balances = [client.next()["data"][0]["coin"][0]["walletBalance"] for _ in range(2)]
    assert balances == ["2", "1"]


def test_a_silent_stream_says_nothing_at_all(opened: Any, sim: SimControl) -> None:
    client = private(opened)
    sim.stream_fault("silent", user=1)
    client.say(op="ping")
    sim.set_wallet(1, USDC="1")
    assert client.is_silent()
    sim.clear_stream_faults()
    with contextlib.suppress(websocket.WebSocketTimeoutException):
        client.say(op="ping")
    assert client.next()["op"] == "pong"


def test_a_client_that_does_not_read_is_cut_off(opened: Any, sim: SimControl) -> None:
    slow, quick = private(opened, 1), private(opened, 2)
    assert sim.say_on_streams("x" * 50_000, user=1, times=200) == 1
    deadline = time.monotonic() + 5
    while sim.streams()["users"] != [2]:
        assert time.monotonic() < deadline, "it is still kept"
        time.sleep(0.01)
    sim.set_wallet(2, USDC="3")
    assert quick.next()["topic"] == "wallet"
    slow.socket.shutdown()


def test_a_handshake_is_left_without_an_answer(opened: Any, sim: SimControl) -> None:
    sim.stream_fault("refuse_handshake", {"hang_s": 30}, times=1)
    with pytest.raises((websocket.WebSocketTimeoutException, TimeoutError)):
        websocket.create_connection(sim.base_url.replace("http", "ws") + "/v5/private", timeout=0.2)
    private(opened)


def test_ping_frames_are_answered_unless_the_stream_is_silent(opened: Any, sim: SimControl) -> None:
    client = private(opened)
    client.socket.ping("a")
    assert client.socket.recv_data_frame(control_frame=True)[0] == websocket.ABNF.OPCODE_PONG
    for kind in ("silent", "no_pong"):
        number = sim.stream_fault(kind, stream="private")
        client.socket.ping("b")
        client.socket.settimeout(0.2)
        with pytest.raises(websocket.WebSocketTimeoutException):
            client.socket.recv_data_frame(control_frame=True)
        sim.clear_stream_faults(number)


def test_a_stream_is_closed_with_a_code(opened: Any, sim: SimControl) -> None:
    client = private(opened)
    assert sim.drop_streams(stream="private", code=1012) == 1
    code, data = client.socket.recv_data()
    assert (code, data[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1012).to_bytes(2, "big"))


def test_deleting_an_account_ends_its_streams(opened: Any, sim: SimControl) -> None:
    client = private(opened, 2)
    sim.delete_account(2)
    with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
        client.next()
    assert sim.streams()["users"] == []


def test_delayed_messages_keep_their_order(opened: Any, sim: SimControl) -> None:
    client = private(opened)
    sim.stream_fault("delay", {"seconds": 0.1}, user=1)
    for amount in range(40):
        sim.set_wallet(1, USDC=str(amount + 1_000_000))
    balances = [int(client.until("wallet")["data"][0]["coin"][0]["walletBalance"]) for _ in range(40)]
    assert balances == sorted(balances)
    trade = {"symbol": "BTCUSD", "side": "Buy", "quantity": "1"}
    sim.change(1, trade=[trade])
    assert [client.next()["topic"] for _ in range(4)] == ["order", "execution", "position", "wallet"]
