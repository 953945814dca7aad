"""One line per record, in one format, without a secret: everything this program writes goes through here.

``configure`` puts a single handler on the root logger, so libraries are held to the same rules: values that look
like tokens or keys are masked, control characters are escaped so that a record cannot pretend to be two, and a
reason that repeats more than ten times a second is counted instead of written.

Call it before pybit is imported: pybit installs a handler of its own when the root logger has none.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, TextIO

from pushserver import observers
from pushserver.clock import Clock, SystemClock
from pushserver.correlation import bound
from pushserver.model import Freshness, room

logger = logging.getLogger(__name__)

#: Lines written per reason and second; what is beyond is counted and told later.
LINES_PER_SECOND = 10
#: Characters of one message or traceback; the rest adds cost, not insight.
MAX_TEXT = 8 * 1024

# Everything that could end a line, move the cursor or reorder what a person reads (bidi marks).
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_CONFIDENTIAL = (
    r"(?:access_|auth_)?token|jwt|password|passwd|(?:api|jwt)[_-]?secrets?|secret|api[_-]?key|credentials_keys"
    r"|x-bapi-[a-z-]+|(?:proxy-)?authorization|cookie|set-cookie"
)
_MASKS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A JWT is recognised by its head, so that one that was cut off is masked too.
    (re.compile(r"eyJ[\w-]{6,}(?:\.[\w-]*)*"), "***"),
    (re.compile(r"(\bbearer[\s:]+)[^\s\"',;]+", re.IGNORECASE), r"\1***"),
    # name=value, name: value, "name": "value", ('name', 'value'), b'name': b'value'
    (
        re.compile(
            rf"(?<![a-z])((?:{_CONFIDENTIAL})(?:[\"']?\s*(?:=|:|%3d)|[\"']\s*,)\s*)"
            r"(?:b?\"[^\"]*\"|b?'[^']*'|(?:basic\s+|bearer\s+)?[^\s\"'&;,)}\]]+)",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    # The password of a connection URL.
    (re.compile(r"(\w://)[^/\s@\"']+@"), r"\1***@"),
)


def masked_text(text: str) -> str:
    """``text`` without anything that looks like a token, key, password or credential header."""
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return text


def one_line(text: str) -> str:
    """``text`` with every control or direction character written as its escape."""
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(match.group()) or f"\\u{ord(match.group()):04x}"


def _clean(text: str) -> str:
    # Cut before masking as well: a megabyte of input must not buy a megabyte of pattern matching.
    return one_line(masked_text(text[: 4 * MAX_TEXT])[:MAX_TEXT])


class LineFormatter(logging.Formatter):
    """``2026-01-02T03:04:05.678Z INFO web event=connection_opened connection=c1 user=4``, or the same as JSON."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._as_json = log_format == "json"

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        time = moment.replace("+00:00", "Z")
        name = record.name.removeprefix("pushserver.")
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            # A library's broken call must still leave a trace, and must not take the caller down.
            message = f"{record.msg} (arguments do not fit)"
        shown: dict[str, object] = dict(getattr(record, "fields", {}))
        for key, value in bound().items():
            shown.setdefault(key, value)
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        if self._as_json:
            content: dict[str, object] = {"time": time, "level": record.levelname.lower(), "logger": name}
            content["process"] = record.process
            if message:
                content["message"] = _clean(message)
            content |= {key: _clean(value) if isinstance(value, str) else value for key, value in shown.items()}
            return json.dumps(content, ensure_ascii=False, default=lambda value: _clean(str(value)))
        words = [_clean(message)] if message else []
        # A message says what happened; only records without one need the event's name.
        words += [f"{key}={_word(value)}" for key, value in shown.items() if not (message and key == "event")]
        return f"{time} {record.levelname} {name} {' '.join(words)}"


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = _clean(str(value))
    return text if re.fullmatch(r"[^\s\"=]+", text) else '"' + text.replace('"', '\\"') + '"'


class LineBudget:
    """Grants ten lines a second per reason; what it refused is told in one line when the second is over.

    (With the next record of any reason, for nothing here has a timer.)
    """

    #: Reasons told apart within a second. They come from code, but a library may put input into its message texts.
    MAX_REASONS = 1_000

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second_began_s = clock.monotonic_s()
        self._lines: dict[str, int] = {}

    def take(self, reason: str) -> bool:
        """Whether a line for this reason may be written now."""
        now_s = self._clock.monotonic_s()
        if now_s - self._second_began_s >= 1:
            self._settle(now_s)
        if reason not in self._lines and len(self._lines) >= self.MAX_REASONS:
            reason = "too many reasons"
        lines = self._lines[reason] = self._lines.get(reason, 0) + 1
        return lines <= LINES_PER_SECOND

    def _settle(self, now_s: float) -> None:
        lines, self._lines, self._second_began_s = self._lines, {}, now_s
        for reason, count in lines.items():
            if count > LINES_PER_SECOND:
                left_out = count - LINES_PER_SECOND
                logger.warning("left out %d lines like: %s", left_out, reason, extra={"granted": True})


class BudgetFilter(logging.Filter):
    """Holds every record to the budget of its reason; records that were granted their line elsewhere pass."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._budget = LineBudget(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "granted", False) or self._budget.take(f"{record.name} {str(record.msg)[:200]}")


def configure(log_format: str, log_level: str, stream: TextIO | None = None, clock: Clock | None = None) -> None:
    """Make the root logger write our lines to ``stream`` (stderr). Calling it again replaces the former setup.

    ``log_format`` is ``text`` or ``json``; ``log_level`` is debug, info, warning or error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(log_format))
    handler.addFilter(BudgetFilter(clock or SystemClock()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log_level.upper())
    # A full disk or a closed pipe must not print tracebacks into the same place for every record.
    logging.raiseExceptions = False
    # What libraries say below warning is about themselves, and urllib3 and pybit would write signed queries.
    for name in ("urllib3", "pybit", "engineio", "socketio", "websocket", "geventwebsocket", "alembic"):
        logging.getLogger(name).setLevel(max(logging.getLevelName(log_level.upper()), logging.WARNING))


@dataclass(frozen=True, slots=True)
class Line:
    """How a kind of record is written: the event's name, its level, and the field that tells its reasons apart."""

    event: str
    level: Callable[[Any], int]
    reason: str


def _always(level: int) -> Callable[[Any], int]:
    return lambda record: level


#: What the person on call wants to read is info and above; what every round does is debug. Others are only counted.
LINES: Mapping[type[observers.Record], Line] = {
    observers.ConnectionOpened: Line("connection_opened", _always(logging.INFO), "carrier"),
    observers.ConnectionRefused: Line("connection_refused", _always(logging.INFO), "code"),
    observers.ConnectionClosed: Line("connection_closed", _always(logging.INFO), "reason"),
    observers.RoundFinished: Line(
        "round_finished", lambda record: logging.WARNING if record.result == "failed" else logging.DEBUG, "result"
    ),
    observers.RequestAnswered: Line("request_answered", _always(logging.DEBUG), "result"),
    observers.FetchFailed: Line("fetch_failed", _always(logging.WARNING), "code"),
    observers.StateCommitted: Line("state_committed", _always(logging.DEBUG), "result"),
    observers.FreshnessChanged: Line(
        "freshness_changed",
        lambda record: logging.INFO if record.state is Freshness.LIVE else logging.WARNING,
        "reason",
    ),
    observers.AddressPaused: Line("address_paused", _always(logging.ERROR), "code"),
    observers.EventReceived: Line("event_received", _always(logging.DEBUG), "result"),
    observers.UpdateEmitted: Line("update_emitted", _always(logging.DEBUG), "data_type"),
    observers.PushSampled: Line("update_pushed", _always(logging.INFO), "data_type"),
    observers.BusStateChanged: Line(
        "bus_state", lambda record: logging.INFO if record.state == "connected" else logging.ERROR, "state"
    ),
    observers.StreamEnded: Line(
        "stream_ended", lambda record: logging.DEBUG if record.reason == "stopped" else logging.INFO, "reason"
    ),
    observers.TickerEnded: Line("ticker_ended", _always(logging.WARNING), "reason"),
    observers.HomesSwept: Line("homes_swept", _always(logging.WARNING), "homes"),
    observers.BusMessageDropped: Line("bus_message_dropped", _always(logging.WARNING), "reason"),
    observers.LoginAttempted: Line("login", _always(logging.INFO), "result"),
    observers.LifecycleReported: Line("lifecycle", _always(logging.INFO), "state"),
}

#: Fields of records under the names they have in a line.
_SHOWN_AS = {
    "connection_id": "connection", "round_id": "round", "user_id": "user", "data_type": "type", "event": "name",
    "duration_s": "seconds", "size_bytes": "bytes", "message": "text", "lag_s": "lag", "age_s": "age",
    "retry_in_s": "retry_in", "outage_s": "outage", "latency_s": "latency",
}  # fmt: skip


class LoggingObserver(observers.Observer):
    """Writes a line per record that ``LINES`` knows, each reason within its line budget."""

    def __init__(self, component: str, clock: Clock | None = None) -> None:
        """``component`` (web, worker) names the logger."""
        self._logger = logging.getLogger(f"pushserver.{component}")
        self._budget = LineBudget(clock or SystemClock())

    def record(self, record: observers.Record) -> None:
        line = LINES.get(type(record))
        if line is None:
            return
        level = line.level(record)
        if not self._logger.isEnabledFor(level):
            return
        # Asked here and not in the handler's filter: thousands of pushes a second must not each make a log record.
        if not self._budget.take(f"{line.event} {getattr(record, line.reason)}"):
            return
        shown: dict[str, object] = {"event": line.event}
        for field in fields(record):
            value = getattr(record, field.name)
            if value is not None and value != "":
                shown[_SHOWN_AS.get(field.name, field.name)] = value
        message = _emitting(record) if isinstance(record, observers.UpdateEmitted | observers.PushSampled) else ""
        self._logger.log(level, message, extra={"fields": shown, "granted": True})


def _emitting(record: observers.UpdateEmitted | observers.PushSampled) -> str:
    name = "status_update" if getattr(record, "kind", "push") == "status" else f"{record.data_type.value}_update"
    return f'emitting event "{name}" to {room(record.data_type, record.user_id)}'
