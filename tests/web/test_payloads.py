"""What clients may say: taken when understood, named or refused when not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.errors import PayloadRefused
from pushserver.model import DataType
from pushserver.web.payloads import carried_tokens, parse_resume, parse_resync, parse_token, parse_types

ALL = tuple(DataType)


@pytest.mark.parametrize("arguments", [[], [{}], [{"user_id": 5}], [{"room": "balance_5"}]])
def test_D07_neither_key_means_all_four(arguments):
    assert parse_types(arguments).accepted == ALL


@pytest.mark.parametrize(
    "arguments", [[None], ["balance"], [7], [["balance"]], [True], [{}] * 10, [{"types": ["balance"]}, 1]]
)
def test_D07_anything_but_one_object_is_refused(arguments):
    with pytest.raises(PayloadRefused):
        parse_types(arguments)


@pytest.mark.parametrize(
    "types",
    [None, "balance", {}, 1, 1.5, True, ["balance", 1], [None], [["balance"]], [{}], ["balance"] * 17, ["x"] * 10_000],
)
def test_D08_types_that_are_no_short_list_of_names_are_refused(types):
    with pytest.raises(PayloadRefused):
        parse_types([{"types": types}])


def test_D08_known_names_are_taken_once_and_unknown_ones_named_and_cut():
    choice = parse_types([{"types": ["pnl", " Balance", "pnl", "x" * 60_000, "balance_5"]}])
    assert choice.accepted == (DataType.PNL,)
    assert choice.unknown == (" Balance", "x" * 32, "balance_5")


def test_D08_types_wins_over_its_other_name_and_an_empty_list_means_none():
    assert parse_types([{"types": ["pnl"], "subscribeTypes": ["orders"]}]).accepted == (DataType.PNL,)
    assert parse_types([{"subscribeTypes": ["orders"]}]).accepted == (DataType.ORDERS,)
    assert parse_types([{"types": []}]).accepted == ()


@pytest.mark.parametrize("seq", ["5", 5.0, -1, 2**70, None, True, [], {}])
def test_D09_only_whole_numbers_of_known_types_count(seq):
    request = parse_resync([{"since": {"positions": seq, "pnl": 7, "nonsense": 1}}])
    assert request.since == {DataType.PNL: 7}
    assert request.ignored


def test_D09_a_since_that_is_no_object_is_refused_and_a_missing_one_is_empty():
    for since in (None, [], "x", 5):
        with pytest.raises(PayloadRefused):
            parse_resync([{"since": since}])
    assert parse_resync([]).since == {}
    assert not parse_resync([{"since": {"balance": 2**62}}]).ignored


@pytest.mark.parametrize("arguments", [[], [None], [{}], ["token"], [{"token": "a"}, 1]])
def test_an_authenticate_without_one_token_is_refused(arguments):
    with pytest.raises(PayloadRefused):
        parse_token(arguments)


@pytest.mark.parametrize(("token", "taken"), [("a.b.c", "a.b.c"), ("", ""), (None, ""), ({"a": 1}, {"a": 1})])
def test_A11_a_token_of_any_shape_was_sent_and_is_not_missing(token, taken):
    assert parse_token([{"token": token}]) == taken


def test_A07_tokens_are_tried_in_the_order_payload_header_url():
    carried = carried_tokens({"token": "a", "auth": {"token": "b"}}, "bearer c", "d")
    assert carried == [("payload", "a"), ("payload", "b"), ("header", "c"), ("url", "d")]


@pytest.mark.parametrize("auth", [None, [], "x", 5, {"auth": "x"}, {"auth": []}, {}])
def test_A06_an_auth_payload_of_any_shape_carries_no_token(auth):
    assert carried_tokens(auth, "Basic abc", None) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["types", "since", "a"]), inner),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=3))
def test_any_json_gives_a_choice_or_a_refusal(arguments):
    for parse in (parse_types, parse_resync, parse_token):
        try:
            parse(arguments)
        except PayloadRefused as refusal:
            assert refusal.message


@pytest.mark.parametrize(
    "auth", [None, [], "x", 5, {}, {"token": "t"}, {"auth": {"token": "t"}}, {"since": {"pnl": 1}}]
)
def test_an_auth_payload_without_subscribe_resumes_nothing(auth):
    assert parse_resume(auth) is None


@pytest.mark.parametrize("nested", [False, True])
def test_a_returning_device_names_its_types_and_what_it_holds(nested):
    wish = {"token": "t", "subscribe": ["pnl", "nonsense"], "since": {"pnl": 5, "balance": "x"}}
    resumed = parse_resume({"auth": wish} if nested else wish)
    assert resumed is not None
    assert (resumed.choice.accepted, resumed.choice.unknown) == ((DataType.PNL,), ("nonsense",))
    assert (dict(resumed.held.since), resumed.held.ignored) == ({DataType.PNL: 5}, True)


@pytest.mark.parametrize(
    "wish",
    [{"subscribe": None}, {"subscribe": "pnl"}, {"subscribe": [5]}, {"subscribe": ["pnl"] * 17},
     {"subscribe": ["pnl"], "since": []}, {"subscribe": ["pnl"], "since": None}],
)  # fmt: skip
def test_what_cannot_be_resumed_is_refused(wish):
    with pytest.raises(PayloadRefused):
        parse_resume(wish)
