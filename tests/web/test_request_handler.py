"""The request handler on real sockets: deadlines, refusals, upgrades, and what is left in the log."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import websocket

from tests.system.harness import wait_until
from tests.web.gunicorns import Gunicorn, read_all

CANARY = "c4n4ryT0k3n"
KEY = base64.b64encode(b"0123456789abcdef").decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    gunicorn = Gunicorn(tmp_path_factory.mktemp("gunicorn"), LOG_LEVEL="debug")
    yield gunicorn
    assert gunicorn.process.stop() == 0


def upgrade(
    target: str = "/socket.io/?EIO=4&transport=websocket", first: str = "GET {} HTTP/1.1", **headers: str | None
) -> bytes:
    lines = {
        "Host": "a", "Upgrade": "websocket", "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY,
    } | {name.replace("_", "-"): value for name, value in headers.items()}  # fmt: skip
    text = [first.format(target), *(f"{name}: {value}" for name, value in lines.items() if value is not None)]
    return ("\r\n".join(text) + "\r\n\r\n").encode()


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def receive_until(sock: socket.socket, ending: bytes) -> bytes:
    answer = b""
    while not answer.endswith(ending):
        data = sock.recv(65_536)
        assert data, f"closed after {answer!r}"
        answer += data
    return answer


def test_a_kept_connection_serves_one_request_after_another(server: Gunicorn) -> None:
    with server.connect() as sock:
        for word in (b"one", b"two"):
            sock.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n" + word)
            receive_until(sock, b"/x " + word)


def test_a_client_may_ask_before_it_sends_its_body(server: Gunicorn) -> None:
    with server.connect() as sock:
        sock.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert receive_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        receive_until(sock, b"/x abc")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n", (414, "request_line_too_long")),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 70 + b"\r\n", (431, "headers_too_large")),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", (400, "bad_request")),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, "bad_request")),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\nabcde", (400, "bad_request")),
        (b"POST / HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000, (413, "body_too_large")),
        (b"GET / HTTP/0.9\r\n\r\n", (400, "bad_request")),
        (b"GET /socket.io/../ HTTP/1.1\r\n\r\n", (404, "not_found")),
    ],
    ids=["B05-line", "B05-headers", "B06-two-lengths", "B06-both", "B06-xchunked", "B08-body", "B07-0.9", "B09-dots"],
)
def test_B05_B09_a_refused_request_is_answered_and_the_connection_closed(
    server: Gunicorn, raw: bytes, expected: tuple[int, str]
) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = server.ask(raw + smuggled)
    assert error_of(answer) == expected
    assert b"Connection: close" in answer
    assert b"/smuggled" not in answer, "a second request was read from what followed a refused one"


SLOW_STARTS = {
    "silence": b"",
    "half-line": b"GET / HT",
    "half-headers": b"GET / HTTP/1.1\r\nHost: a\r\nX-Slo",
    "half-body": b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
}


def timed(ask: Callable[[], bytes]) -> tuple[float, bytes]:
    began = time.monotonic()
    answer = ask()
    return time.monotonic() - began, answer


def ask_byte_by_byte(server: Gunicorn) -> bytes:
    """Send a byte each half second until the server has had enough."""
    with server.connect(0.5) as sock:
        for _ in range(30):
            try:
                sock.sendall(b"G")
                return sock.recv(1_000)
            except TimeoutError:
                continue
    return b"never closed"


def ask_once_and_wait(server: Gunicorn) -> bytes:
    with server.connect(20) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" in receive_until(sock, b" / ")
        return read_all(sock)


@pytest.fixture(scope="module")
def slow_clients(server: Gunicorn) -> Iterator[dict[str, Future[tuple[float, bytes]]]]:
    """All of them at the same time, or their waiting would add up."""
    with ThreadPoolExecutor(8) as pool:
        waiting = {name: pool.submit(timed, partial(server.ask, start)) for name, start in SLOW_STARTS.items()}
        waiting["byte-by-byte"] = pool.submit(timed, partial(ask_byte_by_byte, server))
        waiting["idle"] = pool.submit(timed, partial(ask_once_and_wait, server))
        yield waiting


@pytest.mark.parametrize("client", [*SLOW_STARTS, "byte-by-byte"])
def test_B04_B08_a_slow_request_is_closed_in_five_seconds(
    slow_clients: dict[str, Future[tuple[float, bytes]]], client: str
) -> None:
    seconds, answer = slow_clients[client].result()
    assert 4 < seconds < 7
    assert error_of(answer) == (408, "request_timeout")


def test_B04_an_idle_connection_is_closed_in_fifteen_seconds(
    slow_clients: dict[str, Future[tuple[float, bytes]]],
) -> None:
    seconds, answer = slow_clients["idle"].result()
    assert 13 < seconds < 18
    assert answer == b""


def test_B04_while_slow_clients_hang_on_others_are_served_at_once(server: Gunicorn) -> None:
    slow = [server.connect() for _ in range(200)]
    try:
        for sock in slow:
            sock.sendall(b"GET / HTTP/1.1\r\nX")
        began = time.monotonic()
        assert server.answers()
        assert time.monotonic() - began < 1
    finally:
        for sock in slow:
            sock.close()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (upgrade(first="GET {} HTTP/1.0"), (400, "bad_upgrade")),
        (upgrade(first="POST {} HTTP/1.1"), (400, "bad_upgrade")),
        (upgrade(Connection="close"), (400, "bad_upgrade")),
        (upgrade(Sec_WebSocket_Version="8"), (426, "websocket_version")),
        (upgrade(Sec_WebSocket_Version="7"), (426, "websocket_version")),
        (upgrade(Sec_WebSocket_Version="99"), (426, "websocket_version")),
        (upgrade(Sec_WebSocket_Version=None), (426, "websocket_version")),
        (upgrade(Sec_WebSocket_Key=None), (400, "bad_upgrade")),
        (upgrade(Sec_WebSocket_Key="abc"), (400, "bad_upgrade")),
        (upgrade(Sec_WebSocket_Key="!" * 24), (400, "bad_upgrade")),
        (upgrade("/socket.io/?EIO=3&transport=websocket"), (400, "bad_upgrade")),
        (upgrade("/socket.io/?transport=websocket"), (400, "bad_upgrade")),
        (upgrade("/socket.io/?EIO=4&EIO=3&transport=websocket"), (400, "bad_upgrade")),
        (upgrade("/socket.io/?EIO=4&transport=polling"), (400, "bad_upgrade")),
        (upgrade("/socket.io/?EIO=4&transport=" + "x&" * 300), (400, "bad_upgrade")),
        (upgrade("/healthz?EIO=4&transport=websocket"), (404, "not_found")),
    ],
)
def test_B07_an_upgrade_that_cannot_work_gets_a_4xx_that_names_the_mistake(
    server: Gunicorn, raw: bytes, expected: tuple[int, str]
) -> None:
    answer = server.ask(raw)
    assert error_of(answer) == expected
    assert b"Sec-WebSocket-Version: 13" in answer


def test_a_websocket_works_and_ends_without_a_trace(server: Gunicorn) -> None:
    client = websocket.create_connection(f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket")
    client.send("hello")
    assert client.recv() == "hello"
    client.close()
    assert "Traceback" not in server.log()


def test_B11_the_token_of_a_request_is_in_no_log_whatever_becomes_of_it(server: Gunicorn) -> None:
    for target in (
        f"/?token={CANARY}",
        f"/socket.io/?EIO=3&token={CANARY}",
        f"/fail?token={CANARY}",
        f"/a b?token={CANARY}",
    ):
        server.ask(f"GET {target} HTTP/1.1\r\nAuthorization: Bearer {CANARY}\r\nConnection: close\r\n\r\n".encode())
    server.ask(upgrade(f"/socket.io/?EIO=3&transport=websocket&token={CANARY}"))

    def connected_and_told() -> bool:
        url = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket&token={CANARY}"
        websocket.create_connection(url, header=[f"Authorization: Bearer {CANARY}"]).close()
        return "/socket.io/?EIO=4&transport=websocket&token=***" in server.log()

    # Again and again, because lines of one kind are limited to ten a second.
    wait_until(connected_and_told, 5, "the request's line")
    assert CANARY not in server.log()


def test_B10_an_exception_of_the_application_is_one_line_and_a_500(server: Gunicorn) -> None:
    assert b" 500 " in server.ask(b"GET /fail?x HTTP/1.1\r\nConnection: close\r\n\r\n")
    wait_until(lambda: "a request failed: GET /fail?x" in server.log(), 5, "its line in the log")
    line = next(line for line in server.log().splitlines() if "a request failed: GET /fail?x" in line)
    assert line.endswith('"') and "ValueError" in line


def test_B11_an_exception_of_a_greenlet_is_one_masked_line(server: Gunicorn) -> None:
    assert b"200 OK" in server.ask(b"GET /greenlet-fail HTTP/1.1\r\nConnection: close\r\n\r\n")
    wait_until(lambda: "a greenlet failed" in server.log(), 5, "its line in the log")
    line = next(line for line in server.log().splitlines() if "a greenlet failed" in line)
    assert "KeyError" in line
    assert "Bearer c4n4ry" not in server.log().replace('lambda: {}[\\"Bearer c4n4ry\\"]', "")


def test_refused_requests_are_counted_by_their_code(server: Gunicorn) -> None:
    series = 'push_http_requests_refused_total{code="request_line_too_long"}'
    before = server.metric(series)
    server.ask(b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n")
    assert server.metric(series) == before + 1


def test_several_websockets_of_a_unix_socket_end_in_peace(tmp_path: Path) -> None:
    server = Gunicorn(tmp_path, bind=f"unix:{tmp_path}/web.sock")
    try:
        clients = []
        for _ in range(3):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(f"{tmp_path}/web.sock")
            clients.append(
                websocket.create_connection("ws://localhost/socket.io/?EIO=4&transport=websocket", socket=sock)
            )
        for client in clients:
            client.send("x")
            assert client.recv() == "x"
        for client in clients:
            client.close()
        assert server.answers()
        assert "Error" not in server.log()
    finally:
        assert server.process.stop() == 0
