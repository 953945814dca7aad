"""The proxy does to bytes what it is told, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.system.harness import wait_until
from tests.system.proxy import Direction, Proxy

pytestmark = pytest.mark.system


class Echo:
    """Sends back what it gets, and keeps the sizes of its reads."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.reads: list[int] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(65_536):
                self.reads.append(len(data))
                connection.sendall(data)
        except OSError:
            pass
        connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def echoed(client: socket.socket, data: bytes) -> float:
    """How long ``data`` took there and back."""
    started_s = time.monotonic()
    client.sendall(data)
    back = b""
    while len(back) < len(data):
        piece = client.recv(65_536)
        assert piece
        back += piece
    assert back == data
    return time.monotonic() - started_s


def test_bytes_pass_unchanged_and_an_end_of_stream_too(proxy):
    client = connect(proxy)
    echoed(client, bytes(range(256)) * 4000)
    client.shutdown(socket.SHUT_WR)
    assert client.recv(10) == b""
    wait_until(lambda: not proxy.links, 5, "the link to be forgotten")


def test_latency_delays_each_direction(proxy):
    client = connect(proxy)
    proxy.latency(0.2)
    assert 0.4 <= echoed(client, b"hello") < 2
    proxy.passes()
    assert echoed(client, b"hello") < 0.2


def test_bandwidth_spreads_bytes_over_time(proxy):
    proxy.bandwidth(20_000, Direction.TO_CLIENT)
    assert 0.4 <= echoed(connect(proxy), b"x" * 10_000) < 3


def test_the_slicer_writes_single_bytes(proxy, echo):
    proxy.slicer(1, Direction.TO_SERVER, pause_s=0.001)
    echoed(connect(proxy), b"x" * 300)
    assert len(echo.reads) > 100


def test_timeout_swallows_and_stays_open(proxy, echo):
    client = connect(proxy)
    echoed(client, b"before")
    proxy.timeout(Direction.TO_SERVER)
    client.sendall(b"lost")
    time.sleep(0.2)
    proxy.passes()
    echoed(client, b"after")
    assert sum(echo.reads) == len(b"beforeafter")


def test_held_bytes_come_later(proxy):
    client = connect(proxy)
    proxy.hold()
    client.sendall(b"wait")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(10)
    proxy.passes()
    client.settimeout(5)
    assert client.recv(10) == b"wait"


def test_reset_resets_and_takes_new_connections(proxy):
    client = connect(proxy)
    echoed(client, b"x")
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    echoed(connect(proxy), b"x")


def test_down_refuses_and_up_listens_on_the_same_port(proxy):
    client = connect(proxy)
    echoed(client, b"x")
    proxy.down()
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.up()
    echoed(connect(proxy), b"x")


def test_the_limit_ends_a_connection(proxy):
    proxy.limit(100, Direction.TO_CLIENT)
    client = connect(proxy)
    client.sendall(b"x" * 500)
    got = 0
    while data := client.recv(1000):
        got += len(data)
    assert got == 100


def test_only_the_links_that_are_meant_are_affected(proxy):
    proxy.affects = lambda link: b"SUBSCRIBE" in link.first_bytes
    subscriber, other = connect(proxy), connect(proxy)
    echoed(subscriber, b"SUBSCRIBE")
    echoed(other, b"GET")
    proxy.timeout()
    echoed(other, b"GET")
    subscriber.sendall(b"x")
    subscriber.settimeout(0.2)
    with pytest.raises(TimeoutError):
        subscriber.recv(10)
    assert proxy.reset() == 1
    echoed(other, b"GET")
