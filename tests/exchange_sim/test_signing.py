import pytest

from pushserver.exchange_sim.accounts import ApiKey
from pushserver.exchange_sim.refusals import Refusal, Unauthorized
from pushserver.exchange_sim.signing import authenticate, signature

NOW_MS = 1_767_000_000_000
KEY = ApiKey("key", "secret", 7)
QUERY = "category=linear&settleCoin=USDT"


def headers(
    timestamp_ms: int = NOW_MS, secret: str = "secret", query: str = QUERY, window: str = "5000"
) -> dict[str, str]:
    return {
        "x-bapi-api-key": "key",
        "x-bapi-timestamp": str(timestamp_ms),
        "x-bapi-recv-window": window,
        "x-bapi-sign": signature(secret, str(timestamp_ms), "key", window, query),
    }


def refusal(sent: dict[str, str], key: ApiKey = KEY, query: str = QUERY, address: str = "127.0.0.1") -> int:
    with pytest.raises(Refusal) as caught:
        authenticate(sent, query, address, {"key": key}, NOW_MS)
    return caught.value.code


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # printf '1767000000000key5000<query>' | openssl dgst -sha256 -hmac secret
        (QUERY, "55a3eb7431354f7acf24bf52eb1e1ad927fa4bd0a99323e7e6e2e31adf1f34ae"),
        ("", "fb9528e16c1f80999495bbcfbd471937366d9ff08ff5b8011666fd62dfd5b89e"),
        ("cursor=a%2C1%2C0", "fd29b37e4abcfee1ef7bc63625adfd32a4749deeae8cae5579b4b22c49b46c2d"),
    ],
)
def test_signatures_match_reference_vectors(query: str, expected: str) -> None:
    assert signature("secret", "1767000000000", "key", "5000", query) == expected


def test_a_right_signature_names_its_key() -> None:
    assert authenticate(headers(), QUERY, "127.0.0.1", {"key": KEY}, NOW_MS) is KEY


def test_the_query_is_signed_byte_for_byte() -> None:
    assert refusal(headers(query="cursor=a%2C1"), query="cursor=a,1") == 10004
    assert refusal(headers(query="a=1&b=2"), query="b=2&a=1") == 10004


def test_a_wrong_secret_is_refused() -> None:
    assert refusal(headers(secret="other")) == 10004


def test_an_unknown_key_is_refused_whatever_else_is_wrong() -> None:
    assert refusal(headers(timestamp_ms=1) | {"x-bapi-api-key": "nobody"}) == 10003


@pytest.mark.parametrize("offset_ms", [-5000, 0, 999])
def test_timestamps_from_the_window_up_to_a_second_ahead_are_taken(offset_ms: int) -> None:
    assert authenticate(headers(NOW_MS + offset_ms), QUERY, "127.0.0.1", {"key": KEY}, NOW_MS) is KEY


@pytest.mark.parametrize("offset_ms", [-5001, 1000, 60_000])
def test_timestamps_outside_the_window_are_refused(offset_ms: int) -> None:
    assert refusal(headers(NOW_MS + offset_ms)) == 10002


def test_a_larger_window_forgives_late_but_not_early_requests() -> None:
    late = headers(NOW_MS - 9000, window="10000")
    assert authenticate(late, QUERY, "127.0.0.1", {"key": KEY}, NOW_MS) is KEY
    assert refusal(headers(NOW_MS + 1500, window="10000")) == 10002


def test_a_timestamp_that_is_no_number_is_refused() -> None:
    assert refusal(headers() | {"x-bapi-timestamp": "soon"}) == 10002
    assert refusal(headers() | {"x-bapi-recv-window": "-1"}) == 10002


@pytest.mark.parametrize("missing", ["x-bapi-api-key", "x-bapi-timestamp", "x-bapi-sign"])
def test_missing_headers_are_not_even_a_refusal(missing: str) -> None:
    sent = {name: value for name, value in headers().items() if name != missing}
    with pytest.raises(Unauthorized):
        authenticate(sent, QUERY, "127.0.0.1", {"key": KEY}, NOW_MS)


def test_without_a_window_five_seconds_hold() -> None:
    sent = headers(NOW_MS - 5000, window="")
    del sent["x-bapi-recv-window"]
    assert authenticate(sent, QUERY, "127.0.0.1", {"key": KEY}, NOW_MS) is KEY


def test_an_expired_key_and_a_foreign_address_are_refused() -> None:
    assert refusal(headers(), ApiKey("key", "secret", 7, expires_ms=NOW_MS)) == 33004
    assert refusal(headers(), ApiKey("key", "secret", 7, ips=("10.1.2.3",))) == 10010


def test_the_secret_is_not_shown() -> None:
    assert "secret" not in repr(KEY).replace("secret=", "")
