"""The store over both databases."""

from __future__ import annotations

import gevent
import pytest

from pushserver.accounts.store import AccountStore
from pushserver.clock import ManualClock
from pushserver.errors import AccountRefused, CredentialsUnreadable
from pushserver.model import MAX_USER_ID, KeyFacts, Secret
from tests.accounts.conftest import VAULT_KEY, cheap_passwords

PASSWORD = Secret("correct horse")


def code_of(refused: pytest.ExceptionInfo[AccountRefused]) -> str:
    return refused.value.code


def test_a_user_gets_the_id_asked_for_and_the_next_one_follows(store: AccountStore) -> None:
    assert store.add_user("alice", PASSWORD, 4).id == 4
    assert store.add_user("bob", PASSWORD).id == 5
    assert [user.name for user in store.users()] == ["alice", "bob"]


def test_ids_of_64_bits_are_kept_whole(store: AccountStore) -> None:
    assert store.add_user("alice", PASSWORD, MAX_USER_ID).id == MAX_USER_ID
    assert store.users()[0].id == MAX_USER_ID
    with pytest.raises(AccountRefused) as refused:
        store.add_user("bob", PASSWORD)
    assert code_of(refused) == "id_taken"


@pytest.mark.parametrize("user_id", [0, -1, 2**63])
def test_an_id_outside_the_range_is_refused(store: AccountStore, user_id: int) -> None:
    with pytest.raises(AccountRefused) as refused:
        store.add_user("alice", PASSWORD, user_id)
    assert code_of(refused) == "id_invalid"


def test_a_name_and_an_id_are_given_once(store: AccountStore) -> None:
    store.add_user("alice", PASSWORD, 4)
    with pytest.raises(AccountRefused) as same_name:
        store.add_user("alice", PASSWORD)
    with pytest.raises(AccountRefused) as same_id:
        store.add_user("bob", PASSWORD, 4)
    assert (code_of(same_name), code_of(same_id)) == ("name_taken", "id_taken")


@pytest.mark.parametrize(
    "name", ["", "a b", "a'; DROP TABLE users; --", "é", "a" * 65, "../x", "~removed-1", "a\n", "-a", "a\0b"]
)
def test_C06_a_name_outside_the_whitelist_is_refused(store: AccountStore, name: str) -> None:
    with pytest.raises(AccountRefused) as refused:
        store.add_user(name, PASSWORD)
    assert code_of(refused) == "name_invalid"


@pytest.mark.parametrize("name", ["' OR '1'='1", "alice'--", "%", "_____", "a\0b", "x" * 5000, "\ud800"])
def test_C06_sql_in_a_login_name_finds_nobody(store: AccountStore, name: str) -> None:
    store.add_user("alice", PASSWORD)
    assert store.authenticate(name, PASSWORD) is None
    assert len(store.users()) == 1


def test_many_users_added_at_once_all_get_ids_of_their_own(store: AccountStore) -> None:
    jobs = [gevent.spawn(store.add_user, f"user{number}", PASSWORD) for number in range(12)]
    gevent.joinall(jobs, raise_error=True)
    assert sorted(job.value.id for job in jobs) == list(range(1, 13))


def test_only_the_right_password_authenticates(store: AccountStore) -> None:
    user = store.add_user("alice", PASSWORD)
    assert store.authenticate("alice", PASSWORD) == user
    assert store.authenticate("alice", Secret("wrong")) is None
    assert store.authenticate("Alice", PASSWORD) is None
    assert store.authenticate("nobody", Secret("nobody has this password")) is None


def test_A14_a_disabled_user_is_treated_like_a_stranger(store: AccountStore) -> None:
    user = store.add_user("alice", PASSWORD)
    store.disable(user.id)
    assert store.authenticate("alice", PASSWORD) is None
    store.enable(user.id)
    assert store.authenticate("alice", PASSWORD) is not None


def test_a_password_can_be_replaced(store: AccountStore) -> None:
    user = store.add_user("alice", PASSWORD)
    store.set_password(user.id, Secret("new"))
    assert store.authenticate("alice", PASSWORD) is None
    assert store.authenticate("alice", Secret("new")) is not None


def test_an_outdated_hash_is_renewed_at_login(store: AccountStore) -> None:
    from pushserver.accounts.passwords import Passwords

    user = store.add_user("alice", PASSWORD)
    store._passwords = Passwords(memory_kib=128, passes=1)
    assert store.authenticate("alice", PASSWORD) == user
    store._passwords = cheap_passwords()
    renewed: list[str] = []
    store._passwords.outdated = lambda stored: bool(renewed.append(stored))  # type: ignore[method-assign]
    store.authenticate("alice", PASSWORD)
    assert "m=128" in renewed[0]


def test_a_removed_user_leaves_nothing_but_a_taken_id(store: AccountStore) -> None:
    user = store.add_user("alice", PASSWORD)
    store.set_key(user.id, "key", Secret("secret"))
    store.remove(user.id)
    assert store.users() == []
    assert store.credentials(user.id) is None and store.key_summary(user.id) is None
    assert store.access_rules().disabled_users == {user.id}
    assert store.add_user("alice", PASSWORD).id == user.id + 1


@pytest.mark.parametrize("method", ["disable", "enable", "remove", "revoke_tokens"])
def test_changing_an_unknown_user_is_refused(store: AccountStore, method: str) -> None:
    with pytest.raises(AccountRefused) as refused:
        getattr(store, method)(99)
    assert code_of(refused) == "unknown_user"


def test_rules_name_what_is_disabled_and_revoked(store: AccountStore, clock: ManualClock) -> None:
    alice, bob = store.add_user("alice", PASSWORD), store.add_user("bob", PASSWORD)
    store.disable(bob.id)
    not_before_s = store.revoke_tokens(alice.id)
    store.revoke_token("aa", alice.id, clock.wall_ms() // 1000 + 60)
    store.revoke_token("aa", alice.id, clock.wall_ms() // 1000 + 60)
    rules = store.access_rules()
    assert rules.disabled_users == {bob.id}
    assert rules.tokens_not_before_s == {alice.id: not_before_s}
    assert rules.revoked_tokens == {"aa"}


def test_a_revocation_is_forgotten_when_the_token_is_over(store: AccountStore, clock: ManualClock) -> None:
    store.revoke_token("aa", 1, clock.wall_ms() // 1000 + 60)
    clock.advance(61)
    assert store.access_rules().revoked_tokens == frozenset()
    store.revoke_token("bb", 1, clock.wall_ms() // 1000 + 60)
    clock.advance(-61)
    assert store.access_rules().revoked_tokens == {"bb"}, "the row itself is gone too"


def test_stored_credentials_come_back_whole(store: AccountStore) -> None:
    user = store.add_user("alice", PASSWORD)
    assert store.credentials(user.id) is None
    store.set_key(user.id, "key", Secret("secret"))
    credentials = store.credentials(user.id)
    assert credentials is not None
    assert (credentials.api_key, credentials.api_secret) == ("key", Secret("secret"))


def test_credentials_of_a_disabled_or_unknown_user_are_not_given(store: AccountStore) -> None:
    user = store.add_user("alice", PASSWORD)
    store.set_key(user.id, "key", Secret("secret"))
    store.disable(user.id)
    assert store.credentials(user.id) is None
    assert store.credentials(99) is None


def test_each_replacement_of_a_key_has_a_new_version(store: AccountStore, clock: ManualClock) -> None:
    user = store.add_user("alice", PASSWORD)
    versions = [store.set_key(user.id, "key", Secret("secret")).version for _ in range(3)]
    assert store.delete_key(user.id) and not store.delete_key(user.id)
    clock.advance(1)
    versions.append(store.set_key(user.id, "key", Secret("secret")).version)
    assert versions == sorted(set(versions))


def test_C05_one_exchange_key_may_serve_two_users(store: AccountStore) -> None:
    users = [store.add_user(name, PASSWORD) for name in ("alice", "bob")]
    for user in users:
        store.set_key(user.id, "same", Secret("secret"))
    store.delete_key(users[0].id)
    assert store.credentials(users[0].id) is None
    assert store.credentials(users[1].id) is not None


def test_a_summary_shows_the_key_masked_and_no_secret(store: AccountStore, clock: ManualClock) -> None:
    user = store.add_user("alice", PASSWORD)
    facts = KeyFacts(read_only=True, permissions=("Wallet:AccountTransfer",), expires_s=1_800_000_000)
    summary = store.set_key(user.id, "abcdefghijklmnop", Secret("canary-secret"), facts)
    assert summary == store.key_summary(user.id)
    assert (summary.api_key, summary.facts) == ("abcd…mnop", facts)
    assert "canary" not in repr(summary) and "canary" not in repr(store.users())
    assert store.users()[0].api_key == "abcd…mnop"


@pytest.mark.parametrize(("api_key", "secret"), [("", "s"), ("k", ""), ("k k", "s"), ("k", "s\n"), ("k" * 129, "s")])
def test_what_no_exchange_hands_out_is_no_key(store: AccountStore, api_key: str, secret: str) -> None:
    user = store.add_user("alice", PASSWORD)
    with pytest.raises(AccountRefused) as refused:
        store.set_key(user.id, api_key, Secret(secret))
    assert code_of(refused) == "key_invalid"


def test_a_key_for_an_unknown_user_is_refused(store: AccountStore) -> None:
    with pytest.raises(AccountRefused) as refused:
        store.set_key(99, "key", Secret("secret"))
    assert code_of(refused) == "unknown_user"


def test_F04_one_unreadable_secret_is_that_users_failure_alone(store: AccountStore) -> None:
    for name in ("alice", "bob"):
        store.set_key(store.add_user(name, PASSWORD).id, "key", Secret("secret"))
    from pushserver.accounts.models import ExchangeKeyRow

    def damage(session: object) -> None:
        row = session.get(ExchangeKeyRow, 1)  # type: ignore[attr-defined]
        row.secret = row.secret[:-4] + "AAAA"

    store._database.write(damage)
    with pytest.raises(CredentialsUnreadable):
        store.credentials(1)
    assert store.credentials(2) is not None
    assert store.reencrypt_keys() == (0, [1])


def test_F04_after_rotation_the_old_key_is_not_needed(store: AccountStore) -> None:
    from cryptography.fernet import Fernet

    from pushserver.accounts.vault import Vault

    user = store.add_user("alice", PASSWORD)
    version = store.set_key(user.id, "key", Secret("secret")).version
    new_key = Secret(Fernet.generate_key().decode())
    store._vault = Vault([new_key, VAULT_KEY])
    assert store.credentials(user.id) is not None, "old and new work side by side"
    assert store.reencrypt_keys() == (1, [])
    assert store.reencrypt_keys() == (0, []), "repeating it changes nothing"
    store._vault = Vault([new_key])
    credentials = store.credentials(user.id)
    assert credentials is not None and credentials.version == version
