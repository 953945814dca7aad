"""A worker's homes: who is taken, what is told, what happens when streams, keys and Redis come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from pushserver.bus.homes import HOME_LEASE_S, Live
from pushserver.errors import CredentialsUnreadable, StoreUnavailable
from pushserver.exchange.stream_messages import Topic
from pushserver.exchange.stream_socket import Loss
from pushserver.stream_records import HintServed, HomesSwept, StreamEnded, StreamsCounted, StreamStarted
from pushserver.workers.hints import CATCH_UP, ORDERS, WALLET
from pushserver.workers.homes.holding import NO_KEY_S
from pushserver.workers.homes.keeper import KEEP_EVERY_S, SWEEP_PATIENCE_S
from pushserver.workers.homes.reconnecting import GOOD_AFTER_S
from tests.workers.homes.site import FakeDoor, Site


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    for door in site.doors:
        for stream in door.streams:
            stream.close()


def test_a_watched_user_without_a_home_finds_one_and_a_stream(site: Site) -> None:
    site.schedule.wake([1])
    site.round()
    assert site.keeper.homes() == frozenset()
    site.settle()
    assert site.keeper.homes() == {1}
    assert [stream.credentials.api_key for stream in site.doors[0].streams] == ["key-1"]
    site.round()
    site.pass_time(10)
    assert len(site.doors[0].streams) == 1


def test_an_unwatched_user_and_one_with_a_home_elsewhere_are_left_alone(site: Site) -> None:
    site.schedule.wake([1, 2])
    site.homes.take([2], "elsewhere", 60)
    site.round(watched=frozenset())
    site.settle()
    assert site.keeper.homes() == frozenset()
    site.schedule.wake([1, 2])
    site.round()
    site.settle()
    assert site.keeper.homes() == {1}


def test_no_more_users_are_taken_than_the_limit(site: Site) -> None:
    keeper = site.another("small", limit=2)
    site.schedule.wake(range(1, 6))
    site.round(keeper)
    site.settle(keeper)
    assert len(keeper.homes()) == 2


def test_users_met_while_others_are_taken_do_not_exceed_the_limit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = site.another("small", limit=2)
    take = site.homes.take

    def slow_take(*arguments: Any) -> Any:
        site.schedule.wake([3, 4])
        site.round(keeper)
        return take(*arguments)

    monkeypatch.setattr(site.homes, "take", slow_take)
    site.schedule.wake([1, 2])
    site.round(keeper)
    site.settle(keeper)
    assert len(keeper.homes()) == 2


def test_a_live_stream_is_told_first_and_then_what_was_missed_is_looked_for(site: Site) -> None:
    site.schedule.wake([1])
    site.round()
    site.settle()
    assert site.round() == [], "nothing to catch up with before it listens"
    site.doors[0].streams[0].go_live()
    site.settle()
    [claim] = site.round()
    assert (claim.live, claim.hints, claim.woken, claim.homeless) == (Live.STREAM, CATCH_UP, True, False)


def test_what_a_stream_tells_wakes_the_user_with_where_to_look(site: Site) -> None:
    [stream] = site.settled(1)
    site.clock.advance(0.5)
    stream.tell()
    site.settle()
    [claim] = site.round()
    assert (claim.hints, claim.live) == (WALLET, Live.STREAM)
    assert site.of(HintServed)


def test_H10_a_flood_of_events_wakes_twice_a_second(site: Site) -> None:
    [stream] = site.settled(1)
    claims = []
    for number in range(500):
        site.clock.advance(0.02)
        stream.tell(Topic.ORDER, orderId=f"o{number}")
        site.settle()
        claims += site.round()
    assert 18 <= len(claims) <= 21, "ten seconds"


def test_H10_an_event_that_repeats_what_is_known_wakes_nobody(site: Site) -> None:
    [stream] = site.settled(1)
    site.clock.advance(1)
    stream.tell(Topic.ORDER, orderId="o1", orderStatus="New")
    site.settle()
    assert [claim.hints for claim in site.round()] == [ORDERS | WALLET]
    site.clock.advance(1)
    stream.tell(Topic.ORDER, orderId="o1", orderStatus="New")
    site.settle()
    assert site.round() == []


def test_H10_a_lost_stream_means_polling_at_once_and_a_new_stream_soon(site: Site) -> None:
    [stream] = site.settled(1)
    site.pass_time(GOOD_AFTER_S + 1)
    site.round()
    stream.lose(Loss.SILENT)
    site.settle()
    [claim] = site.round()
    assert (claim.live, claim.hints, claim.homeless) == (0, CATCH_UP, False)
    site.pass_time(1)
    assert len(site.doors[0].streams) == 2
    site.doors[0].streams[1].go_live()
    site.settle()
    [claim] = site.round()
    assert (claim.live, claim.hints) == (Live.STREAM, CATCH_UP)
    assert [record.reason for record in site.of(StreamEnded)] == ["silent"]


def test_E9_an_exchange_that_refuses_every_stream_is_not_asked_in_a_hot_loop(site: Site) -> None:
    site.settled(1)
    for _ in range(600):
        site.doors[0].streams[-1].close(Loss.HANDSHAKE)
        site.pass_time(0.5)
    assert 10 <= len(site.of(StreamStarted)) <= 22, "in five minutes"


def test_H10_a_refused_key_waits_for_another_key(site: Site) -> None:
    site.schedule.wake([1])
    site.round()
    site.settle()
    site.doors[0].streams[0].lose(Loss.AUTH)
    site.pass_time(25)
    assert len(site.doors[0].streams) == 1
    site.keys.versions[1] = 2
    site.credentials.forget(1)
    site.keeper.key_changed(1)
    site.settle()
    assert [stream.key_version for stream in site.doors[0].streams] == [1, 2]


def test_the_stream_of_a_replaced_key_is_closed_at_once(site: Site) -> None:
    [stream] = site.settled(1)
    site.clock.advance(1)
    site.keys.versions[1] = 2
    site.credentials.forget(1)
    site.keeper.key_changed(1)
    gevent.sleep(0)
    site.settle()
    assert stream._end.get() is Loss.STOPPED
    assert [stream.key_version for stream in site.doors[0].streams] == [1, 2]
    assert site.round()[0].live == 0


def test_a_replaced_key_is_noticed_even_if_nobody_told(site: Site) -> None:
    site.settled(1)
    site.keys.versions[1] = 2
    site.credentials.read(1)
    site.pass_time(KEEP_EVERY_S + 0.5)
    assert [stream.key_version for stream in site.doors[0].streams] == [1, 2]


@pytest.mark.parametrize("failure", [StoreUnavailable(), CredentialsUnreadable(), None])
def test_a_user_without_a_readable_key_is_looked_at_again_later(site: Site, failure: Exception | None) -> None:
    site.keys.failure = failure
    site.keys.missing.add(1)
    site.schedule.wake([1])
    site.round()
    site.pass_time(5)
    assert site.doors[0].streams == []
    site.keys.failure = None
    site.keys.missing.clear()
    site.credentials.forget(1)
    site.pass_time(NO_KEY_S + 1)
    assert len(site.doors[0].streams) == 1


def test_streams_beyond_the_budget_wait_and_their_users_are_polled(site: Site) -> None:
    site.doors[0].room, site.doors[0].wait_s = 2, 5.0
    site.schedule.wake(range(1, 6))
    site.round()
    site.settle()
    asked = site.doors[0].asked
    assert (len(site.keeper.homes()), len(site.doors[0].streams)) == (5, 2)
    site.pass_time(4)
    assert site.doors[0].asked == asked, "asking more often would not help"
    site.doors[0].room = 1_000
    site.pass_time(2)
    assert len(site.doors[0].streams) == 5


def test_each_user_leaves_by_its_own_door(site: Site) -> None:
    site.doors.append(FakeDoor())
    site.schedule.wake([1, 2, 3, 4])
    site.round()
    site.settle()
    assert [{stream.credentials.api_key for stream in door.streams} for door in site.doors] == [
        {"key-2", "key-4"}, {"key-1", "key-3"},
    ]  # fmt: skip


def test_homes_are_kept_and_of_a_dead_process_taken_over(site: Site) -> None:
    site.settled(1)
    site.pass_time(30)
    other_doors = [FakeDoor()]
    other = site.another("other", other_doors)
    site.schedule.wake([1])
    site.round(other)
    site.settle(other)
    assert other.homes() == frozenset(), "the home lives"
    site.clock.advance(HOME_LEASE_S + SWEEP_PATIENCE_S)
    site.settle(other)
    assert [record.homes for record in site.of(HomesSwept)] == [1]
    [claim] = site.round(other)
    assert (claim.homeless, claim.live) == (True, 0)
    site.settle(other)
    assert other.homes() == {1}
    assert len(other_doors[0].streams) == 1
    site.settle()
    site.pass_time(KEEP_EVERY_S)
    assert site.keeper.homes() == frozenset(), "who overslept finds out"
    assert site.doors[0].streams[0]._end.get() is Loss.STOPPED
    assert other.homes() == {1}


def test_a_user_that_the_schedule_dropped_is_let_go(site: Site) -> None:
    [stream] = site.settled(1)
    site.schedule.wake([1])
    [claim] = site.schedule.claim(1, 12, "round")
    site.schedule.drop(claim)
    site.pass_time(2 * KEEP_EVERY_S + 1)
    assert site.keeper.homes() == frozenset()
    assert stream._end.get() is Loss.STOPPED


def test_a_schedule_that_was_emptied_for_a_moment_costs_no_stream(site: Site) -> None:
    site.settled(1)
    site.homes._homes.clear()
    site.schedule._due_ms.clear()
    site.pass_time(KEEP_EVERY_S)
    site.schedule.ensure([1])
    site.pass_time(KEEP_EVERY_S)
    assert site.keeper.homes() == {1}
    assert len(site.doors[0].streams) == 1
    site.round()
    site.schedule.wake([1])
    [claim] = site.round()
    assert claim.live == Live.STREAM


def test_nothing_is_lost_while_redis_is_away(site: Site) -> None:
    [stream] = site.settled(1)
    site.clock.advance(1)
    site.homes.down = True
    stream.lose(Loss.CLOSED)
    with pytest.raises(StoreUnavailable):
        site.keeper.tell_once()
    assert site.schedule.claim(10, 5, "x") == []
    site.homes.down = False
    site.keeper.tell_once()
    [claim] = site.round()
    assert (claim.live, claim.hints) == (0, CATCH_UP)


def test_after_redis_was_away_homes_are_kept_before_they_are_swept(site: Site) -> None:
    keeper = site.another("other", [])
    keeper.start()
    site.homes.take([], "x", 1)
    site.schedule.ensure([1])
    site.homes.take([1], "living", HOME_LEASE_S)
    site.homes.down = True
    gevent.sleep(0.05)
    site.clock.advance(SWEEP_PATIENCE_S + HOME_LEASE_S)
    gevent.sleep(0.7)
    site.homes.down = False
    gevent.sleep(0.5)
    assert site.of(HomesSwept) == [], "its keeper has had no time yet"
    site.clock.advance(SWEEP_PATIENCE_S)
    gevent.sleep(0.5)
    assert len(site.of(HomesSwept)) == 1
    keeper.stop()


def test_marks_say_what_they_keep_and_what_they_stop_keeping_is_polled_at_once(site: Site) -> None:
    site.settled(1)
    site.keeper.set_live(1, Live.MARKS, True)
    site.keeper.set_live(1, Live.MARKS, True)
    site.keeper.set_live(7, Live.MARKS, True)
    site.settle()
    assert site.round() == [], "what is fresh needs no round"
    site.clock.advance(1)
    site.keeper.set_live(1, Live.MARKS, False)
    site.settle()
    [claim] = site.round()
    assert (claim.live, claim.hints) == (Live.STREAM, 0)


def test_stopping_closes_the_streams_and_frees_the_users_for_others(site: Site) -> None:
    streams = site.settled(1, 2)
    site.keeper.start()
    site.keeper.stop()
    assert [stream._end.get() for stream in streams] == [Loss.STOPPED, Loss.STOPPED]
    claims = site.round(site.another("other"))
    assert [(claim.user_id, claim.homeless) for claim in claims] == [(1, True), (2, True)]


def test_streams_are_looked_after_and_counted_every_second(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.workers.homes.keeper.TICK_EVERY_S", 0.01)
    [stream] = site.settled(1)
    site.keeper.start()
    gevent.sleep(0.1)
    site.keeper.stop()
    assert stream.ticks >= 2
    assert {record.state: record.streams for record in site.of(StreamsCounted)}["live"] == 1


def test_a_stream_that_crashes_takes_nobody_along(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.settled(1, 2)
    site.doors[0].streams[0]._end.set_exception(ValueError("nobody thought of it"))
    gevent.sleep(0)
    gevent.sleep(0)
    site.settle()
    assert [record.reason for record in site.of(StreamEnded)] == ["broken"]
    assert "crashed" in caplog.text
    site.pass_time(2)
    assert len(site.doors[0].streams) == 3


def test_whatever_nobody_thought_of_deafens_no_home(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.workers.homes.keeper.RETRY_S", 0.01)
    monkeypatch.setattr("pushserver.workers.homes.keeper.TEND_EVERY_S", 0.01)
    monkeypatch.setattr("pushserver.workers.homes.keeper.TICK_EVERY_S", 0.01)
    [stream] = site.settled(1)
    calls: Counter[str] = Counter()

    def stumbling(name: str, works: Any) -> Any:
        def once(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            if calls[name] == 1:
                raise RuntimeError("nobody thought of it")
            return works(*arguments, **options)

        return once

    monkeypatch.setattr(site.schedule, "wake", stumbling("wake", site.schedule.wake))
    monkeypatch.setattr(site.homes, "keep", stumbling("keep", site.homes.keep))
    monkeypatch.setattr(site.doors[0].streams[0], "tick", stumbling("tick", stream.tick))
    site.clock.advance(3)
    site.keeper.start()
    stream.tell(Topic.WALLET)
    gevent.sleep(0.1)
    site.keeper.stop()
    [claim] = site.round()
    assert claim.user_id == 1 and claim.hints & WALLET
    assert calls["wake"] > 1 and calls["keep"] > 1
    # A stream that cannot be looked after is given up.
    assert [record.reason for record in site.of(StreamEnded)][:1] == ["broken"]
