"""What is remembered between rounds survives Redis, or counts as nothing."""

from __future__ import annotations

import pytest

from pushserver.model import DataType
from pushserver.workers.memo import Memo, Resource, Stop


def test_a_memo_comes_back_as_it_was_written() -> None:
    memo = Memo(key_version=3, heard_ms=5, realized="1.50", stop=Stop("key_invalid", 3, 7))
    memo.resources[Resource.WALLET].failures = 2
    memo.types[DataType.PNL].good_ms = 9
    assert Memo.from_bytes(memo.to_bytes()) == memo


@pytest.mark.parametrize(
    "raw",
    [
        None, b"", b"null", b"[]", b"3", b"{}", b'{"stop":null}', b"\xff\xfe", b'{"unknown":1}',
        Memo(realized="x").to_bytes(), Memo().to_bytes().replace(b"wallet", b"purse"),
        Memo().to_bytes()[:-3], Memo().to_bytes().replace(b'"good_ms":0', b'"nonsense":0'),
    ],
)  # fmt: skip
def test_a_damaged_memo_counts_as_none(raw: bytes | None) -> None:
    assert Memo.from_bytes(raw) == Memo()


def test_a_new_key_forgets_figures_and_failures_but_not_who_listens() -> None:
    memo = Memo(key_version=1, realized="5", wallet_trace="a", today="1", positions_trace="b", recounts=2)
    memo.heard_ms = 77
    memo.resources[Resource.ORDERS].retry_ms = 99
    memo.types[DataType.ORDERS].good_ms = 50
    memo.use_key(2)
    assert (memo.realized, memo.wallet_trace, memo.today, memo.positions_trace, memo.recounts) == (
        None, None, None, None, 0,
    )  # fmt: skip
    assert memo.resources[Resource.ORDERS].retry_ms == memo.types[DataType.ORDERS].good_ms == 0
    assert memo.heard_ms == 77


def test_the_same_key_forgets_nothing() -> None:
    memo = Memo(key_version=1, realized="5")
    memo.use_key(1)
    assert memo.realized == "5"


def test_a_memo_from_the_future_was_written_by_another_clock() -> None:
    memo = Memo(heard_ms=60_000)
    memo.resources[Resource.WALLET].fetched_ms = 60_000
    assert Memo.from_bytes(memo.to_bytes(), now_ms=59_000) == memo
    assert Memo.from_bytes(memo.to_bytes(), now_ms=10_000) == Memo()


def test_a_hint_stays_open_since_it_came_whatever_comes_again() -> None:
    memo = Memo()
    wallet = memo.resources[Resource.WALLET]
    memo.hinted([Resource.WALLET], 1_000)
    memo.hinted([Resource.WALLET], 3_000)
    assert wallet.wanted_ms == 1_000
    wallet.wanted_ms = 9_000
    memo.hinted([Resource.WALLET], 4_000)
    assert wallet.wanted_ms == 4_000, "one that was to be looked at later is looked at now"
