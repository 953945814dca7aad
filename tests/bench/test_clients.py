"""The load client understands what servers send, however the bytes are cut."""

from __future__ import annotations

import socket
import threading

import pytest

from bench.clients import Client, Disconnected, masked_text
from bench.comparison import summarise
from bench.delivery import Load, Run, _problems
from pushserver.web.websocket import close_frame, text_frame


@pytest.fixture
def client():
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=server.accept, daemon=True).start()
        client = Client(server.getsockname(), 4)
        yield client
        client.socket.close()


@pytest.mark.parametrize("step", [7, 1000, 100_000, 1_000_000])
def test_messages_are_whole_however_the_stream_is_cut(client, step):
    wanted = [b"2", b"x" * 125, b"y" * 126, b"z" * 65_535, b"w" * 65_536, b""]
    stream = b"".join(text_frame(message) for message in wanted)
    found = []
    for start in range(0, len(stream), step):
        found += client.messages(stream[start : start + step])
    assert found == wanted


def test_a_close_frame_is_the_end(client):
    with pytest.raises(Disconnected):
        client.messages(close_frame(1000))


def test_a_clients_frame_is_masked_and_has_its_length():
    assert masked_text(b"40")[:2] == bytes((0x81, 0x82))
    assert masked_text(b"x" * 300)[:4] == bytes((0x81, 0xFE, 0x01, 0x2C))


SEEN = {"received": 100, "fewest": 10, "most": 10, "misdirected": 0, "closed": 0}
COUNTS = {"published": 100, "failed": 0}
LOAD = Load(10, 1, 50, 1, warm_up_s=0.7)


def test_a_run_in_which_everything_arrived_is_valid():
    assert _problems(SEEN, COUNTS, LOAD) == []


@pytest.mark.parametrize(
    ("seen", "counts"),
    [
        ({"received": 99}, {}),
        ({"received": 101}, {}),
        ({"fewest": 8}, {}),
        ({"misdirected": 1}, {}),
        ({"closed": 1}, {}),
        ({"received": 90}, {"published": 90}),
        ({}, {"failed": 1}),
    ],
)
def test_a_run_in_which_anything_went_wrong_is_invalid(seen, counts):
    assert _problems(SEEN | seen, COUNTS | counts, LOAD)


def test_invalid_runs_do_not_count_in_the_median():
    runs = [Run("x", 1, cpu_us_per_push=value) for value in (10.0, 20.0, 90.0)]
    runs[2].problems.append("an update was lost")
    summary = summarise(runs)
    assert (summary["cpu_us_per_push"], summary["valid_runs"], summary["problems"]) == (15.0, 2, ["an update was lost"])


def test_without_a_valid_run_there_is_no_figure():
    run = Run("x", 1, problems=["lost"])
    assert summarise([run])["cpu_us_per_push"] is None
