"""One line per record, nothing secret in it, and no more than ten a second for one reason."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from pushserver import logs, observers
from pushserver.clock import ManualClock
from pushserver.model import DataType, Freshness
from tests.test_metrics import ONE_OF_EACH

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0IiwiZXhwIjoxfQ.c2lnbmF0dXJlLWNhbmFyeQ"
CANARY = "c4n4ryS3cr3tV4lu3"
PUSH = observers.PushSampled(DataType.BALANCE, 4, connections=2, size_bytes=300, latency_s=0.004)


class Output:
    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.clock = ManualClock()

    def configure(self, log_format: str = "text", log_level: str = "debug") -> Output:
        logs.configure(log_format, log_level, self.stream, self.clock)
        return self

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def output() -> Iterator[Output]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield Output().configure()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.fixture
def observer(output: Output) -> logs.LoggingObserver:
    return logs.LoggingObserver("web", output.clock)


def test_a_text_line_has_time_level_component_and_fields(output: Output, observer: logs.LoggingObserver) -> None:
    observer.record(observers.ConnectionOpened("c1", 4, "payload"))
    time, rest = output.text.rstrip("\n").split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == "INFO web event=connection_opened connection=c1 user=4 carrier=payload"


def test_a_json_line_has_the_same_as_keys(output: Output, observer: logs.LoggingObserver) -> None:
    output.configure("json")
    observer.record(observers.ConnectionClosed("c1", 4, "ping timeout", 12.5))
    (line,) = output.objects()
    assert datetime.fromisoformat(str(line.pop("time"))).tzinfo is not None
    assert line.pop("process")
    assert line == {
        "level": "info", "logger": "web", "event": "connection_closed",
        "connection": "c1", "user": 4, "reason": "ping timeout", "seconds": 12.5,
    }  # fmt: skip


def test_a_push_is_told_in_the_words_operators_know(output: Output, observer: logs.LoggingObserver) -> None:
    observer.record(PUSH)
    assert ' INFO web emitting event "balance_update" to balance_4 ' in output.text
    output.configure("json")
    observer.record(PUSH)
    assert json.loads(output.lines[-1])["message"] == 'emitting event "balance_update" to balance_4'


def test_what_every_round_does_is_written_at_debug_level_only(output: Output, observer: logs.LoggingObserver) -> None:
    output.configure(log_level="info")
    observer.record(observers.StateCommitted(4, "r1", DataType.PNL, "unchanged", 0.1))
    observer.record(observers.RoundFinished(4, "r1", "ok", 0.2, 2))
    observer.record(observers.UpdateEmitted(DataType.PNL, "snapshot", 4, 1, 10))
    assert output.text == ""
    observer.record(observers.RoundFinished(4, "r2", "failed", 0.2, 2, "key_invalid"))
    assert "WARNING web event=round_finished user=4 round=r2 result=failed" in output.text


@pytest.mark.parametrize("kind", list(logs.LINES), ids=lambda kind: kind.__name__)
def test_each_kind_of_record_becomes_one_line(
    output: Output, observer: logs.LoggingObserver, kind: type[observers.Record]
) -> None:
    observer.record(next(record for record in ONE_OF_EACH if type(record) is kind))
    assert len(output.lines) == 1


def test_a_failed_round_and_its_fetches_share_a_correlation_id(output: Output, observer: logs.LoggingObserver) -> None:
    output.configure("json")
    observer.record(observers.FetchFailed(4, "r7", DataType.PNL, "key_invalid", "position/list", 10003, "text", 5.0))
    observer.record(observers.RoundFinished(4, "r7", "failed", 0.2, 2, "key_invalid"))
    assert [line["round"] for line in output.objects()] == ["r7", "r7"]


def test_good_news_is_info_and_bad_news_is_not(output: Output, observer: logs.LoggingObserver) -> None:
    observer.record(observers.FreshnessChanged(4, DataType.PNL, Freshness.STOPPED, "key_invalid"))
    observer.record(observers.FreshnessChanged(4, DataType.PNL, Freshness.LIVE, "recovered"))
    observer.record(observers.BusStateChanged("deaf"))
    observer.record(observers.BusStateChanged("connected", 3.0))
    assert [line.split()[1] for line in output.lines] == ["WARNING", "INFO", "ERROR", "INFO"]


LEAKS = [
    f"GET /socket.io/?EIO=4&token={CANARY}&transport=websocket HTTP/1.1",
    f"GET /socket.io/?access_token={CANARY}",
    f"/socket.io/?TOKEN%3D{CANARY}",
    f"Authorization: Bearer {CANARY}",
    f"authorization: Basic {CANARY}",
    f"headers {{'Authorization': 'Bearer {CANARY}', 'Host': 'x'}}",
    f"bearer {CANARY}",
    f"X-BAPI-API-KEY: {CANARY}",
    f"{{'X-BAPI-SIGN': '{CANARY}', 'X-BAPI-TIMESTAMP': '1'}}",
    f"[(b'X-BAPI-API-KEY', b'{CANARY}')]",
    f"HTTP(testnet=False, api_key='{CANARY}', api_secret='{CANARY}')",
    f'{{"username":"a","password":"{CANARY} with spaces"}}',
    f"redis.exceptions.ConnectionError: redis://user:{CANARY}@host:6379/0",
    f"postgresql+psycopg://app:{CANARY}@db/push",
    f"JWT_SECRETS={CANARY}",
    f"CREDENTIALS_KEYS={CANARY}",
    f"Cookie: session={CANARY}",
    f"Proxy-Authorization: {CANARY}",
]


@pytest.mark.parametrize("text", LEAKS)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_B11_F01_secrets_are_masked_in_any_message(output: Output, text: str, log_format: str) -> None:
    output.configure(log_format)
    logging.getLogger("library").warning(text)
    logging.getLogger("library").warning("%s", text)
    logging.getLogger("library").warning("object %r", [text])
    assert len(output.lines) == 3
    assert CANARY not in output.text


@pytest.mark.parametrize("text", LEAKS)
def test_B11_F01_secrets_are_masked_in_tracebacks(output: Output, text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("library").exception("failed")
    assert len(output.lines) == 1
    assert "ValueError" in output.text
    assert CANARY not in output.text


@pytest.mark.parametrize("token", [JWT, JWT.rsplit(".", 1)[0], JWT[:25], f"x{JWT}", f"'{JWT}'"])
def test_B11_anything_shaped_like_a_token_is_masked_even_cut_off(output: Output, token: str) -> None:
    logging.getLogger("library").warning("got %s here", token)
    assert "eyJ" not in output.text
    assert "here" in output.text


def test_masking_leaves_ordinary_words_alone() -> None:
    text = "token_expired code=token_missing user=4 balance_4 tokens issued elsewhere, the secret is out"
    assert logs.masked_text(text) == text


def test_B11_a_token_cannot_hide_at_the_place_where_a_long_text_is_cut(output: Output) -> None:
    for cut in (logs.MAX_TEXT, 4 * logs.MAX_TEXT):
        logging.getLogger("library").warning("x" * (cut - 20) + JWT)
    assert JWT[:12] not in output.text


@pytest.mark.parametrize(
    "hostile",
    ["a\nb", "a\r\nb", "a\x00b", "\x1b[2J\x1b[31m", "\u202eevil", "a\u2028b", "a\x85b", "\ud800", "a\tb", "\u200b"],
)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_B10_a_record_stays_one_printable_line(output: Output, hostile: str, log_format: str) -> None:
    output.configure(log_format)
    logs.LoggingObserver("web", output.clock).record(
        observers.FetchFailed(4, "r", DataType.PNL, "exchange_error", "x", 1, hostile, 1.0)
    )
    logging.getLogger("library").warning("path %s", hostile)
    assert len(output.text.splitlines()) == output.text.count("\n") == 2
    assert all(line.isprintable() for line in output.lines)
    output.text.encode()


def test_B10_a_value_cannot_pretend_to_be_another_field(output: Output, observer: logs.LoggingObserver) -> None:
    observer.record(observers.ConnectionClosed("c1", 4, 'x" user=5 reason="y', 1.0))
    assert r'reason="x\" user=5 reason=\"y"' in output.text


def test_a_huge_message_is_cut(output: Output) -> None:
    logging.getLogger("library").warning("x" * 1_000_000)
    assert len(output.text) < logs.MAX_TEXT + 200


def test_a_librarys_broken_call_still_leaves_a_line(output: Output) -> None:
    logging.getLogger("library").warning("%d users", "many")
    assert "%d users" in output.text


def test_I08_one_reason_gets_ten_lines_a_second_and_then_a_count(
    output: Output, observer: logs.LoggingObserver
) -> None:
    for _ in range(1_000):
        observer.record(observers.ConnectionRefused("c", "token_invalid"))
    assert len(output.lines) == 10
    output.clock.advance(1.1)
    observer.record(observers.ConnectionOpened("c", 4, "payload"))
    assert output.lines[10].endswith("WARNING logs left out 990 lines like: connection_refused token_invalid")
    assert "connection_opened" in output.lines[11]
    assert len(output.lines) == 12


def test_I08_other_reasons_are_still_heard_during_a_flood(output: Output, observer: logs.LoggingObserver) -> None:
    for _ in range(100):
        observer.record(observers.ConnectionRefused("c", "token_invalid"))
    observer.record(observers.ConnectionRefused("c", "server_busy"))
    assert output.lines[-1].endswith("code=server_busy")


def test_I08_a_librarys_flood_is_held_back_too(output: Output) -> None:
    for number in range(100):
        logging.getLogger("library").error("Cannot publish to redis... %d", number)
    assert len(output.lines) == 10
    output.clock.advance(1.1)
    logging.getLogger("other").error("something else")
    assert "left out 90 lines like: library Cannot publish to redis... %d" in output.lines[10]


def test_I08_inventing_reasons_does_not_use_up_memory(output: Output) -> None:
    budget = logs.LineBudget(output.clock)
    granted = sum(budget.take(f"reason {number}") for number in range(10 * logs.LineBudget.MAX_REASONS))
    assert granted == logs.LineBudget.MAX_REASONS + logs.LINES_PER_SECOND


def test_configuring_again_replaces_the_former_setup(output: Output) -> None:
    output.configure().configure()
    logging.getLogger("library").warning("once")
    assert len(output.lines) == 1


def test_a_closed_pipe_does_not_hurt_the_program(output: Output) -> None:
    output.stream.close()
    logging.getLogger("library").warning("nobody reads this")


def test_pybit_finds_a_handler_and_installs_none_of_its_own() -> None:
    script = (
        "import logging; from pushserver import logs; logs.configure('text', 'debug')\n"
        "from pybit.unified_trading import HTTP; HTTP(api_key='k', api_secret='s')\n"
        "print(len(logging.getLogger().handlers), len(logging.getLogger('pybit').handlers),"
        " logging.getLogger('pybit').getEffectiveLevel())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent.parent, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert result.stdout.split() == ["1", "0", str(logging.WARNING)]
