"""D04, D14: what is refused is neither echoed nor logged, and the connections it came on are gone for good."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conformance.deployment import OneWorker
from tests.conformance.wire import Wire
from tests.system.harness import wait_until

pytestmark = pytest.mark.system

CANARY = "c4n4ry"
POLICY_VIOLATION = 1008
MANY = 200


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    worker = OneWorker(tmp_path_factory.mktemp("refused"))
    worker.start()
    yield worker
    worker.stop()


def signed_in(worker: OneWorker) -> Wire:
    wire = Wire(worker.web_port)
    assert wire.text().startswith("0{")
    wire.send_text("40" + json.dumps({"token": worker.token(4)}))
    assert wire.text().startswith("40{")
    assert wire.text().startswith('42["connected"')
    return wire


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f'["{CANARY}",NaN]', id="nan"),
        pytest.param(f'["subscribe_trading",{{"types":["{CANARY}",-Infinity]}}]', id="infinity"),
        pytest.param(f'["{CANARY}\\ud800"]', id="lone-surrogate"),
        pytest.param(f'["whoami",{{"{CANARY}":1,"{CANARY}":2}}]', id="a-key-twice"),
        pytest.param(f'["{CANARY}",' + "[" * 50_000, id="deep"),
        pytest.param(f'["{CANARY}"', id="cut"),
        pytest.param(f'["whoami",{CANARY}]', id="no-json"),
    ],
)
def test_D14_nothing_of_json_that_cannot_be_used_is_echoed(worker, body):
    with signed_in(worker) as wire:
        wire.send_text("427" + body)
        error, ack = wire.text(), wire.text()
    assert json.loads(error[2:])[1]["code"] == "invalid_payload"
    assert json.loads(ack[3:])[0]["error"]["code"] == "invalid_payload"
    assert CANARY not in error + ack + worker.web.log()


def test_D04_broken_packets_leave_no_connection_no_traceback_and_few_lines(worker):
    lines_before = len(worker.web.log().splitlines())
    broken = ["", "x", "9", "4", "4²", "42" + "9" * 100 + '["a"]', "40admin", "47[]", "4" + CANARY]
    for number in range(MANY):
        with signed_in(worker) as wire:
            wire.send_text(broken[number % len(broken)])
            assert wire.end(2.0) == POLICY_VIOLATION
    wait_until(lambda: worker.clients() == 0, 10, "the sockets to be freed")
    log = worker.web.log()
    assert "Traceback" not in log
    assert CANARY not in log
    assert len(log.splitlines()) - lines_before < MANY
