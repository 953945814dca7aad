"""Several addresses towards the exchange: who leaves by which, and that each really leads out of its own."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import gevent
import gevent.socket
import pytest
from gevent.server import StreamServer
from hypothesis import given
from hypothesis import strategies as st

from pushserver.errors import ExchangeUnavailable
from pushserver.exchange.bybit import BybitExchange
from pushserver.exchange.egress import Egress, egress_of, egresses_of
from pushserver.model import Credentials, Proxy, Secret
from tests.exchange.stub import Stub, always, envelope, http

ACCOUNT = {"accountType": "UNIFIED", "totalEquity": "1", "coin": []}
THREE = egresses_of("here", [None, Proxy("10.0.0.1", 3128), Proxy("10.0.0.2", 3128, Secret("me:pass"))])


class ConnectProxy:
    """A small real HTTP proxy that takes CONNECT alone; ``login`` is what it demands."""

    def __init__(self, login: str | None = None) -> None:
        self.targets: list[str] = []
        self._login = login
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()

    def proxy(self, login: str | None = None) -> Proxy:
        return Proxy("127.0.0.1", self._server.server_port, None if login is None else Secret(login))

    def close(self) -> None:
        self._server.stop()

    def _serve(self, client: gevent.socket.socket, _: object) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        lines = head.decode().split("\r\n")
        wanted = f"Proxy-Authorization: Basic {base64.b64encode((self._login or '').encode()).decode()}"
        if self._login is not None and wanted not in lines:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        target = lines[0].split(" ")[1]
        self.targets.append(target)
        host, _, port = target.rpartition(":")
        server = gevent.socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        other_way = gevent.spawn(_pump, server, client)
        _pump(client, server)
        other_way.kill()


def _pump(source: gevent.socket.socket, sink: gevent.socket.socket) -> None:
    while data := source.recv(65_536):
        sink.sendall(data)


@pytest.fixture
def new_proxy() -> Iterator[Callable[..., ConnectProxy]]:
    made: list[ConnectProxy] = []

    def make(login: str | None = None) -> ConnectProxy:
        made.append(ConnectProxy(login))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def test_each_egress_has_a_budget_of_its_own_and_the_direct_one_is_named_after_the_host() -> None:
    assert [egress.name for egress in THREE] == ["here", "proxy-10.0.0.1:3128", "proxy-10.0.0.2:3128"]
    assert egresses_of("here", []) == (Egress("here"),)


def test_users_are_spread_evenly() -> None:
    users = Counter(egress_of(user_id, THREE) for user_id in range(1, 3001))
    assert len(users) == 3 and max(users.values()) / min(users.values()) < 1.2


@given(st.integers(1, 2**63 - 1))
def test_a_user_stays_when_another_egress_is_added(user_id: int) -> None:
    two = THREE[:2]
    before, now = two[egress_of(user_id, two)], THREE[egress_of(user_id, THREE)]
    assert now == before or now == THREE[2]


def test_requests_leave_through_their_proxy_and_keep_its_connection(
    stub: Stub,
    exchange_at: Callable[..., BybitExchange],
    credentials: Credentials,
    deadline_s: float,
    new_proxy: Callable[..., ConnectProxy],
) -> None:
    stub.handler = always(http(envelope({"list": [ACCOUNT]})))
    proxies = [new_proxy(), new_proxy("me:se cret")]
    for proxy, login in zip(proxies, (None, "me:se cret"), strict=True):
        with closing(exchange_at(stub.url, proxy=proxy.proxy(login))) as exchange:
            exchange.wallet(credentials, deadline_s)
            exchange.wallet(credentials, deadline_s)
    assert [len(proxy.targets) for proxy in proxies] == [1, 1]
    assert len(stub.requests) == 4


def test_a_proxy_that_refuses_is_told_without_its_password(
    stub: Stub,
    exchange_at: Callable[..., BybitExchange],
    credentials: Credentials,
    deadline_s: float,
    new_proxy: Callable[..., ConnectProxy],
) -> None:
    proxy = new_proxy("me:right").proxy("me:wrong-canary")
    with closing(exchange_at(stub.url, proxy=proxy)) as exchange, pytest.raises(ExchangeUnavailable) as caught:
        exchange.wallet(credentials, deadline_s)
    assert "canary" not in f"{caught.value} {caught.value!r} {proxy} {proxy!r}"
    assert stub.requests == []


def test_H09_proxies_of_the_environment_are_not_looked_at(
    stub: Stub,
    exchange: BybitExchange,
    credentials: Credentials,
    deadline_s: float,
    new_proxy: Callable[..., ConnectProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trap = new_proxy()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://{trap.proxy()}")
    stub.handler = always(http(envelope({"list": [ACCOUNT]})))
    exchange.wallet(credentials, deadline_s)
    assert trap.targets == []
