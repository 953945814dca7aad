"""Every failure of our own, as one tree.

    PushserverError
    ├── SettingsError            the environment is wrong; the process does not start (exit code 2)
    ├── TokenRefused             a JWT cannot be accepted; ``code`` goes to the client
    ├── PayloadRefused           a client's event or request body is wrong; nothing changes
    ├── StoreUnavailable         Redis or the database cannot be reached in time; try again
    ├── CredentialsUnreadable    a stored exchange key cannot be decrypted; that user stops
    ├── AccountRefused           an account change asks for what cannot be: a taken name, an unknown user
    ├── OverCapacity             more of one kind of work than is allowed at a time; wait ``retry_after_s``
    └── ExchangeError            a fetch failed; the last good state stays
        ├── KeyRefused           whose: the key. No request until the key is replaced
        │   └── PermissionMissing    only the kind of data asked for; the key is fine for the others
        ├── RateLimited          whose: the user at one endpoint. Wait ``retry_after_s``
        ├── AddressBanned        whose: our address. Every request behind it waits
        ├── ClockSkew            whose: our clock. Measure the offset, sign again once
        ├── ExchangeUnavailable  whose: the exchange. Back off
        ├── AnswerMalformed      whose: the exchange. A blank or wrong value where a figure must be; back off
        └── RequestRejected      whose: us or the account's mode. Repeating it as it is cannot help

A program reads ``code`` (stable, snake_case); a person reads ``message``. Neither ever holds a key, a token,
a header or a signed query.
"""

from __future__ import annotations

from enum import StrEnum


class Whose(StrEnum):
    """Whose problem a failed request is."""

    REQUEST = "request"
    KEY = "key"
    USER = "user"
    ADDRESS = "address"
    CLOCK = "clock"
    EXCHANGE = "exchange"


class Reaction(StrEnum):
    """What is done about it."""

    SIGN_AGAIN = "sign again once, by the exchange's time"
    STOP_KEY = "no request until the key is replaced"
    STOP_KIND = "no request of this kind until the key is replaced"
    WAIT_FOR_RESET = "this user waits at this endpoint"
    SILENCE = "nobody behind this address asks; idle connections are closed"
    BACK_OFF = "again later, each time later"
    LEAVE_IT = "repeating it cannot help"


class PushserverError(Exception):
    code = "internal_error"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message or self.code)
        self.message = message or self.code
        if code is not None:
            self.code = code


class SettingsError(PushserverError):
    """All problems of the environment at once."""

    code = "settings_invalid"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class TokenRefused(PushserverError):
    """``code`` is one of token_missing, token_invalid, token_expired, token_revoked, user_disabled, server_busy."""

    code = "token_invalid"


class PayloadRefused(PushserverError):
    """``details`` go into the ``error`` event beside code and message."""

    code = "invalid_payload"

    def __init__(self, message: str = "", *, code: str | None = None, **details: object) -> None:
        super().__init__(message, code=code)
        self.details = details


class StoreUnavailable(PushserverError):
    code = "server_busy"


class CredentialsUnreadable(PushserverError):
    code = "key_unreadable"


class AccountRefused(PushserverError):
    """``code``: name_invalid, name_taken, id_invalid, id_taken, password_invalid, key_invalid or unknown_user."""

    code = "account_refused"


class OverCapacity(PushserverError):
    code = "rate_limited"

    def __init__(self, message: str = "", *, code: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class ExchangeError(PushserverError):
    """A fetch that gave no usable answer.

    ``endpoint`` is the path asked (an enum label, no parameters), ``exchange_code`` Bybit's retCode or the HTTP
    status (None when nothing was answered), ``retry_after_s`` the server's own hint where it gave one.
    """

    code = "exchange_error"
    whose = Whose.EXCHANGE
    reaction = Reaction.BACK_OFF

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        endpoint: str = "",
        exchange_code: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.endpoint = endpoint
        self.exchange_code = exchange_code
        self.retry_after_s = retry_after_s


class KeyRefused(ExchangeError):
    """``code``: key_invalid, key_expired, key_ip_not_allowed, key_signature, account_blocked; below: key_permission."""

    code = "key_invalid"
    whose = Whose.KEY
    reaction = Reaction.STOP_KEY


class PermissionMissing(KeyRefused):
    """The key may not read this kind of data; what else it may read goes on."""

    code = "key_permission"
    reaction = Reaction.STOP_KIND


class RateLimited(ExchangeError):
    code = "exchange_rate_limited"
    whose = Whose.USER
    reaction = Reaction.WAIT_FOR_RESET


class AddressBanned(ExchangeError):
    code = "exchange_address_banned"
    whose = Whose.ADDRESS
    reaction = Reaction.SILENCE


class ClockSkew(ExchangeError):
    code = "exchange_clock_skew"
    whose = Whose.CLOCK
    reaction = Reaction.SIGN_AGAIN


class ExchangeUnavailable(ExchangeError):
    code = "exchange_unavailable"


class AnswerMalformed(ExchangeError):
    code = "exchange_answer_malformed"


class RequestRejected(ExchangeError):
    code = "exchange_request_rejected"
    whose = Whose.REQUEST
    reaction = Reaction.LEAVE_IT
