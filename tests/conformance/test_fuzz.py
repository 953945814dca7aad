"""C3: whatever arrives, the worker lives, says nothing unforeseen in its log, stands still for nobody and forgets it.

20,000 inputs, a million with ``PUSHSERVER_NIGHTLY=1``, each made from the seed and its number alone.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import random
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.conformance import grammar
from tests.conformance.deployment import OneWorker
from tests.conformance.wire import CLOSE, PING, PONG, TEXT, Frame, HungUp, Wire, client_frame
from tests.system.harness import wait_until

pytestmark = pytest.mark.system

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"
INPUTS = 1_000_000 if NIGHTLY else 20_000
SEED = 3
#: Of a loop that stands still, once for each time it was tried: only what an input does happens every time.
STALL_S = 0.05
TRIES = 4
#: A connection is used for so many inputs: it takes 100 frames at once, an input is one and its ping another.
INPUTS_PER_CONNECTION = 40
ENDS_S = 10.0
#: Connections to Redis that were opened meanwhile; they stay.
SPARE_FILES = 8
CODES = {"invalid_payload", "unknown_type", "unknown_event", "token_invalid", "token_mismatch", "token_expired"}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    worker = OneWorker(tmp_path_factory.mktemp("fuzz"), environ={"EVENT_BURST": "10000"})
    worker.start()
    yield worker
    worker.stop()


class Fuzzed:
    """Gives inputs to the worker, one after the other, and takes the time until each was dealt with."""

    def __init__(self, worker: OneWorker) -> None:
        self._worker = worker
        self._token = worker.token(4)
        self._wire: Wire | None = None
        self._inputs_left = 0

    def input_s(self, kind: str, number: int) -> float:
        """Seconds until the input was dealt with."""
        rng = random.Random(f"{SEED}:{kind}:{number}")
        give: Callable[[random.Random], float] = getattr(self, "_" + kind)
        return give(rng)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _signed_in_message(self, rng: random.Random) -> float:
        return self._message(rng, signed_in=True)

    def _unknown_message(self, rng: random.Random) -> float:
        return self._message(rng, signed_in=False)

    def _message(self, rng: random.Random, signed_in: bool) -> float:
        wire = self._wire
        if wire is None or not self._inputs_left:
            self.close()
            wire = self._wire = self._open(signed_in)
            self._inputs_left = INPUTS_PER_CONNECTION
        self._inputs_left -= 1
        started = time.monotonic()
        # The ping is answered when the message before it was dealt with.
        wire.send(client_frame(TEXT, grammar.message(rng)) + client_frame(PING, b"done"))
        try:
            while (frame := wire.frame(ENDS_S)).opcode != PONG:
                _check_answer(frame)
        except HungUp:
            self.close()
        return time.monotonic() - started

    def _frames(self, rng: random.Random) -> float:
        with self._open(rng.random() < 0.5) as wire:
            started = time.monotonic()
            wire.send(grammar.frames(rng))
            _read_to_the_end(wire.socket)
        return time.monotonic() - started

    def _token_message(self, rng: random.Random) -> float:
        forged = grammar.token(rng, self._token)
        with self._open(False) as wire:
            started = time.monotonic()
            wire.send_text("40" + json.dumps({"token": forged}))
            answer = wire.text(ENDS_S)
        taken = time.monotonic() - started
        assert answer.startswith("44{") or (answer.startswith("40{") and _same_token(forged, self._token)), forged
        return taken

    def _http_request(self, rng: random.Random) -> float:
        with socket.create_connection(("127.0.0.1", self._worker.web_port), ENDS_S) as connection:
            started = time.monotonic()
            # A reader that has heard enough hangs up: what it said is there all the same.
            with contextlib.suppress(ConnectionError):
                connection.sendall(grammar.http_request(rng))
            answer = _read_to_the_end(connection)
        assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:200]
        assert not answer.startswith(b"HTTP/1.1 500"), answer[:500]
        return time.monotonic() - started

    def _open(self, signed_in: bool) -> Wire:
        wire = Wire(self._worker.web_port)
        assert wire.text().startswith("0{")
        if signed_in:
            wire.send_text("40" + json.dumps({"token": self._token}))
            assert wire.text().startswith("40{")
            assert wire.text().startswith('42["connected"')
        return wire


def _read_to_the_end(connection: socket.socket) -> bytes:
    """Say that nothing more comes; the server must end its side, too. What it said; raises TimeoutError."""
    connection.settimeout(ENDS_S)
    received = b""
    try:
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65_536):
            received += data
    except TimeoutError:
        raise
    except OSError:
        return received  # the server was faster
    return received


def _check_answer(frame: Frame) -> None:
    if frame.opcode == CLOSE:
        assert frame.close_code in (1000, 1002, 1007, 1008, 1009), frame
        return
    assert frame.opcode == TEXT, frame
    text = frame.payload.decode()
    assert text[:2] in ("40", "42", "43", "44"), text
    if text.startswith('42["error"'):
        assert json.loads(text[2:])[1]["code"] in CODES, text


def _same_token(forged: object, valid: str) -> bool:
    """Whether two tokens are the same bytes: the last letter of base64 has bits that do not count."""
    if not isinstance(forged, str) or forged.count(".") != 2:
        return False
    try:
        return [_bytes(part) for part in forged.split(".")] == [_bytes(part) for part in valid.split(".")]
    except (binascii.Error, ValueError):
        return False


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def open_files(worker: OneWorker) -> int:
    return psutil.Process(worker.worker()).num_fds()


#: What part of the inputs is of which kind, in hundredths.
SHARES = {"signed_in_message": 45, "unknown_message": 20, "frames": 12, "token_message": 8, "http_request": 15}


@pytest.mark.parametrize("kind", SHARES)
def test_C3_no_input_stalls_the_worker_or_stays_behind(worker, kind):
    pid, fuzzed = worker.worker(), Fuzzed(worker)
    fuzzed.input_s(kind, 0)
    files_at_first = open_files(worker)
    for number in range(INPUTS * SHARES[kind] // 100):
        taken_s = fuzzed.input_s(kind, number)
        if taken_s > STALL_S:
            fuzzed.close()
            again = [fuzzed.input_s(kind, number) for _ in range(TRIES - 1)]
            assert min(again) <= STALL_S, f"{kind} {number} of seed {SEED} takes {taken_s:.3f} s, again {again}"
    fuzzed.close()
    assert worker.worker() == pid, "the worker died"
    wait_until(lambda: worker.clients() == 0, 15, "the sockets to be freed")
    assert open_files(worker) <= files_at_first + SPARE_FILES


def test_C3_nothing_unforeseen_was_logged_and_the_worker_serves(worker):
    log = worker.web.log()
    assert "Traceback" not in log
    assert " ERROR " not in log
    assert " CRITICAL " not in log
    assert log.count("Booting worker") <= 1
    with urllib.request.urlopen(f"{worker.url}/readyz", timeout=5) as answer:
        assert answer.status == 200
