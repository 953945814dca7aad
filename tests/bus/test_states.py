"""Commit, status and floor against a real Valkey: what the delivery promise rests on."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.memos import Memos
from pushserver.bus.states import Commit, States
from pushserver.clock import ManualClock, SystemClock
from pushserver.errors import StoreUnavailable
from pushserver.events import encode_update
from pushserver.model import Balance, DataType, Freshness, Secret
from pushserver.web.bus_messages import StatusMessage, UpdateMessage, parse_message

NOW_MS = SystemClock().wall_ms()


def balance(total: str):
    return Balance(Decimal(total), Decimal("8"), Decimal("2"))


def commit(states: States, total: str, as_of_ms: int, user_id: int = 4):
    update = encode_update(DataType.BALANCE, user_id, balance(total), as_of_ms, as_of_ms)
    return states.commit(user_id, DataType.BALANCE, update, as_of_ms)


@pytest.fixture
def client(redis_url):
    return connect(Secret(redis_url))


@pytest.fixture
def states(client):
    return States(client, SystemClock())


def listen(client):
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.ssubscribe(keys.update_channel(4, DataType.BALANCE))
    assert pubsub.get_sharded_message(timeout=2) is None
    return pubsub


def heard(pubsub):
    messages = []
    while (message := pubsub.get_sharded_message(timeout=0.2)) is not None:
        if message["type"] == "smessage":
            messages.append(parse_message(message["data"], SystemClock().wall_ms()))
    return messages


def test_C07_nothing_is_kept_of_a_forgotten_user_and_everything_of_others(client, states):
    for user_id in (4, 5):
        commit(states, "10", NOW_MS, user_id)
        for data_type in DataType:
            states.set_status(user_id, data_type, Freshness.STOPPED, "key_invalid", "text")
        Memos(client).write(user_id, b"{}")
    of_others = client.keys("push:{5}:*")
    states.forget(4)
    states.forget(4)
    assert len(of_others) == 5
    assert sorted(client.keys("*")) == sorted(of_others)
    assert states.read([(4, DataType.BALANCE)])[0].frame is None


def test_C07_forgetting_without_redis_is_said():
    with pytest.raises(StoreUnavailable):
        States(connect(Secret("redis://127.0.0.1:1/0")), SystemClock()).forget(4)


def test_a_changed_state_is_stored_and_published_with_the_same_seq(client, states):
    pubsub = listen(client)
    result = commit(states, "10", NOW_MS)
    assert (result.result, result.listeners) == ("published", 1)
    [message] = heard(pubsub)
    assert isinstance(message, UpdateMessage)
    assert message.seq == result.seq
    [stored] = states.read([(4, DataType.BALANCE)])
    assert stored.frame == message.frame
    assert f'"seq":{result.seq},'.encode() in message.frame
    assert stored.as_of_ms == NOW_MS


def test_equal_data_is_not_published_again(client, states):
    first = commit(states, "10", NOW_MS)
    pubsub = listen(client)
    again = commit(states, "10", NOW_MS + 5_000)
    assert (again.result, again.seq) == ("unchanged", first.seq)
    assert heard(pubsub) == []


def test_an_older_answer_never_replaces_a_newer_one(states):
    commit(states, "10", NOW_MS)
    assert commit(states, "9", NOW_MS - 1).result == "stale"


def test_an_answer_older_than_a_confirmation_is_refused_too(states):
    commit(states, "10", NOW_MS)
    commit(states, "10", NOW_MS + 5_000)
    assert commit(states, "9", NOW_MS + 2_000).result == "stale"


def test_seq_grows_with_every_change_even_when_clocks_stand_still(client):
    states = States(client, ManualClock(wall_ms=1))
    seqs = [commit(states, str(total), NOW_MS).seq for total in range(50)]
    assert seqs == sorted(set(seqs))


def test_seq_follows_the_committers_clock_when_redis_is_behind(client):
    # From now, not from when this file was loaded: a long run of tests would have caught up.
    ahead_ms = SystemClock().wall_ms() + 50_000
    assert commit(States(client, ManualClock(wall_ms=ahead_ms)), "10", NOW_MS).seq == ahead_ms


def test_G07_a_raised_floor_is_passed_by_the_next_commit_and_equal_data_is_sent_again(states):
    first = commit(states, "10", NOW_MS)
    states.raise_floor(4, DataType.BALANCE, first.seq + 10_000_000)
    [stored] = states.read([(4, DataType.BALANCE)])
    assert stored.frame is None
    again = commit(states, "10", NOW_MS)
    assert again.result == "published"
    assert again.seq > first.seq + 10_000_000


def test_a_floor_below_what_is_stored_changes_nothing(states):
    first = commit(states, "10", NOW_MS)
    states.raise_floor(4, DataType.BALANCE, first.seq - 1)
    [stored] = states.read([(4, DataType.BALANCE)])
    assert (stored.seq, stored.frame is None) == (first.seq, False)


def test_users_and_types_do_not_touch_each_other(states):
    commit(states, "10", NOW_MS, user_id=4)
    nothing, other = states.read([(4, DataType.PNL), (5, DataType.BALANCE)])
    assert nothing.frame is None
    assert other.frame is None


def test_a_status_is_published_only_when_it_changes(client, states):
    pubsub = listen(client)

    def tell(state, reason):
        return states.set_status(4, DataType.BALANCE, state, reason, "text", None)

    assert tell(Freshness.DELAYED, "exchange_unavailable") is True
    assert tell(Freshness.DELAYED, "exchange_unavailable") is False
    assert tell(Freshness.STOPPED, "key_invalid") is True
    assert tell(Freshness.LIVE, "") is True
    assert tell(Freshness.LIVE, "") is False
    messages = heard(pubsub)
    assert all(isinstance(message, StatusMessage) for message in messages)
    assert [message.state for message in messages] == [Freshness.DELAYED, Freshness.STOPPED, Freshness.LIVE]


def test_G7_a_redis_that_forgot_a_status_lets_the_phones_hear_that_all_is_well(client, states):
    states.set_status(4, DataType.BALANCE, Freshness.DELAYED, "exchange_unavailable", "text", None)
    client.flushall()
    pubsub = listen(client)
    assert states.set_status(4, DataType.BALANCE, Freshness.LIVE, "", "", None) is True
    assert [message.state for message in heard(pubsub)] == [Freshness.LIVE]


def test_watched_names_the_types_somebody_listens_to(client, states):
    pubsub = listen(client)
    assert states.watched([4, 5]) == {4: frozenset({DataType.BALANCE}), 5: frozenset()}
    pubsub.close()


def test_states_have_an_owner_that_deletes_them(client, states):
    commit(states, "10", NOW_MS)
    states.set_status(4, DataType.PNL, Freshness.DELAYED, "x", "text")
    assert all(client.ttl(key) > 0 for key in client.keys("*"))


def test_G03_a_lost_redis_is_an_error_of_the_committer_not_a_silent_drop():
    lost = States(connect(Secret("redis://127.0.0.1:1/0")), SystemClock())
    with pytest.raises(StoreUnavailable):
        commit(lost, "10", NOW_MS)
    with pytest.raises(StoreUnavailable):
        lost.read([(4, DataType.PNL)])
    with pytest.raises(StoreUnavailable):
        lost.watched([4])


def test_many_commits_go_in_one_round_trip_with_a_result_each(client, states):
    commit(states, "10", NOW_MS)
    wanted = [
        Commit(user_id, DataType.BALANCE, encode_update(DataType.BALANCE, user_id, balance(total), when, when), when)
        for user_id, total, when in [(4, "10", NOW_MS + 1), (5, "7", NOW_MS), (5, "8", NOW_MS + 2), (4, "9", NOW_MS)]
    ]
    results = states.commit_many(wanted)
    assert [result.result for result in results] == ["unchanged", "published", "published", "stale"]
    assert results[1].seq < results[2].seq
    [four, five] = states.read([(4, DataType.BALANCE), (5, DataType.BALANCE)])
    assert four.confirmed_ms == NOW_MS + 1
    assert five.seq == results[2].seq


def test_many_commits_succeed_on_a_redis_that_never_saw_the_script(client, states):
    client.script_flush()
    update = encode_update(DataType.BALANCE, 4, balance("10"), NOW_MS, NOW_MS)
    assert [r.result for r in states.commit_many([Commit(4, DataType.BALANCE, update, NOW_MS)])] == ["published"]


def test_many_commits_without_redis_say_so():
    states = States(connect(Secret("redis://127.0.0.1:1/0")), SystemClock())
    update = encode_update(DataType.BALANCE, 4, balance("10"), NOW_MS, NOW_MS)
    with pytest.raises(StoreUnavailable):
        states.commit_many([Commit(4, DataType.BALANCE, update, NOW_MS)])


def test_I06_a_committer_far_ahead_of_redis_does_not_poison_the_floor(client):
    ahead = States(client, ManualClock(wall_ms=SystemClock().wall_ms() + 3_600_000))
    seq = commit(ahead, "10", NOW_MS).seq
    assert seq <= SystemClock().wall_ms() + 60_000


def test_a_damaged_row_counts_as_missing_and_is_put_right_by_the_next_commit(client, states):
    commit(states, "10", NOW_MS)
    client.hset(keys.state(4, DataType.BALANCE), mapping={"status": "bogus"})
    [damaged, other] = states.read([(4, DataType.BALANCE), (4, DataType.PNL)])
    assert (damaged.frame, other.frame) == (None, None)
    states.set_status(4, DataType.BALANCE, Freshness.DELAYED, "exchange_unavailable", "text")
    commit(states, "11", NOW_MS + 1)
    assert states.read([(4, DataType.BALANCE)])[0].frame is not None


def fenced(states: States, fence: str, total: str, as_of_ms: int, base: bytes = b""):
    update = encode_update(DataType.BALANCE, 4, balance(total), as_of_ms, as_of_ms)
    return states.commit(4, DataType.BALANCE, update, as_of_ms, fence, base).result


def test_I02_what_an_older_round_brings_is_refused_however_new_it_looks(states):
    assert states.open_rounds({4: "first", 5: "other"})[4] == frozenset()
    assert fenced(states, "first", "10", NOW_MS) == "published"
    states.open_rounds({4: "second"})
    assert fenced(states, "first", "9", NOW_MS + 1_000) == "stale"
    assert fenced(states, "second", "11", NOW_MS + 500) == "published"


def test_I02_a_round_from_before_redis_lost_its_memory_is_refused_also_when_it_did_so_twice(client, states):
    states.open_rounds({4: "slow"})
    client.flushall()
    assert fenced(states, "slow", "9", NOW_MS) == "stale"
    states.open_rounds({4: "next"})
    assert fenced(states, "next", "10", NOW_MS + 1_000) == "published"
    client.flushall()
    assert fenced(states, "slow", "9", NOW_MS) == "stale"
    assert states.read([(4, DataType.BALANCE)])[0].frame is None


def test_I02_a_stopped_worker_tells_no_freshness(states):
    states.open_rounds({4: "first"})
    states.open_rounds({4: "second"})
    assert not states.set_status(4, DataType.PNL, Freshness.DELAYED, "exchange_unavailable", "text", fence="first")
    assert states.set_status(4, DataType.PNL, Freshness.DELAYED, "exchange_unavailable", "text", fence="second")


def test_opening_a_round_tells_who_listens(client, states):
    pubsub = listen(client)
    assert states.open_rounds({4: "a", 5: "b"}) == {4: frozenset({DataType.BALANCE}), 5: frozenset()}
    pubsub.close()
