"""The intake hands everything over in order, wakes up rarely while messages come fast, and sees every end."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pushserver.bus import intake as module
from pushserver.bus.intake import Intake
from pushserver.clock import SystemClock

CHANNEL = b"push:{4}:pnl"


def smessage(payload: bytes, channel: bytes = CHANNEL) -> bytes:
    return b"*3\r\n$8\r\nsmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(channel), channel, len(payload), payload)


class Wire:
    """Redis's end and ours; ``heard`` is what came as a message."""

    def __init__(self) -> None:
        self.ours, self.redis = gevent.socket.socketpair()
        self.heard: list[bytes] = []
        self.intake = self.listen(self.ours)

    def listen(self, stream: Any) -> Intake:
        return Intake(stream, {CHANNEL}, self.on_message, SystemClock())

    def on_message(self, channel: bytes, payload: bytes) -> None:
        assert channel == CHANNEL
        self.heard.append(payload)

    def wait_for(self, number: int) -> None:
        with gevent.Timeout(5):
            while len(self.heard) < number:
                gevent.sleep(0.001)

    def close(self) -> None:
        self.intake.close()
        self.ours.close()
        self.redis.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


def test_messages_and_other_replies_are_handed_over_in_order(wire: Wire) -> None:
    other = b"*3\r\n$10\r\nssubscribe\r\n$1\r\nx\r\n:1\r\n"
    stream = b"".join([smessage(b"1"), other, smessage(b"2"), smessage(b"left", b"elsewhere"), smessage(b"3")])
    for start in range(0, len(stream), 7):
        wire.redis.sendall(stream[start : start + 7])
        gevent.sleep(0)
    wire.wait_for(3)
    assert wire.heard == [b"1", b"2", b"3"]
    assert wire.intake.next_reply() == [b"ssubscribe", b"x", 1]
    assert wire.intake.next_reply() == [b"smessage", b"elsewhere", b"left"]


def test_a_message_that_comes_alone_is_not_held_back(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COLLECT_S", 60.0)
    slow = Wire()
    # The first turn of a new intake is a timer's; from then on the loop watches the socket.
    slow.intake._after_collecting()
    slow.redis.sendall(smessage(b"alone"))
    slow.wait_for(1)
    slow.close()


def test_messages_that_come_fast_are_collected(wire: Wire) -> None:
    takes = []
    take = wire.intake._take
    wire.intake._take = lambda: takes.append(0) or take()  # type: ignore[method-assign, func-returns-value]
    gevent.sleep(2 * module.COLLECT_S)
    takes.clear()
    for number in range(100):
        wire.redis.sendall(smessage(b"%d" % number))
        gevent.sleep(0.0005)
    wire.wait_for(100)
    assert wire.heard == [b"%d" % number for number in range(100)]
    assert len(takes) < 60


def test_the_end_of_the_connection_is_raised_after_what_came_before_it(wire: Wire) -> None:
    wire.redis.sendall(b"+OK\r\n" + smessage(b"last"))
    wire.redis.close()
    assert wire.intake.next_reply() == b"OK"
    with pytest.raises(ConnectionError, match="closed by Redis"):
        wire.intake.next_reply()
    assert wire.heard == [b"last"]


def test_whoever_shuts_the_connection_down_ends_the_intake_and_frees_its_descriptor(wire: Wire) -> None:
    def read() -> None:
        with pytest.raises(OSError):
            wire.intake.next_reply()

    descriptors = open_descriptors()
    reader = gevent.spawn(read)
    gevent.sleep(0)
    wire.ours.shutdown(gevent.socket.SHUT_RDWR)
    wire.ours.close()
    reader.get(timeout=5)
    assert open_descriptors() == descriptors - 2


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_the_handler_raises_comes_out_where_replies_are_awaited_and_nothing_more_is_read(wire: Wire) -> None:
    def stumble(channel: bytes, payload: bytes) -> None:
        wire.heard.append(payload)
        raise RuntimeError("stumbled")

    wire.intake._on_message = stumble
    wire.redis.sendall(smessage(b"1") + smessage(b"2"))
    with pytest.raises(RuntimeError, match="stumbled"):
        wire.intake.next_reply()
    wire.redis.sendall(smessage(b"3"))
    gevent.sleep(0.05)
    assert wire.heard == [b"1"]


def test_what_is_no_redis_protocol_ends_the_intake(wire: Wire) -> None:
    wire.redis.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(Exception, match="Protocol error"):
        wire.intake.next_reply()


def test_a_tls_connection_is_read_to_the_last_byte_it_holds(wire: Wire, tmp_path: Path) -> None:
    server, client = certified(tmp_path)
    ours, redis = gevent.socket.socketpair()
    handshake = gevent.spawn(server.wrap_socket, redis, server_side=True)
    secured = client.wrap_socket(ours, server_hostname="redis")
    redis_end = handshake.get(timeout=5)
    intake = wire.listen(secured)
    big = b"x" * 200_000
    for _ in range(3):
        wire.heard.clear()
        redis_end.sendall(smessage(b"1") + smessage(big) + smessage(b"2"))
        wire.wait_for(3)
        assert wire.heard == [b"1", big, b"2"]
    intake.close()
    secured.close()
    redis_end.close()


def certified(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("redis")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "redis.pem").write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    server = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "redis.pem")
    client = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
    return server, client
