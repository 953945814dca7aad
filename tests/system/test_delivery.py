"""The main job, end to end: what the exchange says is what every phone of the user shows, once per change."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from pushserver.exchange_sim.client import SimControl
from pushserver.exchange_sim.credentials import demo_credentials
from tests.system.harness import Stack, wait_until
from tests.system.phones import TYPES, NodePhone, Phone, PythonPhone

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("delivery"), users=8, web_workers=2, push_workers=2).start()
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def exchange(stack: Stack) -> SimControl:
    return SimControl(stack.exchange_url)


@pytest.fixture
def phones() -> Iterator[list[Phone]]:
    opened: list[Phone] = []
    yield opened
    for phone in opened:
        phone.close()  # type: ignore[attr-defined]


def numbers(value: Any) -> Any:
    """The exchange's figures (strings) as the numbers a phone shows."""
    if isinstance(value, dict):
        return {name: _number(name, figure) for name, figure in value.items()}
    return [numbers(row) for row in value]


def _number(name: str, figure: Any) -> Any:
    return figure if figure is None or name in ("symbol", "side", "order_id", "status") else float(figure)


def shows_truth(phone: Phone, exchange: SimControl, user: int) -> bool:
    truth = exchange.figures(user)
    return all(phone.latest(name) is not None and close_to(phone.latest(name), numbers(truth[name])) for name in TYPES)


def close_to(shown: Any, truth: Any) -> bool:
    if isinstance(shown, dict) and isinstance(truth, dict):
        return shown.keys() == truth.keys() and all(close_to(shown[name], truth[name]) for name in shown)
    if isinstance(shown, list) and isinstance(truth, list):
        return len(shown) == len(truth) and all(close_to(a, b) for a, b in zip(shown, truth, strict=True))
    if isinstance(shown, float) and isinstance(truth, float):
        return abs(shown - truth) <= 1e-6 * max(1.0, abs(truth))
    return bool(shown == truth)


def watching(stack: Stack, phones: list[Phone], user: int, kind: type = NodePhone, carrier: str = "payload") -> Any:
    """A phone of ``user`` that has every type."""
    phone = kind(stack.url, stack.token(user), carrier)
    phones.append(phone)
    phone.wait_for("connected")
    phone.call("subscribe_trading", {"types": list(TYPES)})
    for name in TYPES:
        phone.wait_for(f"{name}_update")
    return phone


def counts(phone: Phone) -> dict[str, int]:
    return {name: len(phone.updates(name)) for name in TYPES}


@pytest.mark.parametrize("kind", [NodePhone, PythonPhone])
def test_login_connect_subscribe_and_see_the_account(stack, exchange, phones, kind):
    body = json.dumps({"username": "user1", "password": "password-1"}).encode()
    request = urllib.request.Request(
        f"{stack.url}/api/auth/login", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        login = json.load(answer)
    assert (login["token_type"], login["expires_in"], login["user_id"]) == ("Bearer", 3600, 1)
    phone = kind(stack.url, login["token"])
    phones.append(phone)
    phone.wait_for("connected")
    phone.emit("subscribe_trading", {})
    assert phone.wait_for("subscribed")["types"] == list(TYPES)
    for name in TYPES:
        update = phone.wait_for(f"{name}_update")
        assert list(update) == ["type", "data", "timestamp", "user_id", "seq", "as_of"]
        assert (update["type"], update["user_id"]) == (f"{name}_update", 1)
    wait_until(lambda: shows_truth(phone, exchange, 1), 10, "the truth")


def test_unchanged_data_is_pushed_exactly_once_per_type(stack, exchange, phones):
    phone = watching(stack, phones, 2)
    mark = exchange.mark_counters()
    # Many rounds at intervals of 1 and 2 s.
    wait_until(lambda: exchange.counters(mark)["requests"] >= 14, 30, "more rounds")
    assert counts(phone) == dict.fromkeys(TYPES, 1)


def test_support_sees_what_a_phone_sees_and_who_serves_it(stack, exchange, phones):
    phone = watching(stack, phones, 2)
    told = json.loads(stack.command("inspect", "user2", "--json"))
    assert told["watched"] == list(TYPES)
    for name in TYPES:
        row = told["types"][name]
        assert (row["seq"], row["state"], row["web_workers"]) == (phone.updates(name)[-1]["seq"], "live", 1)
        assert 0 <= row["age_s"] < 10
        assert row["next_fetch_in_s"] is not None and row["last_error"] is None
    assert told["schedule"]["scheduled"]
    text = stack.command("inspect", "2")
    assert "user 2 user2: enabled" in text
    assert demo_credentials(2)[1] not in text


def test_one_change_is_pushed_exactly_once_to_each_type_it_affects(stack, exchange, phones):
    phone = watching(stack, phones, 3)
    wait_until(lambda: shows_truth(phone, exchange, 3), 10, "the truth")
    before, mark = counts(phone), exchange.mark_counters()
    affected = set(exchange.set_position(3, "SOLUSDT", "Buy", "2", "140")["types"])
    assert {"positions"} <= affected
    wait_until(lambda: shows_truth(phone, exchange, 3), 10, "the truth")
    wait_until(lambda: exchange.counters(mark)["requests"] >= 14, 30, "more rounds")
    assert counts(phone) == {name: before[name] + (name in affected) for name in TYPES}


def test_a_closed_position_moves_positions_pnl_and_balance_together(stack, exchange, phones):
    exchange.set_position(4, "SOLUSDT", "Buy", "2", "140")
    phone = watching(stack, phones, 4)
    wait_until(lambda: shows_truth(phone, exchange, 4), 10, "the truth")
    before, mark = counts(phone), exchange.mark_counters()
    affected = set(exchange.close_position(4, "SOLUSDT")["types"])
    assert {"positions", "pnl"} <= affected
    wait_until(lambda: shows_truth(phone, exchange, 4), 10, "the truth")
    wait_until(lambda: exchange.counters(mark)["requests"] >= 14, 30, "more rounds")
    after = counts(phone)
    assert after == {name: before[name] + (name in affected) for name in TYPES}
    assert phone.latest("pnl")["realized_pnl"] + phone.latest("pnl")["unrealized_pnl"] == pytest.approx(
        phone.latest("pnl")["total_pnl"]
    )


def test_a_second_device_gets_the_newest_state_at_once_with_the_same_seq(stack, exchange, phones):
    first = watching(stack, phones, 5)
    mark = exchange.mark_counters()
    second = NodePhone(stack.url, stack.token(5), "header")
    phones.append(second)
    second.wait_for("connected")
    second.call("subscribe_trading", {})
    for name in TYPES:
        assert second.wait_for(f"{name}_update", timeout_s=1)["seq"] == first.updates(name)[-1]["seq"]
    order = [told.name if told.kind == "event" else told.kind for told in second.told]
    assert order.index("subscribed") < order.index("ack") < min(order.index(f"{name}_update") for name in TYPES)
    assert exchange.counters(mark)["requests"] < 16


def test_an_unsubscribed_type_is_silent_and_comes_back_with_its_newest_state(stack, exchange, phones):
    phone = watching(stack, phones, 5)
    answer = phone.call("unsubscribe_trading", {"types": ["orders"]})
    assert answer["subscribed"] == ["balance", "positions", "pnl"]
    before = len(phone.updates("orders"))
    exchange.place_order(5, "BTCUSDT", "Buy", "0.01", "50000")
    other = watching(stack, phones, 5, PythonPhone)
    wait_until(lambda: shows_truth(other, exchange, 5), 10, "the truth")
    assert len(phone.updates("orders")) == before
    phone.call("subscribe_trading", {"types": ["orders"]})
    wait_until(lambda: phone.latest("orders") == other.latest("orders"), 5, "the newest orders")


def test_resync_sends_a_state_again_with_its_seq_and_only_when_it_is_newer(stack, phones):
    phone = watching(stack, phones, 2)
    seq = phone.updates("balance")[-1]["seq"]
    phone.call("resync", {"since": {"balance": seq}})
    assert len(phone.updates("balance")) == 1
    phone.call("resync", {"since": {"balance": seq - 1}})
    assert phone.wait_for("balance_update", 2)["seq"] == seq
    phone.call("resync", {"since": {"balance": seq + 10**9}})
    assert phone.wait_for("balance_update", 3)["seq"] == seq
    assert len(phone.updates("pnl")) == 1


def test_no_phone_ever_gets_anything_of_another_user(stack, exchange, phones):
    watchers = {user: watching(stack, phones, user, PythonPhone) for user in (6, 7, 8)}
    for user in watchers:
        exchange.set_wallet(user, USDT=str(1000 + user))
        exchange.place_order(user, "ETHUSDT", "Sell", "0.1", str(9000 + user))
    for user, phone in watchers.items():
        wait_until(lambda phone=phone, user=user: shows_truth(phone, exchange, user), 15, f"the truth of {user}")
    for user, phone in watchers.items():
        received = [update["user_id"] for name in TYPES for update in phone.updates(name)]
        assert set(received) == {user}
        assert {order["price"] for order in phone.latest("orders")} >= {9000 + user}
        assert not {order["price"] for order in phone.latest("orders")} & {
            9000.0 + other for other in watchers if other != user
        }


def test_whoami_tells_what_is_watched_and_how_fresh_it_is(stack, phones):
    phone = watching(stack, phones, 1)
    # The stored states may be older than this phone: they are confirmed by the first round it causes.
    wait_until(
        lambda: all(state["age_s"] < 5 for state in phone.call("whoami", {})["states"].values()), 15, "freshness"
    )
    answer = phone.call("whoami", {})
    assert (answer["user_id"], answer["types"]) == (1, list(TYPES))
    for name in TYPES:
        state = answer["states"][name]
        assert state["seq"] == phone.updates(name)[-1]["seq"]
        assert state["next_fetch_at"] and state["last_error"] is None


def test_logout_closes_the_sockets_of_that_token_and_no_others(stack, phones):
    token, other_token = stack.token(1), stack.token(1)
    leaving, staying = PythonPhone(stack.url, token), PythonPhone(stack.url, other_token)
    phones += [leaving, staying]
    for phone in (leaving, staying):
        phone.wait_for("connected")
    request = urllib.request.Request(
        f"{stack.url}/api/auth/logout", method="POST", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 204
    assert leaving.wait_for("error", timeout_s=5)["code"] == "token_revoked"
    leaving.wait_kind("disconnect", timeout_s=5)
    assert staying.count("disconnect") == 0
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(
            urllib.request.Request(
                f"{stack.url}/api/auth/refresh", method="POST", headers={"Authorization": f"Bearer {token}"}
            ),
            timeout=10,
        )
    assert refusal.value.code == 401


def test_a_dead_key_stops_the_user_and_a_new_one_resumes_with_sockets_open(stack, exchange, phones):
    phone = watching(stack, phones, 7)
    api_key, _ = demo_credentials(7)
    exchange.revoke_key(api_key)
    wait_until(
        lambda: {status["type"] for status in phone.events("status_update") if status["state"] == "stopped"}
        == set(TYPES),
        20, "stopped for every type",
    )  # fmt: skip
    stopped = phone.events("status_update")[0]
    assert (stopped["reason"], stopped["until"]) == ("key_invalid", None)
    assert stopped["message"]
    assert phone.wait_for("error")["code"] == "key_invalid"
    exchange.put_key("sim-key-new", "s" * 36, 7)
    exchange.set_wallet(7, USDT="4321")
    stack.command("users", "set-key", "user7", "--api-key", "sim-key-new", "--api-secret-stdin", given="s" * 36 + "\n")
    wait_until(lambda: shows_truth(phone, exchange, 7), 60, "the truth under the new key")
    assert {status["type"] for status in phone.events("status_update") if status["state"] == "live"} == set(TYPES)
    assert phone.count("disconnect") == 0


def test_an_exchange_in_trouble_is_told_and_the_last_good_state_stays(stack, exchange, phones):
    phone = watching(stack, phones, 6)
    before = counts(phone)
    fault = exchange.fault("http_status", {"status": 503}, user=6)
    wait_until(lambda: phone.events("status_update"), 15, "delayed")
    assert phone.events("status_update")[0]["state"] == "delayed"
    assert counts(phone) == before
    exchange.clear_faults(fault)
    wait_until(
        lambda: [status["type"] for status in phone.events("status_update") if status["state"] == "live"],
        30, "live again",
    )  # fmt: skip
    assert counts(phone) == before


def test_secrets_are_in_no_log(stack):
    logs = "".join(process.log() for process in stack.processes)
    for number in range(1, stack.users + 1):
        _, secret = demo_credentials(number)
        assert secret not in logs
    assert stack.environ["JWT_SECRETS"] not in logs
    assert stack.environ["CREDENTIALS_KEYS"] not in logs
    assert "password-1" not in logs
