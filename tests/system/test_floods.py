"""D10: whoever floods waits in its own socket; everybody else is served as before."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.system.harness import Stack
from tests.system.raw_client import RawClient

pytestmark = pytest.mark.system

FLOOD_S = 3.0
MASK = b"\x00\x00\x00\x00"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("floods"), users=0, web_workers=1, push_workers=0).start()
    yield stack
    stack.stop()


def frame(opcode: int, payload: bytes) -> bytes:
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + MASK + payload


def flood(client: RawClient, piece: bytes, seconds: float) -> None:
    """Send as fast as the server takes it; it may hang up on us."""
    raw: socket.socket = client.socket.sock
    raw.settimeout(0.2)
    block = piece * 500
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            raw.send(block)
        except TimeoutError:
            continue
        except OSError:
            return


def slowest_answer_s(url: str, while_running: Callable[[], bool]) -> float:
    slowest = 0.0
    while while_running():
        started = time.monotonic()
        with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
            assert answer.status == 200
        slowest = max(slowest, time.monotonic() - started)
    return slowest


@pytest.mark.parametrize(
    ("signed_in", "piece"),
    [
        pytest.param(False, frame(0x1, b"3"), id="pongs"),
        pytest.param(False, frame(0x9, b""), id="websocket-pings"),
        pytest.param(False, frame(0xA, b""), id="websocket-pongs"),
        pytest.param(False, frame(0x1, b"40/foo,"), id="wrong-namespace"),
        pytest.param(False, frame(0x1, b"40{x"), id="broken-connects"),
        pytest.param(True, frame(0x1, b"431[]"), id="unasked-acks"),
        pytest.param(True, frame(0x1, b'42["whoami"]'), id="events"),
        pytest.param(True, frame(0x1, b'42["subscribe_trading",5]'), id="bad-events"),
        pytest.param(True, frame(0x1, b"42["), id="broken-json"),
    ],
)
def test_D10_a_flood_of_any_kind_disturbs_nobody(stack, signed_in, piece):
    client = RawClient(stack.url)
    if signed_in:
        assert client.connect({"token": stack.token(4)}).startswith("40")
    flooding = threading.Thread(target=flood, args=(client, piece, FLOOD_S))
    flooding.start()
    slowest = slowest_answer_s(stack.url, flooding.is_alive)
    flooding.join()
    client.close()
    assert slowest < 0.5, f"somebody else waited {slowest:.2f} s"


def test_I08_the_floods_left_few_lines_and_no_traceback(stack):
    assert "Traceback" not in stack.web.log()
    assert len(stack.web.log().splitlines()) < 600
