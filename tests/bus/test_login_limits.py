"""Row A15: guessing becomes slow, for whoever guesses and from wherever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.login_limits import ADDRESS, NAME, NETWORK, Limit, LoginLimits, address_subjects
from pushserver.errors import OverCapacity, StoreUnavailable
from pushserver.model import Secret

ALICE = (NAME, "alice")


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    client = connect(Secret(redis_url))
    yield client
    client.close()


@pytest.fixture
def limits(client: Any) -> LoginLimits:
    return LoginLimits(client)


def unlock(client: Any, subject: tuple[Limit, str]) -> int:
    """Let the lock's time pass; how many seconds it had to go."""
    key = keys.login_attempts(f"{subject[0].kind}:{subject[1]}")
    seconds, microseconds = client.time()
    left_ms = int(client.hget(key, "locked_until_ms")) - seconds * 1000 - microseconds // 1000
    client.hset(key, "locked_until_ms", 0)
    return round(left_ms / 1000)


def test_A15_each_failure_beyond_the_free_ones_doubles_the_lock(limits: LoginLimits, client: Any) -> None:
    for _ in range(NAME.free_failures):
        limits.begin(ALICE)
    locks = []
    for _ in range(12):
        with pytest.raises(OverCapacity):
            limits.begin(ALICE)
        locks.append(unlock(client, ALICE))
        limits.begin(ALICE)
    assert locks == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_A15_the_wait_is_told(limits: LoginLimits) -> None:
    for _ in range(NAME.free_failures):
        limits.begin(ALICE)
    with pytest.raises(OverCapacity) as locked:
        limits.begin(ALICE)
    assert 0 < locked.value.retry_after_s <= 1


def test_A15_asking_during_a_lock_does_not_lengthen_it(limits: LoginLimits, client: Any) -> None:
    for _ in range(NAME.free_failures + 3):
        limits.failed([ALICE])
    for _ in range(50):
        with pytest.raises(OverCapacity):
            limits.begin(ALICE)
    assert unlock(client, ALICE) == 8


def test_A15_success_forgets_the_name_and_nothing_else(limits: LoginLimits) -> None:
    address = (ADDRESS, "192.0.2.1")
    for _ in range(NAME.free_failures):
        limits.begin(ALICE)
    for _ in range(ADDRESS.free_failures):
        limits.failed([address])
    limits.forget(ALICE)
    limits.begin(ALICE)
    with pytest.raises(OverCapacity):
        limits.check([address])


def test_A15_one_password_over_many_names_locks_the_address(limits: LoginLimits) -> None:
    subjects = address_subjects("192.0.2.1")
    for number in range(ADDRESS.free_failures):
        limits.check(subjects)
        limits.begin((NAME, f"user{number}"))
        limits.failed(subjects)
    with pytest.raises(OverCapacity):
        limits.check(subjects)
    limits.check(address_subjects("192.0.2.2"))


@pytest.mark.parametrize("pattern", ["192.0.2.{}", "2001:db8:1:2::{}"])
def test_A15_many_addresses_of_one_network_lock_the_network(limits: LoginLimits, pattern: str) -> None:
    for number in range(NETWORK.free_failures):
        limits.failed(address_subjects(pattern.format(number % 50 + 1)))
    with pytest.raises(OverCapacity):
        limits.check(address_subjects(pattern.format(99)))
    limits.check(address_subjects("198.51.100.1"))


def test_A15_people_behind_one_address_have_room_to_mistype() -> None:
    assert [limit.free_failures for limit in (NAME, ADDRESS, NETWORK)] == [10, 100, 300]


def test_A15_addresses_have_their_networks() -> None:
    assert [who for _, who in address_subjects("192.0.2.77")] == ["192.0.2.0/24", "192.0.2.77"]
    assert [who for _, who in address_subjects("::ffff:192.0.2.77")] == ["192.0.2.0/24", "192.0.2.77"]
    assert [who for _, who in address_subjects("2001:db8:1:2:3::4%eth0")] == ["2001:db8:1:2::/64", "2001:db8:1:2:3::4"]
    assert address_subjects("") == address_subjects("unix:") == []


def test_an_attempt_taken_back_leaves_no_trace(limits: LoginLimits, client: Any) -> None:
    for _ in range(NAME.free_failures * 3):
        limits.begin(ALICE)
        limits.take_back(ALICE)
    assert client.keys("*") == []


def test_G08_names_do_not_become_keys_and_everything_is_forgotten(limits: LoginLimits, client: Any) -> None:
    limits.begin((NAME, "can{ary}*\n" * 1000))
    [key] = client.keys("*")
    assert b"ary" not in key and len(key) < 60
    assert 0 < client.ttl(key) <= 3600


def test_without_redis_it_says_so() -> None:
    limits = LoginLimits(connect(Secret("redis://127.0.0.1:1/0")))
    with pytest.raises(StoreUnavailable):
        limits.begin(ALICE)
