"""Users whose key does not serve: no request for them until another key is stored."""

from __future__ import annotations

from pushserver.errors import CredentialsUnreadable, KeyRefused, PushserverError, StoreUnavailable
from pushserver.model import Credentials
from pushserver.workers.failing import report, spoil
from pushserver.workers.memo import Stop
from pushserver.workers.round_state import RoundState

#: How often the stored key of a stopped, watched user is looked at; a signal makes it quicker.
CHECK_S = 20.0
#: A key that was refused is tried again once a day.
REFUSED_KEY_AGAIN_MS = 86_400_000


def usable_credentials(state: RoundState) -> Credentials | None:
    """The key to ask with; None when the user is (or now was) stopped, or when the database cannot say."""
    stopped, keys = state.memo.stop, state.tools.credentials
    try:
        credentials = keys.get(state.user_id) if stopped is None else keys.read(state.user_id)
    except CredentialsUnreadable as error:
        stop(state, error, None)
        return None
    except StoreUnavailable as error:
        if stopped is None:
            spoil(state, state.watched, error, "database")
        return None
    if credentials is None:
        stop(state, KeyRefused(code="key_missing"), None)
        return None
    if stopped is not None and stopped.key_version == credentials.version and not _may_try_again(state, stopped):
        return None
    state.memo.stop = None
    return credentials


def stop(state: RoundState, error: PushserverError, key_version: int | None) -> None:
    """No request for this user until ``key_version`` has been replaced; reported once."""
    known = state.memo.stop
    if known is None or (known.code, known.key_version) != (error.code, key_version):
        state.memo.stop = Stop(error.code, key_version, state.now_ms())
        report(state, sorted(state.watched), error, getattr(error, "endpoint", ""), CHECK_S)


def _may_try_again(state: RoundState, stopped: Stop) -> bool:
    return not 0 <= state.now_ms() - stopped.at_ms < REFUSED_KEY_AGAIN_MS
