"""Mark prices from a public connection that breaks, repeats itself and falls silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.exchange import ticker_messages
from pushserver.exchange.ticker_stream import ALIVE_S, ASK_AGAIN_S, SILENT_AFTER_S, SYMBOL_SILENT_S, TickerFeed
from pushserver.exchange.tunnels import open_socket
from pushserver.observers import RecordingObserver
from pushserver.stream_records import TickerEnded
from tests.exchange.stream_stub import Message, Peer, StreamStub

BTC, ETH = "BTCUSDT", "ETHUSDT"


def price(symbol: str, mark: str | None, stamp: int, kind: str = "delta") -> Message:
    data = {"symbol": symbol, "lastPrice": "1"} | ({} if mark is None else {"markPrice": mark})
    return {"topic": f"tickers.{symbol}", "type": kind, "data": data, "cs": 1, "ts": stamp}


class Market:
    """The server's mind: answers subscriptions with a snapshot at 100, pings with pongs."""

    def __init__(self) -> None:
        self.deaf: set[str] = set()
        self.unknown: set[str] = set()
        self.is_silent = False
        self.stamp = 1_000

    def __call__(self, peer: Peer, message: Message) -> None:
        if self.is_silent:
            return
        if {topic.removeprefix("tickers.") for topic in message.get("args", [])} & self.unknown:
            peer.say({"success": False, "ret_msg": "Invalid symbol :[tickers.GONEUSDT]", "op": message["op"]})
            return
        peer.say({"success": True, "ret_msg": "pong" if message["op"] == "ping" else "", "op": message["op"]})
        if message["op"] == "subscribe":
            assert len(message["args"]) <= 10
            for topic in message["args"]:
                if topic.removeprefix("tickers.") not in self.deaf:
                    self.stamp += 1
                    peer.say(price(topic.removeprefix("tickers."), "100", self.stamp, "snapshot"))


class Subject:
    def __init__(self, url: str, **options: Any) -> None:
        self.clock = ManualClock()
        self.observer = RecordingObserver()
        self.feed = TickerFeed(url, open_socket, self.clock, self.observer, **options)
        self.feed.start()

    def until(self, condition: Callable[[], Any]) -> None:
        with gevent.Timeout(8, AssertionError("it never came to that")):
            while not condition():
                gevent.sleep(0.01)

    def losses(self) -> list[str]:
        return [record.reason for record in self.observer.records if isinstance(record, TickerEnded)]


@pytest.fixture
def market() -> Market:
    return Market()


@pytest.fixture
def stub(market: Market) -> Iterator[StreamStub]:
    stub = StreamStub(market)
    yield stub
    stub.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.exchange.ticker_stream.TICK_S", 0.02)
    monkeypatch.setattr("pushserver.exchange.ticker_stream.FIRST_RETRY_S", 0.02)


@pytest.fixture
def subject(stub: StreamStub) -> Iterator[Subject]:
    subject = Subject(stub.url)
    yield subject
    subject.feed.stop()


def test_nothing_wanted_needs_no_connection(stub: StreamStub, subject: Subject) -> None:
    gevent.sleep(0.1)
    assert stub.peers == []
    assert subject.feed.mark(BTC) is None
    assert not subject.feed.is_fresh(BTC)


def test_a_snapshot_and_what_changed_since_make_the_price(stub: StreamStub, subject: Subject) -> None:
    subject.feed.want([BTC])
    subject.until(lambda: subject.feed.is_fresh(BTC))
    assert subject.feed.mark(BTC) == (Decimal(100), 1_001)
    stub.peer().say(price(BTC, "101.5", 1_005))
    subject.until(lambda: subject.feed.mark(BTC) == (Decimal("101.5"), 1_005))
    stub.peer().say(price(BTC, None, 1_006))
    subject.until(lambda: subject.feed.mark(BTC) == (Decimal("101.5"), 1_006))


def test_symbols_are_added_and_left_while_it_runs(stub: StreamStub, subject: Subject) -> None:
    subject.feed.want([BTC])
    subject.until(lambda: subject.feed.is_fresh(BTC))
    subject.feed.want([ETH])
    subject.until(lambda: subject.feed.is_fresh(ETH))
    assert stub.peer().wait_for("unsubscribe")["args"] == ["tickers.BTCUSDT"]
    assert subject.feed.mark(BTC) is None
    stub.peer().say(price(BTC, "7", 2_000))
    stub.peer().say(price(ETH, "8", 2_000))
    subject.until(lambda: subject.feed.mark(ETH) == (Decimal(8), 2_000))
    assert subject.feed.mark(BTC) is None, "nobody asked for it any more"
    assert len(stub.peers) == 1


def test_many_symbols_are_asked_for_in_small_requests(stub: StreamStub, subject: Subject) -> None:
    symbols = [f"C{number}USDT" for number in range(37)]
    subject.feed.want(symbols)
    subject.until(lambda: all(map(subject.feed.is_fresh, symbols)))
    assert sum(message["op"] == "subscribe" for message in stub.peer().heard) == 4


def test_a_lost_connection_is_opened_again_and_everything_asked_for_anew(stub: StreamStub, subject: Subject) -> None:
    subject.feed.want([BTC, ETH])
    subject.until(lambda: subject.feed.is_fresh(BTC) and subject.feed.is_fresh(ETH))
    stub.peer().cut()
    subject.until(lambda: len(stub.peers) == 2 and subject.feed.is_fresh(BTC) and subject.feed.is_fresh(ETH))
    assert subject.losses() == ["closed"]


def test_no_price_is_fresh_on_a_new_connection_before_it_was_told_there(
    stub: StreamStub, market: Market, subject: Subject
) -> None:
    subject.feed.want([BTC, ETH])
    subject.until(lambda: subject.feed.is_fresh(BTC) and subject.feed.is_fresh(ETH))
    market.deaf.add(ETH)
    subject.clock.advance(0.1)
    stub.peer().cut()
    subject.until(lambda: len(stub.peers) == 2 and subject.feed.is_fresh(BTC))
    assert not subject.feed.is_fresh(ETH)
    assert subject.feed.mark(ETH) is not None, "an old price is better than none"


def test_a_silent_connection_is_not_believed_and_then_given_up(
    stub: StreamStub, market: Market, subject: Subject
) -> None:
    subject.feed.want([BTC])
    subject.until(lambda: subject.feed.is_fresh(BTC))
    market.is_silent = True
    subject.clock.advance(ALIVE_S)
    assert not subject.feed.is_fresh(BTC)
    subject.clock.advance(SILENT_AFTER_S - ALIVE_S + 1)
    market.is_silent = False
    subject.until(lambda: subject.feed.is_fresh(BTC))
    assert len(stub.peers) == 2


def test_pings_keep_a_quiet_market_fresh(stub: StreamStub, subject: Subject) -> None:
    subject.feed.want([BTC])
    subject.until(lambda: subject.feed.is_fresh(BTC))
    for number in range(1, 6):
        subject.clock.advance(5)
        stub.peer().wait_for("ping", number)
        gevent.sleep(0.05)
        assert subject.feed.is_fresh(BTC)


def test_a_symbol_that_is_not_answered_or_falls_silent_is_asked_for_again(
    stub: StreamStub, market: Market, subject: Subject
) -> None:
    market.deaf.add(BTC)
    subject.feed.want([BTC])
    stub.peer().wait_for("subscribe")
    market.deaf.clear()
    pass_slowly(subject, ASK_AGAIN_S + 2)
    subject.until(lambda: subject.feed.is_fresh(BTC))
    assert sum(message["op"] == "subscribe" for message in stub.peer().heard) == 2
    pass_slowly(subject, SYMBOL_SILENT_S + 2)
    subject.until(lambda: subject.feed.is_fresh(BTC))
    assert sum(message["op"] == "subscribe" for message in stub.peer().heard) == 3


def test_a_symbol_that_is_refused_does_not_keep_the_others_of_its_request_from_being_told(
    market: Market, subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    market.unknown.add("GONEUSDT")
    subject.feed.want([BTC, ETH, "GONEUSDT"])
    subject.until(lambda: "refused" in caplog.text)
    assert not subject.feed.is_fresh(BTC)
    pass_slowly(subject, ASK_AGAIN_S + 2)
    subject.until(lambda: subject.feed.is_fresh(BTC) and subject.feed.is_fresh(ETH))
    assert not subject.feed.is_fresh("GONEUSDT")


def pass_slowly(subject: Subject, seconds: float) -> None:
    """With time for pings to be answered."""
    for _ in range(round(seconds / 4)):
        subject.clock.advance(4)
        gevent.sleep(0.06)


def test_a_price_from_the_past_does_not_replace_a_newer_one(stub: StreamStub, subject: Subject) -> None:
    subject.feed.want([BTC])
    subject.until(lambda: subject.feed.is_fresh(BTC))
    stub.peer().say(price(BTC, "105", 5_000))
    stub.peer().say(price(BTC, "99", 4_000))
    stub.peer().say(price(BTC, None, 5_001))
    subject.until(lambda: subject.feed.mark(BTC) == (Decimal(105), 5_001))


@pytest.mark.parametrize("nonsense", ["", "{", "[]", "7", '{"topic":"tickers.BTCUSDT"}', '{"topic":7,"ts":1}'])
def test_nonsense_changes_nothing(stub: StreamStub, subject: Subject, nonsense: str) -> None:
    subject.feed.want([BTC])
    subject.until(lambda: subject.feed.is_fresh(BTC))
    stub.peer().say(nonsense)
    stub.peer().say(price(BTC, "nan", 6_000))
    stub.peer().say(price(BTC, "-1", 6_000))
    stub.peer().say(price(BTC, "0", 6_000))
    stub.peer().say(price(BTC, "106", 6_000))
    subject.until(lambda: subject.feed.mark(BTC) == (Decimal(106), 6_000))
    assert len(stub.peers) == 1


def test_connections_are_asked_for_and_failures_back_off(stub: StreamStub) -> None:
    waits = [0.05, 0.0]
    asked: list[float] = []

    def wait_s() -> float:
        asked.append(waits[0] if waits else 0.0)
        if len(asked) == 1:
            raise StoreUnavailable
        return waits.pop(0) if waits else 0.0

    stub.refuse = b"HTTP/1.1 503 Away\r\n\r\n"
    subject = Subject(stub.url, connect_wait_s=wait_s)
    subject.feed.want([BTC])
    subject.until(lambda: len(stub.requests) >= 2)
    gevent.sleep(0.25)
    subject.feed.stop()
    assert 2 <= len(stub.requests) <= 7, "it hammers"
    assert set(subject.losses()) <= {"handshake", "stopped"}


@given(st.binary(max_size=200) | st.lists(st.none() | st.integers() | st.text()).map(repr).map(str.encode))
def test_nothing_that_arrives_makes_the_reader_raise(raw: bytes) -> None:
    ticker_messages.read(raw)
