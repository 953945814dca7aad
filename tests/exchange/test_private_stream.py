"""A user's private stream against a server that does what exchanges do on bad days."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from pushserver.clock import ManualClock
from pushserver.exchange import stream_messages
from pushserver.exchange.private_stream import AUTH_VALID_MS, PING_EVERY_S, SILENT_AFTER_S, PrivateStream, StreamState
from pushserver.exchange.stream_messages import Happening, Reply, Topic
from pushserver.exchange.stream_socket import MAX_MESSAGE_BYTES, Loss, StreamLost
from pushserver.exchange.tunnels import open_socket
from pushserver.model import Credentials, Secret
from pushserver.observers import RecordingObserver
from pushserver.stream_records import StreamOddity
from tests.exchange.stream_stub import BINARY, CLOSE, PING, Message, Peer, StreamStub

EXCHANGE_NOW_MS = 1_767_225_600_000
KEY = Credentials("a-key", Secret("a-secret"), 3)
WALLET = {"id": "m1", "topic": "wallet", "creationTime": 1, "data": [{"accountType": "UNIFIED"}]}


def obliging(peer: Peer, message: Message) -> None:
    """Confirms whatever it is asked."""
    if message["op"] == "ping":
        peer.say({"op": "pong", "args": ["1"], "conn_id": "c"})
    else:
        peer.say({"success": True, "ret_msg": "", "op": message["op"], "conn_id": "c"})


class Subject:
    """A stream that is run, and what it told."""

    def __init__(self, url: str) -> None:
        self.clock = ManualClock()
        self.observer = RecordingObserver()
        self.happenings: list[Happening] = []
        self.went_live = 0
        self.stream = PrivateStream(
            url, open_socket, KEY, lambda: EXCHANGE_NOW_MS, self._live, self.happenings.append, self.clock,
            self.observer,
        )  # fmt: skip
        self.greenlet = gevent.spawn(self.stream.run)

    def _live(self) -> None:
        self.went_live += 1

    def loss(self) -> Loss:
        with gevent.Timeout(5, AssertionError(f"it goes on, {self.stream.state}")):
            self.greenlet.join()
        assert self.greenlet.exception is None
        assert self.stream.state is StreamState.OVER
        return Loss(self.greenlet.value)

    def until(self, condition: Callable[[], Any]) -> None:
        with gevent.Timeout(5, AssertionError("it never came to that")):
            while not condition():
                gevent.sleep(0.005)

    def pass_time(self, seconds: float) -> None:
        """As it passes: in steps of a second, each with a tick and time for the answers."""
        for _ in range(round(seconds)):
            self.clock.advance(1.0)
            self.stream.tick()
            gevent.sleep(0.002)

    def oddities(self) -> list[str]:
        return [record.kind for record in self.observer.records if isinstance(record, StreamOddity)]


@pytest.fixture
def stub() -> Iterator[StreamStub]:
    stub = StreamStub(obliging)
    yield stub
    stub.close()


@pytest.fixture
def begin() -> Iterator[Callable[[StreamStub], Subject]]:
    begun: list[Subject] = []

    def start(stub: StreamStub) -> Subject:
        begun.append(Subject(stub.url))
        return begun[-1]

    yield start
    for subject in begun:
        subject.greenlet.kill()


@pytest.fixture
def live(stub: StreamStub, begin: Callable[[StreamStub], Subject]) -> Subject:
    subject = begin(stub)
    subject.until(lambda: subject.stream.state is StreamState.LIVE)
    return subject


def test_it_authenticates_in_the_exchanges_time_then_subscribes_to_what_changes_an_account(
    stub: StreamStub, live: Subject
) -> None:
    auth, topics = stub.peer().heard
    key, expires, signature = auth["args"]
    assert (key, expires) == ("a-key", EXCHANGE_NOW_MS + AUTH_VALID_MS)
    assert signature == hmac.new(b"a-secret", f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
    assert topics["op"] == "subscribe"
    assert set(topics["args"]) == {"position", "order", "wallet", "execution"}
    assert live.went_live == 1


def test_what_happens_is_told_in_order(stub: StreamStub, live: Subject) -> None:
    stub.peer().say(WALLET)
    stub.peer().say({"topic": "position.linear", "data": [{"symbol": "BTCUSDT"}]})
    live.until(lambda: len(live.happenings) == 2)
    assert [happening.topic for happening in live.happenings] == [Topic.WALLET, Topic.POSITION]
    assert live.happenings[1].rows == ({"symbol": "BTCUSDT"},)


def test_H10_a_refused_key_ends_the_stream_with_the_exchanges_reason(
    stub: StreamStub, begin: Callable[[StreamStub], Subject]
) -> None:
    stub.on_message = lambda peer, message: peer.say({"success": False, "ret_msg": "Params Error", "op": "auth"})
    subject = begin(stub)
    assert subject.loss() is Loss.AUTH
    assert subject.stream.refusal == "Params Error"
    assert subject.went_live == 0
    assert len(stub.peers) == 1, "nothing is tried again here"


def test_H10_a_refused_subscription_ends_the_stream(stub: StreamStub, begin: Callable[[StreamStub], Subject]) -> None:
    stub.on_message = lambda peer, message: peer.say(
        {"success": message["op"] == "auth", "ret_msg": "error:topic", "op": message["op"]}
    )
    assert begin(stub).loss() is Loss.SUBSCRIPTION


@pytest.mark.parametrize("answered", ["auth", "nothing"])
def test_H10_a_request_that_is_never_answered_ends_the_stream(
    stub: StreamStub, begin: Callable[[StreamStub], Subject], answered: str
) -> None:
    stub.on_message = lambda peer, message: obliging(peer, message) if message["op"] == answered else None
    subject = begin(stub)
    subject.until(lambda: stub.peers and any(m["op"] in ("auth", "subscribe") for m in stub.peers[0].heard))
    subject.until(lambda: stub.peers[0].heard[-1]["op"] == ("subscribe" if answered == "auth" else "auth"))
    subject.pass_time(12)
    assert subject.loss() is Loss.UNANSWERED


def test_H10_a_silent_stream_ends_and_one_that_answers_pings_does_not(stub: StreamStub, live: Subject) -> None:
    live.pass_time(4 * PING_EVERY_S)
    assert live.stream.state is StreamState.LIVE
    assert sum(message["op"] == "ping" for message in stub.peer().heard) == 4
    stub.on_message = lambda peer, message: None
    live.pass_time(SILENT_AFTER_S - 1)
    assert live.stream.state is StreamState.LIVE
    live.pass_time(PING_EVERY_S)
    assert live.loss() is Loss.SILENT


def test_H10_a_repeated_message_is_told_once(stub: StreamStub, live: Subject) -> None:
    for _ in range(3):
        stub.peer().say(WALLET)
    stub.peer().say({**WALLET, "id": "m2"})
    live.until(lambda: len(live.happenings) == 2)
    assert live.oddities() == ["duplicate", "duplicate"]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("no json", "malformed"),
        ("[1]", "malformed"),
        ('"wallet"', "malformed"),
        ("{}", "malformed"),
        ('{"success":"yes"}', "malformed"),
        ('{"topic":"wallet"}', "malformed"),
        ('{"topic":"wallet","data":{"a":1}}', "malformed"),
        ('{"topic":"wallet","data":[1]}', "malformed"),
        ('{"topic":["wallet"],"data":[]}', "malformed"),
        ('{"topic":"greeks","data":[{}]}', "foreign_topic"),
        ('{"topic":"","data":[{}]}', "foreign_topic"),
        ('{"success":true,"op":"subscribe"}', "early"),
        ('{"success":false,"op":"auth","ret_msg":"x"}', "early"),
    ],
)
def test_H10_what_means_nothing_is_counted_and_the_stream_goes_on(
    stub: StreamStub, live: Subject, said: str, kind: str
) -> None:
    stub.peer().say(said)
    stub.peer().say(WALLET)
    live.until(lambda: live.happenings)
    assert live.oddities() == [kind]
    assert live.stream.state is StreamState.LIVE


def test_H10_an_event_before_the_subscription_is_not_believed(
    stub: StreamStub, begin: Callable[[StreamStub], Subject]
) -> None:
    def forging(peer: Peer, message: Message) -> None:
        peer.say(WALLET)
        obliging(peer, message)

    stub.on_message = forging
    subject = begin(stub)
    subject.until(lambda: subject.stream.state is StreamState.LIVE)
    assert subject.happenings == []
    assert subject.oddities() == ["early", "early"]


def test_H10_a_binary_message_is_read_as_any_other(stub: StreamStub, live: Subject) -> None:
    stub.peer().frame(BINARY, b"\xff\xfe\x00")
    stub.peer().say(WALLET)
    live.until(lambda: live.happenings)
    assert live.oddities() == ["malformed"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda peer: peer.raw(b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        lambda peer: peer.raw(b"\xc1\x02{}"),
        lambda peer: peer.frame(0, b"{}"),
        lambda peer: peer.frame(PING, b"x" * 126),
        lambda peer: peer.frame(1, b"x" * 70_000, claimed_length=2**62),
    ],
    ids=["noise", "reserved bits", "no first frame", "long ping", "endless message"],
)
def test_H10_broken_frames_end_the_stream_and_nothing_else(
    stub: StreamStub, live: Subject, break_it: Callable[[Peer], None]
) -> None:
    break_it(stub.peer())
    with pytest.raises(OSError):
        for _ in range(2 * MAX_MESSAGE_BYTES // 50_000):
            stub.peer().raw(b"x" * 50_000)
            gevent.sleep(0.001)
        stub.peer().cut()
        raise OSError
    assert live.loss() in (Loss.BROKEN, Loss.CLOSED)


def test_H10_a_message_in_endless_parts_is_not_collected(stub: StreamStub, live: Subject) -> None:
    stub.peer().frame(1, b"x" * 60_000, fin=False)
    with pytest.raises(OSError):
        while True:
            stub.peer().frame(0, b"x" * 60_000, fin=False)
            gevent.sleep(0)
    assert live.loss() is Loss.BROKEN


def test_pings_of_the_protocol_are_answered(stub: StreamStub, live: Subject) -> None:
    stub.peer().frame(PING, b"hello")
    live.until(lambda: stub.peer().pongs == [b"hello"])
    assert live.stream.state is StreamState.LIVE


@pytest.mark.parametrize("orderly", [True, False])
def test_a_stream_that_the_exchange_ends_is_over_at_once(stub: StreamStub, live: Subject, orderly: bool) -> None:
    if orderly:
        stub.peer().frame(CLOSE, b"\x03\xe8")
    else:
        stub.peer().cut()
    assert live.loss() is Loss.CLOSED


def test_H10_a_refused_handshake_is_no_stream(stub: StreamStub, begin: Callable[[StreamStub], Subject]) -> None:
    for answer in (
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/elsewhere\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"no http at all\r\n\r\n",
        b"",
    ):
        stub.refuse = answer
        assert begin(stub).loss() is Loss.HANDSHAKE
    assert stub.peers == []


def test_an_exchange_that_is_away_is_no_stream(stub: StreamStub, begin: Callable[[StreamStub], Subject]) -> None:
    stub.close()
    assert begin(stub).loss() is Loss.UNREACHABLE


def test_closing_it_from_outside_ends_the_waiting(live: Subject) -> None:
    live.stream.close()
    assert live.loss() is Loss.STOPPED
    live.stream.close()
    live.stream.tick()


def test_a_stream_closed_before_it_was_run_does_not_connect(stub: StreamStub) -> None:
    stream = PrivateStream(
        stub.url, open_socket, KEY, lambda: 0, lambda: None, lambda h: None, ManualClock(), RecordingObserver()
    )
    stream.close()
    assert stream.run() is Loss.STOPPED
    assert stub.peers == []


def test_one_that_does_not_read_is_lost_and_holds_nobody_up(stub: StreamStub, live: Subject) -> None:
    socket = live.stream._socket
    assert socket is not None
    with pytest.raises(StreamLost), gevent.Timeout(0.0001, AssertionError("it waited")):
        while True:
            socket.send({"op": "x" * 65_536})
    assert live.loss() is Loss.CLOSED


def test_F01_the_words_of_a_refusal_are_fit_for_a_log() -> None:
    raw = b'{"success":false,"op":"auth","ret_msg":"bad sign\\n[GET/realtime canary-api-key] canary-signature-0001"}'
    reply = stream_messages.read(raw)
    assert isinstance(reply, Reply)
    assert "canary" not in reply.text and "\n" not in reply.text and reply.text.startswith("bad sign")
