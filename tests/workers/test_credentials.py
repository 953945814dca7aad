"""Keys at hand: rarely read, quickly forgotten."""

from __future__ import annotations

import pytest

from pushserver.clock import ManualClock
from pushserver.errors import CredentialsUnreadable, StoreUnavailable
from pushserver.model import Credentials
from pushserver.workers.credentials import CredentialsCache
from tests.fakes import FakeKeys


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keys() -> FakeKeys:
    return FakeKeys()


@pytest.fixture
def cache(keys: FakeKeys, clock: ManualClock) -> CredentialsCache:
    return CredentialsCache(keys, clock)


def version(credentials: Credentials | None) -> int | None:
    return credentials.version if credentials else None


def test_a_key_is_read_once_a_minute(cache: CredentialsCache, keys: FakeKeys, clock: ManualClock) -> None:
    for _ in range(59):
        cache.get(4)
        clock.advance(1)
    assert keys.reads == 1
    clock.advance(2)
    cache.get(4)
    assert keys.reads == 2


def test_a_forgotten_key_is_read_anew(cache: CredentialsCache, keys: FakeKeys) -> None:
    cache.get(4)
    keys.versions[4] = 2
    cache.forget(4)
    assert version(cache.get(4)) == 2


def test_a_known_key_serves_ten_minutes_without_the_database(
    cache: CredentialsCache, keys: FakeKeys, clock: ManualClock
) -> None:
    cache.get(4)
    keys.errors[4] = StoreUnavailable()
    clock.advance(590)
    assert version(cache.get(4)) == 1
    clock.advance(20)
    with pytest.raises(StoreUnavailable):
        cache.get(4)


def test_a_key_that_became_unreadable_is_not_used_from_memory(
    cache: CredentialsCache, keys: FakeKeys, clock: ManualClock
) -> None:
    cache.get(4)
    keys.errors[4] = CredentialsUnreadable()
    clock.advance(61)
    with pytest.raises(CredentialsUnreadable):
        cache.get(4)


def test_a_key_replaced_while_it_was_read_is_not_kept(cache: CredentialsCache, keys: FakeKeys) -> None:
    read = keys.credentials

    def read_and_be_replaced(user_id: int) -> Credentials | None:
        found = read(user_id)
        cache.forget(user_id)
        return found

    keys.credentials = read_and_be_replaced  # type: ignore[method-assign]
    cache.get(4)
    assert not cache.is_current(4, 1)


def test_an_answer_is_current_only_while_its_key_is(cache: CredentialsCache, keys: FakeKeys) -> None:
    cache.get(4)
    assert cache.is_current(4, 1)
    assert not cache.is_current(4, 2)
    cache.forget(4)
    assert not cache.is_current(4, 1)


def test_keys_nobody_uses_leave_the_memory(cache: CredentialsCache, keys: FakeKeys, clock: ManualClock) -> None:
    cache.get(4)
    clock.advance(601)
    cache.get(5)
    cache.forget_old()
    assert not cache.is_current(4, 1) and cache.is_current(5, 1)
