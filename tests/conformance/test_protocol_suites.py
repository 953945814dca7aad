"""C2: the WebSocket cases of the official Engine.IO 4 and Socket.IO 5 test suites against a real worker.

The suites (``docs/engine.io-protocol/v4-test-suite`` and ``docs/socket.io-protocol/v5-test-suite`` of the repository
socketio/socket.io) want a server with an echo event, a namespace ``/custom`` and no tokens. Ours has a closed set of
events and one namespace, so the application part is ours: a token in the auth payload, ``connected`` for their
``auth`` event, ``whoami`` for their acknowledged echo, ``subscribe_trading`` for their plain one. The heartbeat cases
have a ping every 300 ms, awaited for 200 ms, as there. All others have the real 25 and 20 s and are stricter than the
suites: who is to be closed is closed within a second, by us and not by a ping timeout, with a close code.

=== ====================================================== ====================================================
 #  official case (E Engine.IO, S Socket.IO)               how it is run here
=== ====================================================== ====================================================
 1  E S handshake: opens a session                         as it is; maxPayload is our 65536
 2  E S handshake: fails without or with a wrong EIO       400 before the upgrade
 3  E S handshake: fails without or with a wrong transport 400 before the upgrade
 4  E   message: sends and receives a plain text packet    a text packet that has an answer: CONNECT
 5  E   message: sends and receives a binary packet        as an attachment of an event, which is answered; we have
                                                           no binary of our own to send
 6  E   message: closes upon an invalid packet             as it is, closed by us
 7  E S heartbeat: ping and pong, three times              as it is
 8  E S heartbeat: closes upon ping timeout                as it is
 9  E S close: ends the session                            as it is
10  S   connect: main namespace                            without a token it is refused, with CONNECT_ERROR
11  S   connect: main namespace with a payload             the payload carries the token
12  S   connect: custom namespace                          there is none: CONNECT_ERROR like any unknown one
13  S   connect: custom namespace with a payload           as 12
14  S   connect: unknown namespace                         as it is
15  S   connect: invalid handshake closes                  as it is, closed by us
16  S   connect: no handshake closes                       as it is
17  S   disconnect: main namespace                         the suite waits for the next ping on the transport; with one
                                                           namespace nothing is left to do on it and we end it
18  S   disconnect: custom namespace, main one lives on    as it is, but that the custom one was refused before
19  S   message: plain text                                event and its answer
20  S   message: binary attachments                        taken and answered with an ``error``
21  S   message: with an ack                               as it is
22  S   message: binary attachments with an ack            taken, the ack carries the ``error``
23  S   message: unknown packet type closes                as it is, closed by us
24  S   message: payload that is no list                   answered with ``error``: what is framed well never closes
25  S   message: invalid ack id closes                     as it is, closed by us
=== ====================================================== ====================================================

Left out: everything over HTTP long-polling, and the three upgrades from it. There is no polling; cases 26 and 27 check
that whoever polls is told so and that no WebSocket joins a session.
"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.conformance.deployment import OneWorker
from tests.conformance.wire import BINARY, Refused, Wire, client_frame

pytestmark = pytest.mark.system

NORMAL, POLICY_VIOLATION = 1000, 1008
CLOSE_S = 1.0
SIGN_IN_S = 1


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    worker = OneWorker(tmp_path_factory.mktemp("suites"), environ={"SIGN_IN_S": str(SIGN_IN_S)})
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def pinging_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    worker = OneWorker(tmp_path_factory.mktemp("heartbeat"), "tests.conformance.short_pings:app")
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def pinged(pinging_worker: OneWorker) -> Iterator[Wire]:
    """A transport after the Engine.IO handshake, with a quick heartbeat."""
    with Wire(pinging_worker.web_port) as wire:
        assert json.loads(wire.text()[1:])["pingInterval"] == 300
        yield wire


@pytest.fixture
def wire(worker: OneWorker) -> Iterator[Wire]:
    """A transport after the Engine.IO handshake."""
    with Wire(worker.web_port) as wire:
        assert wire.text().startswith("0{")
        yield wire


@pytest.fixture
def main(worker: OneWorker, wire: Wire) -> Wire:
    """A transport that is connected to the main namespace."""
    sign_in(worker, wire)
    return wire


def sign_in(worker: OneWorker, wire: Wire) -> None:
    wire.send_text("40" + json.dumps({"token": worker.token(4)}))
    assert wire.text().startswith("40{")
    assert wire.text().startswith('42["connected",')


def event(text: str) -> tuple[str, dict[str, object]]:
    """Name and payload of an event packet."""
    assert text.startswith("42["), text
    name, payload = json.loads(text[2:])
    return name, payload


def test_C2_01_a_websocket_opens_a_session(pinging_worker):
    with Wire(pinging_worker.web_port) as wire:
        opening = wire.text()
    assert opening.startswith("0")
    session = json.loads(opening[1:])
    assert set(session) == {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}
    assert isinstance(session["sid"], str) and session["sid"]
    assert session["upgrades"] == []
    assert (session["pingInterval"], session["pingTimeout"]) == (300, 200)
    assert session["maxPayload"] == 65_536


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("?transport=websocket", id="02-no-EIO"),
        pytest.param("?EIO=abc&transport=websocket", id="02-EIO-abc"),
        pytest.param("?EIO=3&transport=websocket", id="02-EIO-3"),
        pytest.param("?EIO=4", id="03-no-transport"),
        pytest.param("?EIO=4&transport=abc", id="03-transport-abc"),
        pytest.param("?EIO=4&transport=websocket&sid=lv_VI97HAXpY6yYWAAAC", id="27-upgrade-of-a-session"),
        pytest.param("?EIO=4&transport=websocket&j=0", id="27-jsonp"),
    ],
)
def test_C2_a_wrong_query_is_refused_before_the_upgrade(worker, query):
    with pytest.raises(Refused) as refusal:
        Wire(worker.web_port, "/socket.io/" + query)
    assert refusal.value.status == 400
    assert json.loads(refusal.value.body)["error"]["message"]


def test_an_upgrade_without_a_host_is_an_upgrade_all_the_same(worker):
    with socket.create_connection(("127.0.0.1", worker.web_port), 5) as connection:
        connection.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 101"
        received = connection.recv(65_536)
        while b'0{"sid"' not in received:
            more = connection.recv(65_536)
            assert more, received
            received += more


def test_C2_04_a_text_packet_is_taken_and_one_comes_back(worker, wire):
    wire.send_text("40" + json.dumps({"token": worker.token(4)}))
    assert wire.text().startswith("40{")


def test_C2_05_a_binary_packet_is_taken(main):
    main.send_text('451-["whoami",{"_placeholder":true,"num":0}]')
    main.send(client_frame(BINARY, b"\x01\x02\x03\x04"))
    assert event(main.text())[0] == "error"


@pytest.mark.parametrize("text", ["abc", "", "7", "5", "6", "0", "b4hello"])
def test_C2_06_an_invalid_engine_packet_closes(wire, text):
    wire.send_text(text)
    assert wire.end(CLOSE_S) == POLICY_VIOLATION


def test_C2_07_pings_come_and_pongs_keep_the_session(pinged):
    for _ in range(6):
        assert pinged.text(1.5, pings=True) == "2"
        pinged.send_text("3")


def test_C2_08_an_unanswered_ping_closes(pinged):
    assert pinged.text(1.5, pings=True) == "2"
    assert pinged.end(CLOSE_S) == NORMAL


def test_C2_09_a_close_packet_ends_the_session(wire):
    wire.send_text("1")
    assert wire.end(CLOSE_S) == NORMAL


def test_C2_10_the_main_namespace_refuses_whom_it_does_not_know(wire):
    wire.send_text("40")
    answer = wire.text()
    assert answer.startswith("44{")
    assert json.loads(answer[2:])["data"]["code"] == "token_missing"
    assert wire.end(CLOSE_S) == NORMAL


def test_C2_11_the_main_namespace_takes_a_payload(worker, wire):
    wire.send_text("40" + json.dumps({"token": worker.token(4)}))
    answer = wire.text()
    assert answer.startswith("40{")
    handshake = json.loads(answer[2:])
    assert set(handshake) == {"sid"}
    assert isinstance(handshake["sid"], str) and handshake["sid"]
    assert event(wire.text())[0] == "connected"


@pytest.mark.parametrize(
    ("packet", "namespace"),
    [
        pytest.param("40/custom,", "/custom", id="12-custom"),
        pytest.param('40/custom,{"token":"abc"}', "/custom", id="13-custom-with-payload"),
        pytest.param("40/random", "/random", id="14-unknown"),
    ],
)
def test_C2_another_namespace_is_refused_by_its_name(wire, packet, namespace):
    wire.send_text(packet)
    assert wire.text() == "44" + namespace + ',{"message":"Invalid namespace"}'
    assert wire.end(CLOSE_S) == NORMAL


def test_C2_15_an_invalid_handshake_closes(wire):
    wire.send_text("4abc")
    assert wire.end(CLOSE_S) == POLICY_VIOLATION


def test_C2_16_no_handshake_closes(wire):
    assert wire.end(SIGN_IN_S + 1.5) == NORMAL


def test_C2_17_leaving_the_main_namespace_ends_the_session(main):
    main.send_text("41")
    assert main.end(CLOSE_S) == NORMAL


def test_C2_18_leaving_another_namespace_leaves_the_main_one_alone(main):
    main.send_text("40/custom")
    assert main.text() == '44/custom,{"message":"Invalid namespace"}'
    main.send_text("41/custom")
    main.send_text('42["subscribe_trading",{"types":["pnl"]}]')
    assert event(main.text())[0] == "subscribed"


def test_C2_19_an_event_is_answered(main):
    main.send_text('42["subscribe_trading",{"types":["pnl","orders"],"3":[true]}]')
    name, payload = event(main.text())
    assert (name, payload["types"]) == ("subscribed", ["pnl", "orders"])


def test_C2_20_binary_attachments_are_taken_and_answered(main):
    main.send_text('452-["whoami",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    main.send(client_frame(BINARY, b"\x01\x02\x03"))
    main.send(client_frame(BINARY, b"\x04\x05\x06"))
    name, payload = event(main.text())
    assert (name, payload["code"]) == ("error", "invalid_payload")
    main.send_text('421["whoami"]')
    assert main.text().startswith("431[")


def test_C2_21_an_event_is_acknowledged_under_its_id(main):
    main.send_text('42456["whoami",{"3":[false]}]')
    answer = main.text()
    assert answer.startswith("43456[")
    assert json.loads(answer[5:])[0]["user_id"] == 4


def test_C2_22_an_event_with_attachments_is_acknowledged_under_its_id(main):
    main.send_text('452-789["whoami",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    main.send(client_frame(BINARY, b"\x01\x02\x03"))
    main.send(client_frame(BINARY, b"\x04\x05\x06"))
    assert event(main.text())[0] == "error"
    answer = main.text()
    assert answer.startswith("43789[")
    assert json.loads(answer[5:])[0]["error"]["code"] == "invalid_payload"


@pytest.mark.parametrize(
    "packet", [pytest.param("4abc", id="23-unknown-type"), pytest.param('42abc["whoami",1]', id="25-invalid-ack-id")]
)
def test_C2_a_broken_packet_closes(main, packet):
    main.send_text(packet)
    assert main.end(CLOSE_S) == POLICY_VIOLATION


def test_C2_24_a_payload_that_is_no_list_is_answered(main):
    main.send_text("42{}")
    name, payload = event(main.text())
    assert (name, payload["code"]) == ("error", "invalid_payload")
    main.send_text('421["whoami"]')
    assert main.text().startswith("431[")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_C2_26_long_polling_is_refused_with_the_reason(worker, method):
    request = urllib.request.Request(f"{worker.url}/socket.io/?EIO=4&transport=polling", method=method)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=5)
    assert refusal.value.code == 400
    assert json.load(refusal.value)["error"]["code"] == "transport_not_supported"


def test_C2_nothing_of_all_this_was_logged_as_a_traceback(worker, pinging_worker):
    assert "Traceback" not in worker.web.log() + pinging_worker.web.log()
