"""The checker is tried before it is believed: each corruption of a good log raises exactly its verdict."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest

from tests.system.blackbox import TYPES, VERDICTS, Answer, Change, Entry, Logs, count, judge, measure
from tests.system.blackbox.ages import after_the_ban_was_told, most_in_a_window, unfairness, worst_ages
from tests.system.blackbox.figures import lag_within
from tests.system.blackbox.logs import digest, read_entries, read_truth
from tests.system.blackbox.rules import POSITIONS
from tests.system.blackbox.synthetic import (
    BAN,
    LEAVING_ORDERS,
    LOST_BUS,
    LOST_WORKER,
    RETURNING,
    RULES,
    SECRET,
    good_run,
    state,
)

SEEDS = (1, 2, 3)
Corrupt = Callable[[Logs, random.Random], None]
CORRUPTIONS: list[tuple[str, Corrupt]] = []


def raises(verdict: str) -> Callable[[Corrupt], Corrupt]:
    def register(corrupt: Corrupt) -> Corrupt:
        CORRUPTIONS.append((verdict, corrupt))
        return corrupt

    return register


def updates(logs: Logs, client: int = 1, name: str = "positions", of: Callable[[Entry], bool] = bool) -> list[Entry]:
    """The client's updates of that type, oldest first."""
    return [
        entry
        for entry in logs.entries
        if (entry.client, entry.type, entry.event) == (client, name, "update") and of(entry)
    ]


def calm(entry: Entry) -> bool:
    """Neither at a fault nor so soon after the lost bus that it excuses repetition."""
    return 101 < entry.t < BAN.t_start or BAN.t_end + 3 < entry.t < LOST_BUS.t_start - 1


def put(logs: Logs, old: Entry, **fields: object) -> None:
    logs.entries = [dataclasses.replace(e, **fields) if e is old else e for e in logs.entries]


def add(logs: Logs, entry: Entry) -> None:
    logs.entries = sorted([*logs.entries, entry], key=lambda entry: entry.t)


def again(entry: Entry, t: float, **fields: object) -> Entry:
    return dataclasses.replace(entry, t=t, **fields)


@raises("missing_final")
def the_last_update_is_dropped(logs: Logs, chance: random.Random) -> None:
    last = updates(logs, chance.choice((1, 3, 5)))[-1]
    logs.entries = [entry for entry in logs.entries if entry is not last]


@raises("missing_final")
def a_client_never_comes_back(logs: Logs, chance: random.Random) -> None:
    logs.entries = [e for e in logs.entries if e.client != RETURNING or e.t <= LOST_WORKER.t_start]


@raises("regressed")
def two_updates_are_swapped(logs: Logs, chance: random.Random) -> None:
    own = updates(logs, of=calm)
    first = chance.randrange(len(own) - 1)
    a, b = own[first], own[first + 1]
    put(logs, a, seq=b.seq, as_of=a.as_of, digest=a.digest)
    put(logs, b, seq=a.seq, as_of=b.as_of, digest=b.digest)


@raises("regressed")
def an_old_update_is_replayed(logs: Logs, chance: random.Random) -> None:
    own = updates(logs, of=calm)
    late = chance.randrange(2, len(own))
    add(logs, again(own[late - 2], own[late].t + 0.01))


@raises("regressed")
def a_reconnected_client_gets_an_older_state(logs: Logs, chance: random.Random) -> None:
    own = updates(logs, RETURNING)
    snapshot = next(entry for entry in own if entry.conn == 2)
    older = [entry for entry in own if entry.t < LOST_WORKER.t_start][-2]
    put(logs, snapshot, seq=older.seq, as_of=older.as_of, digest=older.digest)


@raises("regressed")
def older_content_comes_with_a_new_seq(logs: Logs, chance: random.Random) -> None:
    own = updates(logs, of=calm)
    late = chance.randrange(2, len(own))
    put(logs, own[late], digest=own[late - 2].digest)


@raises("regressed")
def as_of_goes_back(logs: Logs, chance: random.Random) -> None:
    own = updates(logs, of=calm)
    late = chance.randrange(1, len(own))
    put(logs, own[late], as_of=own[late - 1].as_of - 1)


@raises("invented")
def a_digit_is_changed(logs: Logs, chance: random.Random) -> None:
    put(logs, chance.choice(updates(logs, of=calm)), digest=state(1, "positions", 10_000))


@raises("invented")
def a_state_is_shown_before_it_was_true(logs: Logs, chance: random.Random) -> None:
    early = chance.choice(updates(logs, of=calm))
    later = next(change for change in logs.changes if change.user == 1 and change.t > early.t + 3)
    put(logs, early, digest=later.digests["positions"])


@raises("foreign")
def users_are_crossed(logs: Logs, chance: random.Random) -> None:
    mine = chance.choice(updates(logs, 1, of=calm))
    put(logs, mine, digest=[entry for entry in updates(logs, 2) if entry.t < mine.t][-1].digest)


@raises("foreign")
def an_update_is_addressed_to_another_user(logs: Logs, chance: random.Random) -> None:
    put(logs, chance.choice(updates(logs, of=calm)), told_user=2)


@raises("repeated")
def a_seq_is_repeated(logs: Logs, chance: random.Random) -> None:
    one = chance.choice(updates(logs, of=calm))
    add(logs, again(one, one.t + 0.001))


@raises("repeated")
def equal_content_comes_with_a_new_seq(logs: Logs, chance: random.Random) -> None:
    one = chance.choice(updates(logs, of=calm))
    add(logs, again(one, one.t + 0.001, seq=one.seq + 1))


@raises("unsolicited")
def an_update_follows_unsubscribed(logs: Logs, chance: random.Random) -> None:
    left = next(e for e in logs.entries if (e.client, e.event) == (LEAVING_ORDERS, "unsubscribed"))
    last = [entry for entry in updates(logs, LEAVING_ORDERS, "orders") if entry.t < left.t][-1]
    add(logs, again(last, left.t + chance.uniform(0.1, 2.0)))


@raises("unsolicited")
def an_update_comes_before_subscribed(logs: Logs, chance: random.Random) -> None:
    back = next(e for e in logs.entries if (e.client, e.conn, e.event) == (RETURNING, 2, "subscribed"))
    snapshot = next(entry for entry in updates(logs, RETURNING) if entry.conn == 2)
    put(logs, snapshot, t=back.t - 0.005)
    logs.entries = sorted(logs.entries, key=lambda entry: entry.t)


@raises("silent_stale")
def nobody_tells_a_client_that_it_sees_old_figures(logs: Logs, chance: random.Random) -> None:
    client = chance.randrange(1, 7)
    logs.entries = [e for e in logs.entries if (e.client, e.event, e.type) != (client, "status", "pnl")]


@raises("silent_stale")
def nobody_tells_a_client_that_all_is_well_again(logs: Logs, chance: random.Random) -> None:
    client = chance.choice((1, 3, 4, 5, 6))  # one that stayed connected: a new connection begins as live
    logs.entries = [
        e for e in logs.entries if (e.client, e.event, e.type, e.state) != (client, "status", "orders", "live")
    ]


def asked(logs: Logs, t: float, status: int = 200, user: int = 1) -> Answer:
    version = next(change.version for change in reversed(logs.changes) if change.user == user and change.t <= t)
    code = 0 if status == 200 else None
    return Answer(t, t + 0.01, "127.0.0.1", f"key-{user}", user, POSITIONS, "", status, code, version)


@raises("over_budget")
def a_banned_address_goes_on_asking(logs: Logs, chance: random.Random) -> None:
    logs.answers = [*logs.answers, asked(logs, chance.uniform(BAN.t_start + 2, BAN.t_end - 0.1), 403)]


@raises("over_budget")
def an_address_asks_more_than_its_share(logs: Logs, chance: random.Random) -> None:
    start = chance.uniform(122, 124)
    time_asked = Answer(0, None, "127.0.0.2", "", None, "/v5/market/time", "", 200, 0, None)
    burst = [dataclasses.replace(time_asked, t_in=start + n * 0.01) for n in range(RULES.address_requests + 1)]
    logs.answers = [*logs.answers, *burst]


@raises("double_fetch")
def a_user_is_read_twice(logs: Logs, chance: random.Random) -> None:
    # The last one, long after the last fault: nothing excuses it.
    last = [answer for answer in logs.answers if answer.user == 1 and answer.endpoint == POSITIONS][-1]
    logs.answers = [*logs.answers, dataclasses.replace(last, t_in=last.t_in + chance.uniform(0.05, 0.9))]


@raises("secret_seen")
def a_secret_is_logged(logs: Logs, chance: random.Random) -> None:
    place = chance.choice(sorted(logs.texts))
    logs.texts = {**logs.texts, place: f"{logs.texts[place]} password={SECRET}!"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_good_log_raises_no_verdict(seed: int) -> None:
    assert judge(good_run(seed), RULES) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("verdict", "corrupt"), CORRUPTIONS, ids=[corrupt.__name__ for _, corrupt in CORRUPTIONS])
def test_a_corruption_raises_exactly_its_verdict(verdict: str, corrupt: Corrupt, seed: int) -> None:
    logs = good_run(seed)
    corrupt(logs, random.Random(seed))
    findings = judge(logs, RULES)
    assert set(count(findings)) == {verdict}, findings


def test_every_verdict_is_raised_by_some_corruption() -> None:
    assert {verdict for verdict, _ in CORRUPTIONS} == set(VERDICTS)


def test_a_state_of_two_moments_is_invented() -> None:
    old, new = ({"total_pnl": "12", "unrealized_pnl": "2"}, {"total_pnl": "13", "unrealized_pnl": "3"})
    assert digest(old | {"total_pnl": "13"}) not in (digest(old), digest(new))


def test_the_exchange_and_the_phones_write_the_same_numbers_differently() -> None:
    shown = [{"symbol": "BTCUSDT", "size": 1.5, "entry_price": 60000, "mark_price": 60000.1}]
    truth = [{"symbol": "BTCUSDT", "size": "1.500", "entry_price": "60000.0", "mark_price": "60000.10"}]
    assert digest(shown) == digest(truth)
    assert digest(shown) != digest([shown[0] | {"size": 1.500001}])


def test_a_truth_log_with_a_hole_is_refused() -> None:
    change = {"kind": "market", "t": 1.0}
    with pytest.raises(ValueError, match="lost its entries 2 to 3"):
        read_truth([change | {"seq": 1}, change | {"seq": 4}])


def test_a_recorder_may_leave_the_digest_to_the_reader() -> None:
    line = '{"client":1,"user":1,"conn":1,"t":1.5,"event":"update","type":"orders","data":[],"types":["orders"]}'
    [entry] = read_entries([line])
    assert entry.digest == digest([]) and entry.types == ("orders",)


def test_figures_tell_how_late_a_state_was_shown_and_how_long_a_client_was_away() -> None:
    logs = good_run(1)
    figures = measure(logs)
    ban, worker, _ = figures.faults
    assert figures.clients == 6
    assert 0.5 < figures.lag_s.p50 < 2.1
    assert 9 < figures.lag_s.max < 13, "the ban held some states back"
    assert ban.reconvergence_s.max <= 2.1
    assert worker.away_s.count == 1 and worker.away_s.max == pytest.approx(0.71)
    assert figures.bytes_per_change > 0


def test_a_skipped_state_counts_as_shown_with_its_successor() -> None:
    changes = [Change(1, n, float(n), dict.fromkeys(TYPES, state(1, "pnl", n))) for n in (1, 2, 3)]
    entries = [
        Entry(1, 1, 1, 1.2, "connect"),
        Entry(1, 1, 1, 1.3, "subscribed", types=("pnl",)),
        Entry(1, 1, 1, 1.5, "update", "pnl", seq=1, digest=state(1, "pnl", 1)),
        Entry(1, 1, 1, 3.5, "update", "pnl", seq=3, digest=state(1, "pnl", 3)),
    ]
    figures = measure(Logs(changes, entries=entries))
    assert figures.snapshot_s.max == pytest.approx(0.2)
    assert (figures.lag_s.count, figures.lag_s.max) == (3, pytest.approx(1.5))
    assert figures.lag_s.p50 == pytest.approx(0.5)


def reading(user: int, t: float, status: int = 200) -> Answer:
    code = 0 if status == 200 else None
    return Answer(t, t + 0.01, "127.0.0.1", f"key-{user}", user, POSITIONS, "", status, code, 1)


def test_ages_grow_until_the_next_good_reading_and_at_both_ends_of_the_time_looked_at() -> None:
    answers = [reading(1, t) for t in (8.0, 11.0, 12.0, 19.0)] + [reading(2, 11.0, 503), reading(2, 9.0)]
    assert worst_ages(answers, (1, 2, 3), 10.0, 20.0) == {1: 7.0, 2: 11.0, 3: 10.0}
    assert worst_ages(answers, (1,), 10.0, 18.0) == {1: 6.0}


def test_unfairness_is_the_worst_off_by_the_median() -> None:
    assert unfairness({1: 5.0, 2: 5.0, 3: 5.0}) == 1.0
    assert unfairness({1: 5.0, 2: 5.0, 3: 15.0}) == 3.0


def test_the_fullest_window_slides() -> None:
    answers = [reading(1, t) for t in (0.0, 4.0, 4.5, 8.9, 9.1)]
    assert most_in_a_window(answers, 5.0) == 3
    assert most_in_a_window(answers, 0.3) == 2


def test_requests_after_a_ban_was_told_are_counted_until_it_ends() -> None:
    ban = BAN
    told = ban.t_start + 1.0
    answers = [reading(1, ban.t_start + 0.5), reading(1, told, 403), reading(2, told + 0.2, 403), reading(1, ban.t_end)]
    assert after_the_ban_was_told(answers, ban) == [pytest.approx(0.19)]


def test_lags_are_told_of_some_users_at_some_time() -> None:
    logs = good_run(1)
    everybody, one = lag_within(logs, 101, 109), lag_within(logs, 101, 109, {1})
    assert 0 < one.count < everybody.count
    assert everybody.max <= 2.1
