"""C1: the Autobahn cases of sections 1 to 7 and 10 against a real worker that echoes messages.

Stricter than Autobahn in one point: whoever ends the connection, the server must say a fitting close code and hang
up within a second, so that no end is unclean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.conformance.autobahn_cases import Case, Event, cases
from tests.conformance.deployment import OneWorker
from tests.conformance.wire import CLOSE, HungUp, Wire

pytestmark = pytest.mark.system

ALL_CASES = cases()
PAUSE_S = 0.1
ANSWER_S = 10.0
HANG_UP_S = 1.0

OK, NON_STRICT, INFORMATIONAL = "ok", "non-strict", "informational"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    worker = OneWorker(tmp_path_factory.mktemp("autobahn"), "tests.conformance.echo_app:app")
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def verdicts() -> Counter[str]:
    return Counter()


@dataclass
class Conversation:
    """What became of a case: the data and pong frames that came, and how the server ended it."""

    events: list[Event] = field(default_factory=list)
    stages_sent: int = 0
    close_code: int | None = None
    ended: bool = False

    def listen(self, wire: Wire, timeout_s: float, until: tuple[Event, ...] | None = None) -> None:
        """Until the server hangs up, ``until`` has come or the time is over."""
        while not self.ended and self.events != (None if until is None else list(until)):
            try:
                frame = wire.frame(timeout_s)
            except HungUp:
                self.ended = True
            except TimeoutError:
                return
            else:
                assert self.close_code is None, f"{frame} after a close frame"
                if frame.opcode == CLOSE:
                    self.close_code = frame.close_code
                    timeout_s = HANG_UP_S
                else:
                    self.events.append((frame.opcode, frame.payload))


def converse(wire: Wire, case: Case) -> Conversation:
    said = Conversation()
    for stage in case.stages:
        if said.stages_sent:
            said.listen(wire, PAUSE_S)
        if said.ended:
            return said
        for data in stage:
            if not wire.send(data):
                break
        said.stages_sent += 1
    if case.closing is not None:
        said.listen(wire, ANSWER_S, until=case.events)
        wire.send(case.closing)
    said.listen(wire, ANSWER_S)
    return said


def verdict(case: Case, said: Conversation) -> str:
    assert said.ended, "the server did not hang up"
    assert said.close_code in case.codes
    events = tuple(said.events)
    assert events in (case.events, case.lesser)
    if case.informational:
        return INFORMATIONAL
    if case.fails_at is not None and said.stages_sent > case.fails_at + 1:
        return NON_STRICT
    return OK if events == case.events else NON_STRICT


@pytest.mark.parametrize("case", [pytest.param(case, id=case.number) for case in ALL_CASES])
def test_C1_a_case_ends_as_the_protocol_says(worker, verdicts, case):
    with Wire(worker.web_port) as wire:
        assert wire.text().startswith("0{")
        said = converse(wire, case)
    verdicts[verdict(case, said)] += 1


def test_C1_all_247_cases_are_there_and_left_no_traceback(worker, verdicts):
    print(f"verdicts: {dict(verdicts)}")
    assert len({case.number for case in ALL_CASES}) == 247
    assert "Traceback" not in worker.web.log()
