from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from pushserver.accounts.vault import Vault
from pushserver.errors import CredentialsUnreadable
from pushserver.model import Secret


def new_key() -> Secret:
    return Secret(Fernet.generate_key().decode())


def test_F03_a_secret_is_not_in_what_is_stored() -> None:
    stored = Vault([new_key()]).encrypt(Secret("canary"))
    assert "canary" not in stored


def test_F04_all_keys_decrypt_and_the_first_encrypts() -> None:
    old, new = new_key(), new_key()
    stored_before = Vault([old]).encrypt(Secret("s"))
    both = Vault([new, old])
    assert both.decrypt(stored_before) == Secret("s")
    assert not both.is_current(stored_before)
    assert Vault([new]).decrypt(both.encrypt(Secret("s"))) == Secret("s")


@pytest.mark.parametrize("stored", ["", "garbage", "é", "gAAAAA"])
def test_F04_what_cannot_be_decrypted_is_one_error(stored: str) -> None:
    with pytest.raises(CredentialsUnreadable) as unreadable:
        Vault([new_key()]).decrypt(stored)
    assert unreadable.value.__cause__ is None
