"""A phone is told what its user's exchange key can do that it should not, and that a better one took its place."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from pushserver.accounts.store import AccountStore
from pushserver.clock import SystemClock
from pushserver.exchange_sim.client import SimControl
from pushserver.model import Secret
from tests.system.harness import Stack
from tests.system.phones import PythonPhone

#: Its time for the first check comes a second and a half after it is first seen.
USER = 89
FIELDS = {"user_id", "state", "problems", "expires_at", "days_left", "read_only", "ip_bound", "checked_at"}


def put_key(stack: Stack, api_key: str, api_secret: str) -> None:
    request = urllib.request.Request(
        f"{stack.url}/api/exchange-key",
        data=json.dumps({"api_key": api_key, "api_secret": api_secret}).encode(),
        headers={"Authorization": f"Bearer {stack.token(USER)}", "Content-Type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def test_C04_a_key_that_can_withdraw_is_told_to_all_phones_until_it_is_replaced(tmp_path: Path) -> None:
    stack = Stack(tmp_path, users=1, web_workers=2, push_workers=1).start()
    phones: list[PythonPhone] = []
    try:
        exchange = SimControl(stack.exchange_url)
        exchange.put_account(USER, wallet={"USDT": "1000"})
        exchange.put_key("mighty-key-00089", "secret-1", USER, read_only=False, permissions={"Wallet": ["Withdraw"]})
        exchange.put_key("gentle-key-00089", "secret-2", USER, read_only=True, ips=["127.0.0.1"])
        accounts = AccountStore.open(
            Secret(stack.environ["DATABASE_URL"]), (Secret(stack.environ["CREDENTIALS_KEYS"]),), SystemClock()
        )
        accounts.add_user("mighty", Secret("password-89"), USER)
        accounts.set_key(USER, "mighty-key-00089", Secret("secret-1"))
        accounts.close()

        phones = [PythonPhone(stack.url, stack.token(user)) for user in (USER, 1)]
        for phone in phones:
            phone.emit("subscribe_trading", {"types": ["balance"]})
        told = phones[0].wait_for("account_health", timeout_s=20)
        assert set(told) == FIELDS
        assert (told["user_id"], told["state"], told["read_only"], told["ip_bound"]) == (USER, "critical", False, False)
        assert {"key_can_trade", "key_can_withdraw"} < {problem["code"] for problem in told["problems"]}

        phones.append(PythonPhone(stack.url, stack.token(USER)))
        assert phones[2].wait_for("account_health") == told, "without a subscription, on any worker"
        assert next(event.name for event in phones[2].told if event.kind == "event") == "connected"

        put_key(stack, "gentle-key-00089", "secret-2")
        for phone in (phones[0], phones[2]):
            assert phone.wait_for("account_health", 2) == {
                "user_id": USER, "state": "ok", "problems": [], "expires_at": None, "days_left": None,
                "read_only": True, "ip_bound": True, "checked_at": phone.events("account_health")[1]["checked_at"],
            }  # fmt: skip
        assert phones[1].events("account_health") == []
        assert not [leak for leak in ("mighty-key", "gentle-key", "secret-") if leak in str(phones[0].told)]
    finally:
        for phone in phones:
            phone.close()
        stack.stop()
