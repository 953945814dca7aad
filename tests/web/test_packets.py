"""Socket.IO packets: parsed whole, or refused in one of two ways."""

from __future__ import annotations

import pytest

from pushserver.web import packets
from pushserver.web.packets import PacketMalformed, PayloadMalformed, parse_packet


@pytest.mark.parametrize(
    ("text", "kind", "namespace", "ack_id", "data"),
    [
        ("0", packets.CONNECT, "/", None, None),
        ('0{"token":"x"}', packets.CONNECT, "/", None, {"token": "x"}),
        ('0/admin,{"token":"x"}', packets.CONNECT, "/admin", None, {"token": "x"}),
        ("0/admin", packets.CONNECT, "/admin", None, None),
        ("0/", packets.CONNECT, "/", None, None),
        ("1", packets.DISCONNECT, "/", None, None),
        ("1/admin", packets.DISCONNECT, "/admin", None, None),
        ('2["whoami"]', packets.EVENT, "/", None, ["whoami"]),
        ('217["whoami",{}]', packets.EVENT, "/", 17, ["whoami", {}]),
        ('2/x,5["a"]', packets.EVENT, "/x", 5, ["a"]),
        ("33[]", packets.ACK, "/", 3, []),
        ('51-["a",{"num":0}]', packets.BINARY_EVENT, "/", None, ["a", {"num": 0}]),
    ],
)  # fmt: skip
def test_a_packet_is_taken_apart(text, kind, namespace, ack_id, data):
    packet = parse_packet(text)
    assert (packet.kind, packet.namespace, packet.ack_id, packet.data) == (kind, namespace, ack_id, data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "7",
        "9[]",
        "²[]",
        '5["a"]',
        '21-["a"]',
        "2" + "9" * 100 + '["a"]',
        "2nonsense",
        "2[]"[:1] + "5x",
        "0admin",
        "0/" + "x" * 200,
    ],
)
def test_D04_a_broken_frame_is_not_a_packet(text):
    with pytest.raises(PacketMalformed):
        parse_packet(text)


@pytest.mark.parametrize(
    "body",
    ["[", '["a"', '["a",NaN]', '["a",Infinity]', '["a","\\ud800"]', '["a",{"k":1,"k":2}]', "[" * 30_000, '["a"]x'],
    ids=["open", "cut", "nan", "infinity", "surrogate", "double-key", "deep", "trailing"],
)
def test_D14_json_that_cannot_be_used_is_refused_with_its_ack_id(body):
    with pytest.raises(PayloadMalformed) as refusal:
        parse_packet("29" + body)
    assert refusal.value.ack_id == 9


def test_packets_of_ours_are_complete_messages():
    assert packets.encode_packet(packets.CONNECT, {"sid": "a"}) == b'40{"sid":"a"}'
    assert packets.encode_packet(packets.ACK, [], 7) == b"437[]"
