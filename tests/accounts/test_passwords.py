from __future__ import annotations

import gevent
import pytest

from pushserver.accounts import passwords as module
from pushserver.accounts.passwords import Passwords, normalised
from pushserver.errors import AccountRefused, OverCapacity
from pushserver.model import Secret


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(memory_kib=64, passes=1)


def test_F03_the_stored_form_is_argon2id_and_salted(passwords: Passwords) -> None:
    first, second = passwords.hash(Secret("pw")), passwords.hash(Secret("pw"))
    assert first.startswith("$argon2id$") and first != second
    assert "pw" not in first


def test_the_defaults_are_at_least_what_owasp_asks_for() -> None:
    stored = Passwords().hash(Secret("pw"))
    assert "$m=19456,t=2,p=1$" in stored


@pytest.mark.parametrize(("stored_as", "typed_as"), [("caf\u00e9", "cafe\u0301"), ("\u212b", "A\u030a")])
def test_A17_the_same_characters_are_the_same_password(passwords: Passwords, stored_as: str, typed_as: str) -> None:
    assert passwords.verify(passwords.hash(Secret(stored_as)), Secret(typed_as))


def test_A17_nul_is_a_character_like_others(passwords: Passwords) -> None:
    stored = passwords.hash(Secret("a\0b"))
    assert passwords.verify(stored, Secret("a\0b"))
    assert not passwords.verify(stored, Secret("a"))


@pytest.mark.parametrize("text", ["", "x" * 1025, "x" * 1_000_000, "\ud800"])
def test_A17_what_can_be_no_password_is_refused_before_hashing(text: str) -> None:
    with pytest.raises(AccountRefused) as refused:
        normalised(Secret(text))
    assert refused.value.code == "password_invalid"
    assert len(str(refused.value)) < 100


def test_a_damaged_hash_matches_nothing(passwords: Passwords) -> None:
    assert not passwords.verify("$argon2id$damaged", Secret("pw"))
    assert not passwords.verify("!", Secret("pw"))


def test_A14_an_unknown_name_costs_a_real_hash_of_the_same_parameters(passwords: Passwords) -> None:
    looked_at: list[str] = []
    verify = passwords._hasher.verify

    class Spy:
        def verify(self, stored: str, prepared: bytes) -> bool:
            looked_at.append(stored)
            return verify(stored, prepared)

    passwords._hasher = Spy()  # type: ignore[assignment]
    assert not passwords.verify(None, Secret("nobody has this password"))
    assert looked_at[0].startswith("$argon2id$v=19$m=64,t=1,p=1$")


def test_A14_known_and_unknown_names_take_the_same_time() -> None:
    from statistics import median

    from pushserver.clock import SystemClock

    passwords, clock = Passwords(), SystemClock()
    stored = passwords.hash(Secret("right"))
    taken: dict[bool, list[float]] = {True: [], False: []}
    for number in range(60):
        known = number % 2 == 0
        started_s = clock.monotonic_s()
        assert not passwords.verify(stored if known else None, Secret("wrong"))
        taken[known].append(clock.monotonic_s() - started_s)
    # Loose, because a shared machine is noisy: leaving the hash out would make it a hundred times.
    assert 0.7 < median(taken[True]) / median(taken[False]) < 1.4


def test_A16_a_burst_is_hashed_two_at_a_time_and_the_rest_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HASH_QUEUE", 3)
    passwords = Passwords(memory_kib=64, passes=1)
    passwords._offload._queue_size = 3
    jobs = [gevent.spawn(passwords.hash, Secret("pw")) for _ in range(20)]
    gevent.joinall(jobs)
    refused = [job for job in jobs if isinstance(job.exception, OverCapacity)]
    assert len(refused) == 15
    assert all(job.value for job in jobs if job not in refused)


def test_A16_the_loop_runs_on_while_passwords_are_hashed() -> None:
    from pushserver.clock import SystemClock

    clock, passwords, stalls = SystemClock(), Passwords(memory_kib=262_144, passes=3), []
    job = gevent.spawn(passwords.hash, Secret("pw"))
    started_s = clock.monotonic_s()
    while not job.ready():
        before_s = clock.monotonic_s()
        gevent.sleep(0.001)
        stalls.append(clock.monotonic_s() - before_s)
    hashing_s = clock.monotonic_s() - started_s
    assert job.value
    assert len(stalls) > 5
    assert max(stalls) < max(0.05, hashing_s / 2)
