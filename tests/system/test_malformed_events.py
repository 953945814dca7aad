"""A bad event is answered with ``error`` and changes nothing; bad framing closes the transport.

Against a real gunicorn worker. The ids are those of the threat table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.system.harness import Stack
from tests.system.raw_client import RawClient

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("malformed"), users=0, web_workers=1, push_workers=0).start()
    yield stack
    stack.stop()


@pytest.fixture
def client(stack: Stack) -> Iterator[RawClient]:
    client = RawClient(stack.url)
    assert client.connect({"token": stack.token(4)}).startswith("40")
    client.call("subscribe_trading", {"types": ["pnl"]})
    client.event("subscribed")
    yield client
    client.close()


def event(name: object, *arguments: object) -> str:
    return "42" + json.dumps([name, *arguments])


SUBSCRIBE, UNSUBSCRIBE, RESYNC, AUTHENTICATE = "subscribe_trading", "unsubscribe_trading", "resync", "authenticate"

INVALID = [
    # D07: the payload is no object
    *[(f"D07-{name}-{kind}", event(name, payload))
      for name in (SUBSCRIBE, UNSUBSCRIBE, RESYNC)
      for kind, payload in [("null", None), ("string", "balance"), ("number", 7), ("float", 0.5), ("true", True),
                            ("list", ["balance"]), ("empty-list", []), ("long-string", "x" * 60_000)]],
    ("D07-ten-arguments", event(SUBSCRIBE, *[{}] * 10)),
    ("D07-two-arguments", event(SUBSCRIBE, {"types": ["balance"]}, {"types": ["orders"]})),
    # D08: types is no short list of names
    *[(f"D08-types-{kind}", event(SUBSCRIBE, {"types": types}))
      for kind, types in [("null", None), ("string", "balance"), ("object", {"balance": True}), ("number", 1),
                          ("true", True), ("nested", [["balance"]]), ("objects", [{"type": "balance"}]),
                          ("numbers", [1, 2]), ("mixed", ["balance", None]), ("17-names", ["balance"] * 17),
                          ("10000-names", ["x"] * 10_000), ("deep", [[[[["balance"]]]]])]],
    ("D08-subscribeTypes-string", event(SUBSCRIBE, {"subscribeTypes": "all"})),
    ("D08-unsubscribe-types-null", event(UNSUBSCRIBE, {"types": None})),
    ("D08-types-wins-even-when-bad", event(SUBSCRIBE, {"types": 5, "subscribeTypes": ["balance"]})),
    # D09: since is no object
    *[(f"D09-since-{kind}", event(RESYNC, {"since": since}))
      for kind, since in [("null", None), ("list", ["pnl"]), ("string", "pnl"), ("number", 5)]],
    *[(f"D09-seq-{kind}", event(RESYNC, {"since": {"pnl": seq}}))
      for kind, seq in [("string", "5"), ("float", 5.5), ("negative", -1), ("huge", 2**70), ("null", None),
                        ("true", True), ("list", [5])]],
    ("D09-unknown-type", event(RESYNC, {"since": {"balance_5": 5}})),
    # authenticate without a token to look at
    *[(f"A11-authenticate-{kind}", event(AUTHENTICATE, payload))
      for kind, payload in [("null", None), ("string", "token"), ("empty", {}), ("list", [])]],
    # D05: the event itself
    ("D05-not-a-list", '42{"event":"subscribe_trading"}'),
    ("D05-empty-list", "42[]"),
    ("D05-no-data", "42"),
    ("D05-string-data", '42"subscribe_trading"'),
    ("D05-name-number", event(5)),
    ("D05-name-null", event(None)),
    ("D05-name-object", event({"a": 1})),
    ("D05-name-list", event(["subscribe_trading"])),
    # D14: JSON that cannot be used
    ("D14-nan", '42["subscribe_trading",{"types":[NaN]}]'),
    ("D14-infinity", '42["subscribe_trading",{"types":Infinity}]'),
    ("D14-surrogate", '42["subscribe_trading",{"types":["\\ud800"]}]'),
    ("D14-double-key", '42["subscribe_trading",{"types":["balance"],"types":["orders"]}]'),
    ("D14-deep", "42" + "[" * 60_000),
    ("D14-cut", '42["subscribe_trading",{"types":["balance"]}'),
    ("D14-trailing", '42["subscribe_trading",{}]]'),
]  # fmt: skip

UNKNOWN_EVENT = [
    *[(f"D06-{name or 'empty'}", event(name, {}))
      for name in ("connect", "disconnect", "message", "connect_error", "*", "", "error", "ping")],
    ("D05-class", event("__class__")),
    ("D05-60-KB-name", event("x" * 60_000)),
    ("D05-control-characters", event("a\r\n\x1b[31m\u202e")),
    ("C01-join", event("join", {"room": "balance_5"})),
    ("C01-room", event("enter_room", "balance_5")),
]  # fmt: skip

UNKNOWN_TYPE = [
    ("D08-unknown", ["margin"]),
    ("D08-spaces-and-case", [" Balance", "BALANCE"]),
    ("D08-60-KB-name", ["x" * 60_000]),
    ("C01-room-as-type", ["balance_5"]),
    ("C01-channel-as-type", ["positions:5", "push:{5}:positions"]),
]


def unchanged(client: RawClient) -> bool:
    return bool(client.call("whoami")["types"] == ["pnl"])


def test_at_least_sixty_malformed_payloads_are_tried():
    assert len(INVALID) + len(UNKNOWN_EVENT) + len(UNKNOWN_TYPE) >= 60


@pytest.mark.parametrize(("text"), [pytest.param(text, id=name) for name, text in INVALID])
def test_an_invalid_payload_is_answered_and_changes_nothing(client, text):
    client.send(text)
    error = client.event("error")
    assert error["code"] == "invalid_payload"
    assert isinstance(error["message"], str) and len(error["message"]) < 300
    assert error["retryable"] is False
    assert unchanged(client)


@pytest.mark.parametrize(("text"), [pytest.param(text, id=name) for name, text in UNKNOWN_EVENT])
def test_an_unknown_event_is_answered_and_runs_no_handler(client, text):
    client.send(text)
    assert client.event("error")["code"] == "unknown_event"
    assert unchanged(client)


@pytest.mark.parametrize(("types"), [pytest.param(types, id=name) for name, types in UNKNOWN_TYPE])
def test_unknown_types_are_named_and_change_nothing(client, types):
    client.send(event(SUBSCRIBE, {"types": types}))
    error = client.event("error")
    assert error["code"] == "unknown_type"
    assert error["types"] == [name[:32] for name in types]
    assert unchanged(client)


def test_D08_known_names_beside_unknown_ones_are_accepted(client):
    answer = client.call(SUBSCRIBE, {"types": ["orders", "nonsense", "orders"]})
    assert answer["types"] == ["orders"]
    assert answer["subscribed"] == ["pnl", "orders"]
    assert client.event("error")["types"] == ["nonsense"]


def test_C01_fields_that_name_another_user_are_ignored(client):
    answer = client.call(SUBSCRIBE, {"types": ["balance"], "user_id": 5, "room": "balance_5", "sub": "5"})
    assert answer["subscribed"] == ["balance", "pnl"]
    assert client.call("whoami")["user_id"] == 4


def test_the_ack_of_a_bad_event_carries_the_error(client):
    answer = client.call(SUBSCRIBE, {"types": 5})
    assert answer["error"]["code"] == "invalid_payload"


@pytest.mark.parametrize("attachments", [1, 2])
def test_D03_a_binary_event_is_read_whole_and_answered(client, attachments):
    places = [{"_placeholder": True, "num": number} for number in range(attachments)]
    client.send(f"45{attachments}-" + json.dumps([SUBSCRIBE, *places]))
    for _ in range(attachments):
        client.send_binary(b"\x00\x01")
    assert client.event("error")["code"] == "invalid_payload"
    assert unchanged(client)


def test_an_unasked_ack_is_ignored(client):
    client.send("4399[1]")
    assert unchanged(client)


@pytest.mark.parametrize(
    "text",
    ["", "x", "9", "4", "49", "4²", "450-[]", "453-[]", "451000000000-[]", "42" + "9" * 100 + '["a"]', "47[]", "44{}"],
)
def test_D04_broken_framing_closes_the_transport_within_a_second(client, text):
    client.send(text)
    assert client.closed_within(1.0)


def test_D03_an_unannounced_attachment_closes_the_transport(client):
    client.send_binary(b"\x04abc")
    assert client.closed_within(1.0)


def test_D01_a_message_over_64_KiB_closes_the_transport(client):
    client.send(event(SUBSCRIBE, {"types": ["x" * 70_000]}))
    assert client.closed_within(1.0)


def test_A13_a_second_connect_is_an_error_and_the_connection_stays(client):
    client.send("40" + json.dumps({"token": "other"}))
    assert client.event("error")["code"] == "invalid_payload"
    assert unchanged(client)


def test_A13_a_connect_after_a_refusal_closes_the_transport(stack):
    client = RawClient(stack.url)
    assert client.connect({"token": "wrong"}).startswith("44")
    client.send("40" + json.dumps({"token": stack.token(4)}))
    assert client.closed_within(1.0)
    assert "connected" not in [name for name, _ in client.events]


def test_an_event_before_sign_in_closes_the_transport(stack):
    client = RawClient(stack.url)
    client.send(event(SUBSCRIBE, {}))
    assert client.closed_within(1.0)


def test_another_namespace_is_refused_by_name(stack):
    client = RawClient(stack.url)
    client.send("40/admin,")
    assert client.packet() == '44/admin,{"message":"Invalid namespace"}'
    assert client.closed_within(1.0)


def test_nothing_of_all_this_was_logged_as_a_traceback(stack):
    assert "Traceback" not in stack.web.log()
