"""Lines of one round or connection can be found again, whoever writes them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import gevent
import pytest

from pushserver import correlation, logs
from pushserver.observers import RequestAnswered


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    correlation.bind()  # whatever a former test left to this greenlet
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("json", "debug", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_greenlet_has_ids_of_its_own_and_keeps_them_while_others_run(stream: io.StringIO) -> None:
    def round_of(user: int) -> None:
        correlation.bind(round=f"r{user}", user=user)
        gevent.sleep(0.01 * user)
        logging.getLogger("deep.inside").warning("trouble %d", user)

    gevent.joinall([gevent.spawn(round_of, user) for user in (2, 1)], raise_error=True)
    logging.getLogger("elsewhere").warning("nobody's")
    told = [(line["message"], line.get("round"), line.get("user")) for line in lines(stream)]
    assert told == [("trouble 1", "r1", 1), ("trouble 2", "r2", 2), ("nobody's", None, None)]


def test_a_request_in_the_log_names_its_round(stream: io.StringIO) -> None:
    def ask() -> None:
        correlation.bind(round="r7", user=7)
        logs.LoggingObserver("worker").record(RequestAnswered("positions", "ok", 0.02))

    gevent.spawn(ask).join()
    [line] = lines(stream)
    assert (line["event"], line["round"], line["user"], line["endpoint"]) == ("request_answered", "r7", 7, "positions")


def test_what_a_record_says_itself_counts_more_than_what_is_bound(stream: io.StringIO) -> None:
    def tell() -> None:
        correlation.bind(round="r1", user=1)
        logging.getLogger("x").warning("other", extra={"fields": {"user": 2}})

    gevent.spawn(tell).join()
    assert (lines(stream)[0]["user"], lines(stream)[0]["round"]) == (2, "r1")


def test_as_text_the_ids_stand_at_the_end(stream: io.StringIO) -> None:
    logs.configure("text", "debug", stream)

    def tell() -> None:
        correlation.bind(connection="c9")
        logging.getLogger("pushserver.web").warning("odd")

    gevent.spawn(tell).join()
    assert stream.getvalue().rstrip().endswith("WARNING web odd connection=c9")
