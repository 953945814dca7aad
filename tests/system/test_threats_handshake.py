"""Handshakes, origins and slow starts of hostile clients, on real workers (section B of the threat table)."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system.harness import Stack, wait_until
from tests.system.raw_client import RawClient
from tests.system.wire import CLOSE, PING, TEXT, Wire, frame, header, text

pytestmark = pytest.mark.system

#: Bidi marks, escapes and line ends that must not reach a log as they are.
NASTY = "a\r\nFORGED LINE\x1b[31m\u202e\u2066\x00\x85\u2028b"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("handshake")
    environ = {"CORS_ORIGINS": "https://app.example", "SIGN_IN_S": "3", "REQUEST_HEAD_S": "2"}
    stack = Stack(folder, users=0, web_workers=2, push_workers=0, environ=environ).start()
    yield stack
    stack.stop()


@pytest.fixture(scope="module", params=["one-worker", "two-workers"])
def crew(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of one worker, and the one of two."""
    if request.param == "two-workers":
        yield request.getfixturevalue("stack")
        return
    stack = Stack(tmp_path_factory.mktemp("lone"), users=0, web_workers=1, push_workers=0).start()
    yield stack
    stack.stop()


def refused(stack: Stack, code: str) -> float:
    """How many requests were refused with that code, all workers together."""
    series = f'push_http_requests_refused_total{{code="{code}"}}'
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.web_metrics_port}/metrics", timeout=5) as answer:
        found = re.search(rf"^{re.escape(series)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
        "https://evilapp.example",
        "https://evil.example/https://app.example",
        "http://app.example",
        "https://app.example:444",
        "https://app.example.",
        "HTTPS://APP.EXAMPLE@evil.example",
        "",
        "http://127.0.0.1",
        "https://{own}",
        "http://{own}.evil.example",
    ],
)
def test_B01_a_page_of_another_site_hears_nothing_and_is_counted(stack, origin):
    before = refused(stack, "origin_not_allowed")
    wire = Wire(stack.web_port)
    wire.upgrade("Origin: " + origin.replace("{own}", f"127.0.0.1:{stack.web_port}"))
    wire.socket.settimeout(1.0)
    assert [frame for frame in wire.read_to_the_end() if frame.opcode != CLOSE] == []
    wire.close()
    wait_until(lambda: refused(stack, "origin_not_allowed") == before + 1, 5, "the count")


@pytest.mark.parametrize("origin", ["https://app.example", "http://{own}", None])
def test_B01_listed_pages_our_own_page_and_apps_without_an_origin_connect(stack, origin):
    wire = Wire(stack.web_port)
    own = f"127.0.0.1:{stack.web_port}"
    wire.sign_in(stack.token(4), *([f"Origin: {origin.replace('{own}', own)}"] if origin else []))
    wire.close()


def test_B03_forged_headers_do_not_make_another_site_our_own(stack):
    forged = ["X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Forwarded: host=evil.example"]
    wire = Wire(stack.web_port)
    wire.upgrade("Origin: https://evil.example", *forged)
    assert [frame for frame in wire.read_to_the_end() if frame.opcode != CLOSE] == []
    wire.close()


def test_B01_no_cookie_ever_authenticates(stack):
    token = stack.token(4)
    cookies = f"Cookie: token={token}; access_token={token}; Authorization=Bearer {token}; session={token}"
    client = RawClient(stack.url, header=[cookies])
    assert '"token_missing"' in client.connect()


@pytest.mark.parametrize(
    ("path", "status", "code", "says"),
    [
        ("/socket.io/?EIO=4&transport=polling", 400, "transport_not_supported", "forceWebsockets"),
        ("/socket.io/?EIO=4", 400, "transport_not_supported", "share no sessions"),
        ("/socket.io/?EIO=3&transport=polling", 400, "transport_not_supported", "WebSocket only"),
        ("/socket.io/?EIO=4&transport=carrier-pigeon", 400, "transport_not_supported", "WebSocket only"),
        ("/socket.io/?EIO=4&transport=websocket", 400, "transport_not_supported", "transports: ['websocket']"),
    ],
)
def test_B07_whoever_does_not_ask_for_a_websocket_hears_why_that_is_needed(crew, path, status, code, says):
    before = refused(crew, code)
    for method in ("GET", "POST"):
        connection = http.client.HTTPConnection("127.0.0.1", crew.web_port, timeout=5)
        connection.request(method, path, body=b"40" if method == "POST" else None)
        response = connection.getresponse()
        error = json.loads(response.read())["error"]
        assert (response.status, error["code"]) == (status, code)
        assert says in error["message"]
        connection.close()
    wait_until(lambda: refused(crew, code) == before + 2, 5, "the count")


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("EIO=3&transport=websocket", [], 400, "bad_upgrade"),
        ("transport=websocket", [], 400, "bad_upgrade"),
        ("EIO=4&transport=polling", [], 400, "bad_upgrade"),
        ("EIO=4&EIO=3&transport=websocket", [], 400, "bad_upgrade"),
        ("EIO=4&transport=websocket", ["Sec-WebSocket-Version: 8"], 426, "websocket_version"),
        ("EIO=4&transport=websocket", ["Sec-WebSocket-Key: c2hvcnQ="], 400, "bad_upgrade"),
    ],
)
def test_B07_an_upgrade_that_cannot_work_gets_a_4xx_and_is_counted(stack, query, headers, status, code):
    before = refused(stack, code)
    wire = Wire(stack.web_port)
    assert wire.upgrade(*headers, query=query) == status
    wire.close()
    wait_until(lambda: refused(stack, code) == before + 1, 5, "the count")


def ended_after_s(wire: Wire, keep_busy: bytes = b"") -> float:
    """How long the server keeps the connection."""
    started = time.monotonic()
    wire.socket.settimeout(0.2)
    while time.monotonic() - started < 8:
        try:
            if keep_busy:
                wire.send(keep_busy)
            if not wire.socket.recv(4_096):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - started


def silent_after_upgrade(stack: Stack, keep_busy: bytes = b"", first: bytes = b"") -> float:
    wire = Wire(stack.web_port)
    assert wire.upgrade() == 101
    wire.send(first)
    seconds = ended_after_s(wire, keep_busy)
    wire.close()
    return seconds


def silent_after_a_slow_head(stack: Stack) -> float:
    """Counted from the first moment, not from the answer to the upgrade."""
    wire = Wire(stack.web_port)
    started = time.monotonic()
    wire.send(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nUpgrade: web")
    while time.monotonic() - started < 1.6:
        time.sleep(0.1)
    wire.send(b"socket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n")
    wire.send(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
    assert wire.status() == 101
    ended_after_s(wire)
    wire.close()
    return time.monotonic() - started


def test_B04_E06_who_never_signs_in_is_closed_within_the_deadline_and_counted(stack):
    before = refused_connections(stack, "never_signed_in")
    with ThreadPoolExecutor(5) as pool:
        ended = {
            "silent": pool.submit(silent_after_upgrade, stack),
            "pongs": pool.submit(silent_after_upgrade, stack, text("3")),
            "pings": pool.submit(silent_after_upgrade, stack, frame(PING)),
            "byte by byte": pool.submit(silent_after_upgrade, stack, b"x", header(TEXT, 1_000) + b"mask"),
            "slow head": pool.submit(silent_after_a_slow_head, stack),
        }
        seconds = {name: future.result() for name, future in ended.items()}
    assert all(2 < each < 4.3 for each in seconds.values()), seconds
    wait_until(lambda: refused_connections(stack, "never_signed_in") == before + 5, 5, "the count")


def refused_connections(stack: Stack, code: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.web_metrics_port}/metrics", timeout=5) as answer:
        found = re.search(rf'push_connections_refused_total{{code="{code}"}} (\S+)', answer.read().decode())
    return float(found[1]) if found else 0.0


def test_B10_nothing_that_is_sent_breaks_or_colours_a_log_line(stack):
    for path in ("/%0d%0aFORGED%20LINE%1b[31m%00", "/%E2%80%AE?token=%0a%1b[31m", "/socket.io/?EIO=%0aFORGED%20LINE"):
        connection = http.client.HTTPConnection("127.0.0.1", stack.web_port, timeout=5)
        connection.request("GET", path, headers={"User-Agent": "x\tFORGED", "X-Forwarded-For": "1\t2"})
        connection.getresponse().read()
        connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", stack.web_port, timeout=5)
    body = json.dumps({"username": NASTY, "password": NASTY})
    connection.request("POST", "/api/auth/login", body=body, headers={"Content-Type": "application/json"})
    assert connection.getresponse().status in (400, 401, 503)
    connection.close()
    client = RawClient(stack.url)
    assert client.connect({"token": stack.token(4)}).startswith("40")
    client.send("42" + json.dumps([NASTY, NASTY]))
    assert client.event("error")["code"] == "unknown_event"
    client.call("subscribe_trading", {"types": [NASTY]})
    client.close()
    refused_client = RawClient(stack.url)
    assert refused_client.connect({"token": NASTY}).startswith("44")
    log = stack.web.log()
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", log) == []
    assert [line for line in log.splitlines() if not re.match(r"\d{4}-\d\d-\d\d", line)] == []
