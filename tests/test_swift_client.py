"""The Swift client says what the contract says: read with a real Swift grammar and compared with the server's code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from pathlib import Path

import pytest
import tree_sitter_swift
from tree_sitter import Language, Node, Parser

from pushserver.bus.health import nothing_known
from pushserver.events import CLIENT_EVENTS, encode_status, encode_update, error_payload
from pushserver.feeds.key_health import HealthState
from pushserver.model import Balance, DataType, Freshness, Order, Pnl, Position

FOLDER = Path(__file__).resolve().parent.parent / "clients" / "swift"
CLIENT = FOLDER / "TradingWebSocketManager.swift"
UPDATE_EVENTS = {f"{data_type.value}_update" for data_type in DataType}
#: Contract section 4: what a connection can be refused with.
REFUSALS = {
    "token_missing", "token_invalid", "token_expired", "token_revoked", "user_disabled",
    "too_many_connections", "server_busy",
}  # fmt: skip


def parse(source: bytes) -> Node:
    return Parser(Language(tree_sitter_swift.language())).parse(source).root_node


def nodes(root: Node) -> Iterator[Node]:
    yield root
    for child in root.children:
        yield from nodes(child)


def broken_places(root: Node) -> list[str]:
    return [f"line {node.start_point[0] + 1}: {node.type}" for node in nodes(root) if node.is_error or node.is_missing]


def text(node: Node) -> str:
    assert node.text is not None
    return node.text.decode()


def string_values(root: Node) -> list[str]:
    return [text(node)[1:-1] for node in nodes(root) if node.type == "line_string_literal"]


def declaration(root: Node, name: str) -> Node:
    """The struct, enum or class called ``name``, wherever it stands below ``root``."""
    for node in nodes(root):
        if node.type == "class_declaration":
            name_node = node.child_by_field_name("name")
            if name_node is not None and text(name_node).split("<")[0] == name:
                return node
    raise AssertionError(f"{name} is not declared")


def constant(root: Node, name: str) -> Node:
    for node in nodes(root):
        if node.type == "property_declaration" and f"let {name}" in text(node).split("=")[0]:
            return node
    raise AssertionError(f"{name} is not declared")


def wire_names(root: Node, struct: str) -> set[str]:
    return set(string_values(declaration(declaration(root, struct), "CodingKeys")))


def body_of(frame: bytes) -> dict[str, object]:
    name, payload = json.loads(frame.removeprefix(b"42"))
    assert isinstance(name, str)
    return payload


@pytest.fixture(scope="module")
def client() -> Node:
    return parse(CLIENT.read_bytes())


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.swift")), ids=lambda file: file.name)
def test_the_grammar_finds_no_error(file: Path) -> None:
    assert broken_places(parse(file.read_bytes())) == []


def test_the_grammar_would_find_a_missing_brace() -> None:
    assert broken_places(parse(CLIENT.read_bytes().rstrip().removesuffix(b"}"))) != []


def test_examples_in_the_readme_are_swift() -> None:
    blocks = (FOLDER / "README.md").read_text(encoding="utf-8").split("```swift\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        assert broken_places(parse(block.split("```")[0].encode())) == []


def test_types_are_those_of_the_server(client: Node) -> None:
    assert set(string_values(declaration(client, "TradingDataType"))) == {data_type.value for data_type in DataType}
    assert set(string_values(declaration(client, "TradingFreshness"))) == {state.value for state in Freshness}


def test_events_it_hears_are_those_the_server_sends(client: Node) -> None:
    others = {"connected", "subscribed", "unsubscribed", "status_update", "account_health", "token_expiring", "error"}
    assert set(string_values(declaration(client, "ServerEvent"))) == UPDATE_EVENTS | others


def test_every_event_it_names_has_a_handler(client: Node) -> None:
    source = text(client)
    for name in (line.split()[2] for line in text(declaration(client, "ServerEvent")).splitlines() if "let " in line):
        assert f"hear(ServerEvent.{name})" in source


def test_events_it_sends_are_those_the_server_knows(client: Node) -> None:
    sent = set(string_values(declaration(client, "ClientEvent")))
    assert sent == CLIENT_EVENTS - {"whoami"}


@pytest.mark.parametrize(
    ("struct", "record"),
    [
        ("TradingBalance", Balance),
        ("TradingPosition", Position),
        ("TradingPnl", Pnl),
        ("TradingOrder", Order),
    ],
)
def test_figures_have_the_names_of_the_contract(client: Node, struct: str, record: type) -> None:
    assert wire_names(client, struct) == {field.name for field in fields(record)}


def test_an_update_has_the_fields_the_server_encodes(client: Node) -> None:
    encoded = encode_update(DataType.BALANCE, 4, Balance(Decimal(1), Decimal(1), Decimal(0)), 1, 2)
    assert wire_names(client, "TradingUpdate") == set(body_of(encoded.head + b"3" + encoded.tail))


def test_a_status_has_the_fields_the_server_encodes(client: Node) -> None:
    frame = encode_status(DataType.PNL, Freshness.STOPPED, "key_expired", "The key has expired.", 1)
    assert wire_names(client, "TradingStatus") == set(body_of(frame))


def test_an_error_has_the_fields_the_server_encodes(client: Node) -> None:
    assert wire_names(client, "TradingError") == set(error_payload("unknown_type", "There is no such type."))


def test_greeting_and_subscription_have_the_fields_of_the_contract(client: Node) -> None:
    assert wire_names(client, "TradingSession") == {"user_id", "message", "types", "subscribed", "token_expires_at"}
    assert wire_names(client, "TradingSubscription") == {"types", "subscribed", "intervals"}


def test_every_struct_lists_each_of_its_fields_once(client: Node) -> None:
    """A field left out of CodingKeys would not compile, and no compiler runs here."""
    structs = [node for node in nodes(client) if text(node).startswith("public struct") and "CodingKeys" in text(node)]
    structs = [node for node in structs if node.type == "class_declaration"]
    assert len(structs) == 11
    for struct in structs:
        stored = [line.split()[2].rstrip(":") for line in text(struct).splitlines() if "public let" in line]
        keys = [line.split()[1] for line in text(struct).splitlines() if line.strip().startswith("case ")]
        assert sorted(stored) == sorted(keys)


def test_refusals_are_told_apart_as_the_contract_names_them(client: Node) -> None:
    token_refusals = set(string_values(constant(client, "tokenRefusals")))
    busy_refusals = set(string_values(constant(client, "busyRefusals")))
    assert token_refusals | busy_refusals == REFUSALS
    assert token_refusals & busy_refusals == set()
    assert busy_refusals == {"too_many_connections", "server_busy"}
    assert string_values(constant(client, "tokenOfAnotherUser")) == ["token_mismatch"]


def test_the_public_interface_is_what_the_app_was_promised(client: Node) -> None:
    manager = declaration(client, "TradingWebSocketManager")
    source = text(manager)
    for signature in (
        "serverURL: URL,\n        jwtToken: String,",
        "public func connect()",
        "public func disconnect()",
        "public func subscribe(_ types: [TradingDataType])",
        "public func unsubscribe(_ types: [TradingDataType])",
        "public func updateToken(_ jwtToken: String)",
    ):
        assert signature in source
    for callback in (
        "onBalance", "onPositions", "onPnl", "onOrders", "onStatus", "onError", "onConnectionChange", "onTokenExpiring",
    ):  # fmt: skip
        assert f"public var {callback}: " in source
        assert source.count(callback) >= 2, f"{callback} is never called"


def test_handlers_kept_by_the_library_hold_the_manager_weakly(client: Node) -> None:
    """The library keeps them, the manager keeps the library: a strong capture would never be freed."""
    calls = [node for node in nodes(client) if node.type == "call_expression"]
    kept = [text(call) for call in calls if text(call).startswith(("socket.on(", "queue.async"))]
    assert len(kept) >= 8
    assert [call for call in kept if "[weak self]" not in call and "self" in call] == []


def test_the_token_is_sent_in_header_and_payload_but_not_in_the_address(client: Node) -> None:
    source = text(client)
    assert '.extraHeaders(["Authorization": "Bearer \\(token)"])' in source
    assert 'socket.connect(withPayload: ["token": token, "subscribe": wantedTypes.map { $0.rawValue }])' in source
    assert "connectParams" not in source
    assert ".forceWebsockets(true)" in source


def test_the_health_of_a_key_has_the_fields_and_states_of_the_server(client: Node) -> None:
    assert wire_names(client, "TradingAccountHealth") == set(nothing_known(4))
    assert wire_names(client, "TradingKeyProblem") == {"code", "message", "until"}
    assert set(string_values(declaration(client, "TradingHealthState"))) == {state.value for state in HealthState}
