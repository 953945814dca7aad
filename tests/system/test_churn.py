"""Nothing of a client outlives it, whichever way it left: descriptors, greenlets, rooms, objects, channels."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.system.harness import wait_until
from tests.system.herd import Herd
from tests.system.probes import Footprint, ProbedStack, footprint, metric, wait_until_back

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"

pytestmark = [pytest.mark.system, pytest.mark.timeout(900 if NIGHTLY else 120)]

#: Interval and timeout; without a whole night the shortest that leave a busy machine time to answer.
PING = (25, 20) if NIGHTLY else (3, 2)
HALF_OPEN = 1000
#: The default of MAX_CONNECTIONS_PER_USER.
MOST_OF_ONE_USER = 20
#: Few enough that places which are not given back run out while clients come and go.
MOST_OF_ONE_WORKER = 700
#: Clients of each way to leave, twelve ways.
OF_EACH = 500 if NIGHTLY else 170


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProbedStack]:
    environ = {"MAX_CONNECTIONS_PER_PROCESS": str(MOST_OF_ONE_WORKER)}
    folder = tmp_path_factory.mktemp("churn")
    stack = ProbedStack(folder, users=0, push_workers=0, ping=PING, environ=environ).start()
    yield stack
    stack.stop()


def users(first: int, number: int) -> range:
    return range(first, first + number)


def calm(stack: ProbedStack) -> Footprint | None:
    now = footprint(stack)
    return now if now.connections == now.objects == 0 else None


def test_N3_E04_a_thousand_clients_that_stop_ponging_are_closed_and_nothing_of_them_stays(stack):
    with Herd(stack) as herd:
        herd.open("warm", users(1, 20))
        herd.leave("warm", "fin")
        before = wait_until(lambda: calm(stack), 20)
        herd.open("well", users(5001, 20))
        report = herd.open("mute", users(1, HALF_OPEN), per_s=400, pongs=False)
        assert report["ready"] + sum(report["ends"].values()) == HALF_OPEN, report["ends"]
        report = herd.wait_closed("mute", sum(PING) + 25)
        assert report["open"] == 0, "their TCP connections are still open"
        assert herd.report("well")["ready"] == 20, "who answers stays"
        herd.leave("well", "fin")
        wait_until_back(stack, before, 25)


def test_churn_of_every_kind_leaves_nothing_behind(stack):
    with Herd(stack) as herd:
        herd.open("warm", users(1, 20))
        herd.leave("warm", "fin")
        before = wait_until(lambda: calm(stack), 20)
        first = 1
        for how in ("fin", "rst", "close_frame", "disconnect_packet"):
            for goes_to in ("subscribed", "connected"):
                group = f"{goes_to}, {how}"
                report = herd.open(group, users(first, OF_EACH), per_s=500, goes_to=goes_to, types=["pnl", "orders"])
                assert report["ready"] == OF_EACH, (group, report)
                herd.leave(group, how)
                first += OF_EACH
        for goes_to in ("tcp", "half_head", "upgraded", "half_frame"):
            report = herd.open(goes_to, users(first, OF_EACH // 2), per_s=500, goes_to=goes_to)
            assert report["ready"] == OF_EACH // 2, (goes_to, report)
            herd.leave(goes_to, "rst", OF_EACH // 4)
            herd.leave(goes_to, "fin")
        herd.open("refused", users(first, OF_EACH), per_s=500, token="not a token", within_s=OF_EACH / 500)
        report = herd.wait_closed("refused", 5)
        assert report["told"] == {"token_invalid": OF_EACH}
        assert report["open"] == 0
        # Gone before the server could answer: the request, the CONNECT or the subscription is under way.
        for _ in range(4):
            herd.open("hasty", users(first, OF_EACH // 4), within_s=0.01)
            herd.leave("hasty", "rst")
        wait_until_back(stack, before, 25)


def test_E01_connections_that_ended_in_any_way_no_longer_count_for_their_user(stack):
    with Herd(stack) as herd:
        for number, how in enumerate(("fin", "rst", "close_frame", "disconnect_packet") * 2):
            group = f"{number}, {how}"
            report = herd.open(group, [7] * MOST_OF_ONE_USER)
            assert (report["ready"], report["told"]) == (MOST_OF_ONE_USER, {}), how
            herd.leave(group, how)
            wait_until(lambda: metric(stack, "push_connections_open") == 0, 10, "the connections to end")
        report = herd.open("one too many", [7] * (MOST_OF_ONE_USER + 1), within_s=1)
        assert (report["ready"], report["told"]) == (MOST_OF_ONE_USER, {"too_many_connections": 1})


def test_D11_who_leaves_while_redis_does_not_answer_leaves_nothing_behind(stack):
    with Herd(stack) as herd:
        herd.open("warm", users(1, 20))
        herd.leave("warm", "fin")
        before = wait_until(lambda: calm(stack), 20)
        herd.open("connected", users(2001, 50), goes_to="connected")
        redis = stack.valkey._process
        redis.send_signal(signal.SIGSTOP)
        try:
            # One half waits for its CONNECT to be decided, the other for its channels and its states.
            herd.open("newcomers", users(1, 100), within_s=0.5)
            herd.send("connected", '42["subscribe_trading",{}]')
            herd.leave("newcomers", "rst", 50)
            herd.leave("newcomers", "fin")
            herd.leave("connected", "rst")
            wait_until(lambda: metric(stack, "push_connections_open") == 0, 10, "them to be gone")
        finally:
            redis.send_signal(signal.SIGCONT)
        herd.open("well", users(3001, 20), reconnect_jitter_s=0.2)
        herd.wait("well", 20, 15)
        herd.leave("well", "fin")
        wait_until_back(stack, before, 25)
