"""States computed from mark prices, against a real Valkey: what they may replace, and what may replace them."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest

from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.states import MarkCommit, Marked, States
from pushserver.clock import SystemClock
from pushserver.errors import StoreUnavailable
from pushserver.events import encode_update
from pushserver.model import Balance, DataType, Pnl, Secret

NOW_MS = SystemClock().wall_ms()


@pytest.fixture
def client(redis_url):
    return connect(Secret(redis_url))


@pytest.fixture
def states(client):
    return States(client, SystemClock())


def balance(total: str):
    return Balance(Decimal(total), Decimal("8"), Decimal("2"))


def fetched(states: States, total: str, as_of_ms: int) -> str:
    update = encode_update(DataType.BALANCE, 4, balance(total), as_of_ms, as_of_ms)
    return states.commit(4, DataType.BALANCE, update, as_of_ms).result


def marked(states: States, total: str, as_of_ms: int, base_ms: int) -> str:
    update = encode_update(DataType.BALANCE, 4, balance(total), as_of_ms, as_of_ms)
    [[done]] = states.commit_marks([MarkCommit(4, as_of_ms, (Marked(DataType.BALANCE, base_ms, update),))])
    return done.result


def shown(states: States) -> tuple[float, int]:
    """The total that phones see, and its ``as_of``."""
    [stored] = states.read([(4, DataType.BALANCE)])
    payload = orjson.loads(stored.frame[2:])[1]
    assert payload["as_of"] == stored.as_of_ms
    assert payload["seq"] == stored.seq
    return payload["data"]["total_balance"], stored.as_of_ms


def test_marks_refresh_what_was_fetched_last(states):
    fetched(states, "10", NOW_MS)
    assert marked(states, "11", NOW_MS + 700, NOW_MS) == "published"
    assert marked(states, "11", NOW_MS + 900, NOW_MS) == "unchanged"
    assert shown(states) == (11.0, NOW_MS + 700)
    assert states.read([(4, DataType.BALANCE)])[0].confirmed_ms == NOW_MS


def test_marks_on_an_older_answer_never_replace_what_was_fetched_since(states):
    fetched(states, "10", NOW_MS)
    fetched(states, "0", NOW_MS + 1_000)
    assert marked(states, "11", NOW_MS + 2_000, NOW_MS) == "stale"
    assert shown(states) == (0.0, NOW_MS + 1_000)


def test_an_answer_that_only_confirmed_the_data_replaces_the_base_too(states):
    fetched(states, "10", NOW_MS)
    fetched(states, "10", NOW_MS + 1_000)
    assert marked(states, "11", NOW_MS + 2_000, NOW_MS) == "stale"
    assert marked(states, "11", NOW_MS + 2_000, NOW_MS + 1_000) == "published"


def test_an_answer_replaces_marks_and_as_of_never_goes_back(states):
    fetched(states, "10", NOW_MS)
    marked(states, "11", NOW_MS + 5_000, NOW_MS)
    # The exchange answered before the mark, but the answer arrived after it: it is the truth about everything else.
    assert fetched(states, "3", NOW_MS + 4_000) == "published"
    assert shown(states) == (3.0, NOW_MS + 5_000)
    assert fetched(states, "9", NOW_MS + 3_000) == "stale"


def test_older_marks_never_replace_newer_ones(states):
    fetched(states, "10", NOW_MS)
    marked(states, "12", NOW_MS + 2_000, NOW_MS)
    assert marked(states, "11", NOW_MS + 1_000, NOW_MS) == "stale"


def test_marks_from_the_future_are_refused_because_as_of_would_stay_there(states):
    fetched(states, "10", NOW_MS)
    assert marked(states, "11", NOW_MS + 3_600_000, NOW_MS) == "stale"


def test_marks_say_nothing_after_redis_forgot_what_was_fetched(client, states):
    fetched(states, "10", NOW_MS)
    client.flushall()
    assert marked(states, "11", NOW_MS + 1_000, NOW_MS) == "stale"
    assert client.keys("*") == []


def test_equal_data_is_published_again_after_the_floor_was_raised(states):
    fetched(states, "10", NOW_MS)
    marked(states, "11", NOW_MS + 1_000, NOW_MS)
    floor = states.read([(4, DataType.BALANCE)])[0].seq + 1_000_000
    states.raise_floor(4, DataType.BALANCE, floor)
    assert marked(states, "11", NOW_MS + 1_000, NOW_MS) == "published"
    assert states.read([(4, DataType.BALANCE)])[0].seq > floor


def test_many_users_and_types_go_in_one_round_trip(states):
    commits = []
    for user_id in (4, 5):
        updates = {
            DataType.BALANCE: encode_update(DataType.BALANCE, user_id, balance("10"), NOW_MS, NOW_MS),
            DataType.PNL: encode_update(DataType.PNL, user_id, Pnl(*(Decimal(user_id),) * 4), NOW_MS, NOW_MS),
        }
        if user_id == 4:
            states.commit(4, DataType.PNL, updates[DataType.PNL], NOW_MS)
        states.commit(user_id, DataType.BALANCE, updates[DataType.BALANCE], NOW_MS)
        changed = encode_update(DataType.BALANCE, user_id, balance("12"), NOW_MS, NOW_MS)
        wanted = (Marked(DataType.BALANCE, NOW_MS, changed), Marked(DataType.PNL, NOW_MS, updates[DataType.PNL]))
        commits.append(MarkCommit(user_id, NOW_MS + 1, wanted))
    results = [[done.result for done in row] for row in states.commit_marks(commits)]
    assert results == [["published", "unchanged"], ["published", "stale"]]


def test_a_base_is_stored_and_published_with_the_answer_it_belongs_to(client, states):
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.ssubscribe(keys.bases_channel(4))
    pubsub.get_sharded_message(timeout=2)
    for total, as_of_ms, base in (("10", NOW_MS, b"first"), ("10", NOW_MS + 1, b"second"), ("9", NOW_MS - 1, b"old")):
        update = encode_update(DataType.BALANCE, 4, balance(total), as_of_ms, as_of_ms)
        states.commit(4, DataType.BALANCE, update, as_of_ms, base=base)
    heard = [pubsub.get_sharded_message(timeout=1) for _ in range(3)]
    assert [message and message["data"] for message in heard] == [b"balance\nfirst", b"balance\nsecond", None]
    assert client.hgetall(keys.bases(4)) == {b"balance": b"second"}
    assert 0 < client.ttl(keys.bases(4)) <= 86_400
    states.forget(4)
    assert client.keys("*") == []


def test_marks_without_redis_say_so():
    states = States(connect(Secret("redis://127.0.0.1:1/0")), SystemClock())
    with pytest.raises(StoreUnavailable):
        marked(states, "11", NOW_MS, NOW_MS)
