"""The console in a real browser: log in, see the account move, survive a killed web worker."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import socketio

from pushserver.bus.connection import connect
from pushserver.bus.health import HealthStore
from pushserver.exchange_sim.client import SimControl
from pushserver.feeds.key_health import health_of
from pushserver.model import Secret
from tests.conftest import require
from tests.system.harness import Stack, wait_until

pytestmark = [pytest.mark.system, pytest.mark.browser]

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 780}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("console"), users=2).start()
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require(CHROMIUM.exists(), "Debian's chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page of its own; whatever the browser complains about fails the test."""
    options = getattr(request, "param", {"viewport": DESKTOP})
    context = browser.new_context(**options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert complaints == []


def log_in(page: Any, stack: Stack, number: int = 1) -> None:
    page.goto(stack.url)
    page.fill("#username", f"user{number}")
    page.fill("#password", f"password-{number}")
    page.click("#login-button")
    page.wait_for_selector("#connection[data-state=connected]")
    # Not wait_for_function: it evaluates text, which the page's security policy forbids.
    wait_until(lambda: page.locator(".badge[data-state=live]").count() == 4, 20, "four live types")


def shown_balance(page: Any) -> Decimal:
    return Decimal(page.inner_text("[data-field=total_balance]").replace(",", ""))


def shows_the_exchanges_balance(page: Any, exchange: SimControl, user: int = 1) -> bool:
    truth = Decimal(exchange.figures(user)["balance"]["total_balance"])
    return abs(shown_balance(page) - truth) < Decimal("0.006")


def test_a_user_logs_in_and_sees_the_balance_change(stack, page):
    exchange = SimControl(stack.exchange_url)
    log_in(page, stack)
    wait_until(lambda: shows_the_exchanges_balance(page, exchange), 10, "the balance")
    before = shown_balance(page)
    exchange.set_wallet(1, USDT=str(before + 1234))
    wait_until(lambda: shown_balance(page) != before, 10, "another balance")
    wait_until(lambda: shows_the_exchanges_balance(page, exchange), 10, "the new balance")
    assert page.inner_text("#user-id").endswith("1")
    assert page.inner_text("[data-type=balance] .card-foot").count("Seq") == 1
    assert "balance_update" in page.inner_text("#journal")


def test_it_tells_what_is_wrong_with_the_exchange_key_until_that_is_over(stack, page):
    health = HealthStore(connect(Secret(stack.redis_url)))
    mighty = {"readOnly": 0, "permissions": {"Wallet": ["Withdraw"]}}
    health.record(1, 7, health_of(mighty, 0), 0)
    log_in(page, stack)
    page.wait_for_selector("#key-health[data-state=critical]")
    assert "can withdraw" in page.inner_text("#key-health")
    health.record(1, 8, health_of({**mighty, "readOnly": 1}, 0), 0)
    page.wait_for_selector("#key-health", state="hidden")


def test_it_survives_the_web_worker_it_is_connected_to(stack, page):
    exchange = SimControl(stack.exchange_url)
    log_in(page, stack, 2)
    for step, pid in enumerate(stack.web.children(), 1):
        os.kill(pid, signal.SIGKILL)
        exchange.set_wallet(2, USDT=str(7_000 + 10 * step))
        wait_until(lambda: shows_the_exchanges_balance(page, exchange, 2), 20, "the balance after the kill")
        page.wait_for_selector("#connection[data-state=connected]", timeout=20_000)
        wait_until(lambda: len(stack.web.children()) == 2, 20, "gunicorn to replace the worker")


def test_a_wrong_password_is_told_and_leaves_the_form(stack, page):
    page.goto(stack.url)
    page.fill("#username", "user1")
    page.fill("#password", "wrong-password")
    page.click("#login-button")
    wait_until(lambda: page.inner_text("#login-error"), 10, "the error")
    assert page.is_visible("#login-form")


def test_types_can_be_left_and_taken_again_and_a_logout_ends_it(stack, page):
    log_in(page, stack)
    switch = page.locator("[data-type=orders] .switch")
    switch.click()
    wait_until(lambda: "unsubscribed" in page.inner_text("#journal"), 10, "unsubscribed")
    switch.click()
    page.wait_for_selector("[data-type=orders] .badge[data-state=live]")
    page.click("#logout")
    page.wait_for_selector("#login-form", state="visible")


@pytest.mark.parametrize(
    "page",
    [{"viewport": size, "color_scheme": scheme} for size in (DESKTOP, PHONE) for scheme in ("light", "dark")],
    indirect=True,
    ids=["desktop-light", "desktop-dark", "phone-light", "phone-dark"],
)
def test_it_fits_every_width_and_scheme(stack, page, request):
    log_in(page, stack)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(244, 245, 247)"
    assert dark == request.node.name.endswith("dark]")
    if os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{os.environ['SCREENSHOTS']}/{request.node.name}.png", full_page=True)


def test_F07_what_an_update_says_is_text_and_never_markup(stack, page):
    log_in(page, stack)
    hostile = "<img src=x onerror=alert(1)>"
    row = {"symbol": hostile, "side": hostile, "size": 1, "entry_price": 1, "mark_price": 1, "unrealized_pnl": 0}
    update = {"type": "positions_update", "data": [row], "timestamp": "2026-01-01T00:00:00", "user_id": 1}
    emitter = socketio.RedisManager(stack.redis_url, channel="pushserver", write_only=True)
    emitter.emit("positions_update", {**update, "seq": 2**52, "as_of": 2**41}, room="positions_1")
    wait_until(lambda: hostile in page.inner_text("[data-type=positions]"), 10, "the hostile symbol")
    assert page.locator("[data-type=positions] img").count() == 0


def give_token(page: Any, token: str, ttl_s: int) -> None:
    """Let the login answer with a token of the test's own."""
    answer = {"token": token, "token_type": "Bearer", "expires_in": ttl_s, "user_id": 1}
    page.route("**/api/auth/login", lambda route: route.fulfill(json=answer))


def test_a_token_that_runs_out_is_replaced_without_losing_the_connection(stack, page):
    give_token(page, stack.token(1, ttl_s=63), 63)  # the server warns 60 s ahead
    log_in(page, stack)
    assert "min" not in page.inner_text("#token-expiry")
    wait_until(lambda: page.inner_text("#token-expiry").endswith("min"), 20, "an hour's token")
    journal = page.inner_text("#journal")
    assert "token_expiring" in journal and "new token" in journal
    assert page.get_attribute("#connection", "data-state") == "connected"
    assert "reconnecting" not in journal


def test_a_session_that_was_ended_elsewhere_comes_back_to_the_login(stack, page):
    token = stack.token(1)
    give_token(page, token, 3600)
    log_in(page, stack)
    request = urllib.request.Request(
        f"{stack.url}/api/auth/logout", method="POST", headers={"Authorization": f"Bearer {token}"}
    )
    urllib.request.urlopen(request, timeout=10).close()
    page.wait_for_selector("#login-form", state="visible", timeout=20_000)
    assert "Your session was ended" in page.inner_text("#login-error")


def test_a_busy_server_is_asked_again_after_a_while(stack, page):
    refusals = ["server_busy", "too_many_connections"]

    def serve(socket: Any) -> None:
        if not refusals:
            socket.connect_to_server()
            return
        code = refusals.pop(0)
        socket.on_message(
            lambda _: socket.send(f'44{{"message":"{code}","data":{{"code":"{code}","message":"Come back later."}}}}')
        )
        socket.send('0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":65536}')

    page.route_web_socket("**/socket.io/**", serve)
    log_in(page, stack)
    journal = page.inner_text("#journal")
    assert journal.count("refused") == 2 and "Come back later." in journal
    assert refusals == []


def test_a_state_older_than_the_one_shown_is_dropped(stack, page):
    log_in(page, stack)
    before = shown_balance(page)
    data = {"total_balance": 1, "available_balance": 1, "used_margin": 0}
    emitter = socketio.RedisManager(stack.redis_url, channel="pushserver", write_only=True)
    emitter.emit("balance_update", {"type": "balance_update", "data": data, "seq": 1, "as_of": 1}, room="balance_1")
    wait_until(lambda: "older than shown, dropped" in page.inner_text("#journal"), 10, "the drop to be told")
    assert shown_balance(page) == before


def test_the_server_says_who_is_connected(stack, page):
    log_in(page, stack)
    page.click("#whoami")
    wait_until(lambda: "Worker" in page.inner_text("#whoami-answer"), 10, "the answer")
    answer = page.inner_text("#whoami-answer")
    for word in ("balance", "positions", "pnl", "orders"):
        assert word in answer.lower()
    if os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{os.environ['SCREENSHOTS']}/whoami.png")
    page.keyboard.press("Escape")
    page.wait_for_selector("#whoami-dialog", state="hidden")
