"""One call of the port while it lasts: its requests, their common deadline, the oldest stamp among their answers."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from pushserver.clock import Clock
from pushserver.errors import AddressBanned, AnswerMalformed, ClockSkew, ExchangeError, ExchangeUnavailable, KeyRefused
from pushserver.exchange.answers_table import AHEAD
from pushserver.exchange.bybit_errors import RawAnswer, envelope_of, time_of
from pushserver.exchange.clock_offset import ClockOffset
from pushserver.exchange.port import Endpoint, Pay, unpaid
from pushserver.exchange.pybit_client import Pybit
from pushserver.exchange.transport import Transport
from pushserver.feeds.numbers import rows_at
from pushserver.model import Credentials
from pushserver.observers import ExchangeClockMeasured, Observer, RequestAnswered

logger = logging.getLogger(__name__)

#: A stamp further ahead of what we take for the exchange's time would block the figures that follow it.
MOST_AHEAD_MS = 5_000
#: A request that could not be sent for so long, for want of a connection, is not what was paid for any more.
LATE_S = 0.1
UNAUTHORISED = 401
API_KEY = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Line:
    """What all calls of one exchange share."""

    transport: Transport
    pybit: Pybit
    clock: Clock
    offset: ClockOffset
    observer: Observer
    request_timeout_s: float

    def server_now_ms(self) -> int:
        return self.clock.wall_ms() + self.offset.offset_ms


@dataclass(frozen=True, slots=True)
class Response:
    """What pybit reads of a ``requests.Response``."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    elapsed: timedelta
    status_code: int = 200
    text: str = ""
    url: str = ""

    def json(self) -> Mapping[str, Any]:
        return self.body


class Conversation:
    """Asks one endpoint, once per page, for one user; also the ``client`` that pybit sends through."""

    def __init__(
        self, line: Line, endpoint: Endpoint, credentials: Credentials | None, deadline_s: float, pay: Pay = unpaid
    ) -> None:
        if credentials is not None and not API_KEY.fullmatch(credentials.api_key):
            raise KeyRefused("The API key holds characters that no key has.", endpoint=endpoint.value)
        self.headers: dict[str, str] = {}
        self.requests = 0
        self.oldest_ms: int | None = None
        self.last_headers: Mapping[str, str] = {}
        self._line = line
        self._endpoint = endpoint
        self._credentials = credentials
        self._deadline_s = deadline_s
        self._pay = pay
        self._may_resynchronise = credentials is not None
        self._must_ask_the_time = False
        self._may_recheck_key = credentials is not None
        self._not_paid: Exception | None = None

    def ask(self, **parameters: object) -> Mapping[str, Any]:
        """The envelope of a successful answer; a request refused for its time is signed again, once in a call.

        A key that is refused at the door (HTTP 401, which says nothing more) is looked at twice before it is believed.

        Raises:
            ExchangeError: anything else.
        """
        try:
            return self._ask_once(parameters)
        except ClockSkew:
            if not self._may_resynchronise:
                raise
            self._may_resynchronise = False
        except KeyRefused as error:
            if error.exchange_code != UNAUTHORISED or not self._may_recheck_key:
                raise
            self._may_recheck_key = False
        if self._must_ask_the_time:
            self._must_ask_the_time = False
            self._ask_the_time()
        return self.ask(**parameters)

    def ask_result(self, **parameters: object) -> Mapping[str, Any]:
        """Like ``ask``, for answers whose stamp counts: the envelope's ``result`` object."""
        envelope = self.ask(**parameters)
        stamp_ms, result = time_of(envelope), envelope.get("result")
        if stamp_ms is None:
            raise self.malformed("it has no time")
        if not isinstance(result, Mapping):
            raise self.malformed("it has no result")
        self.oldest_ms = stamp_ms if self.oldest_ms is None else min(self.oldest_ms, stamp_ms)
        return result

    def rows_of(self, result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The ``list`` of a result; empty if it is there and empty.

        Raises:
            AnswerMalformed: it is missing, or something else.
        """
        try:
            return list(rows_at(result, "list"))
        except AnswerMalformed as error:
            raise self.malformed(error.message) from None

    def malformed(self, what: str, code: str | None = None) -> AnswerMalformed:
        return AnswerMalformed(
            f"The exchange sent an answer that cannot be used: {what}.", code=code, endpoint=self._endpoint.value
        )

    # What pybit calls.

    def prepare_request(self, request: Any) -> Any:
        return request

    def send(self, request: Any, timeout: float) -> Response:
        clock = self._line.clock
        started_s, sent_ms = clock.monotonic_s(), clock.wall_ms()
        result, whose = "ok", ""
        try:
            body, headers = self._exchange(request, sent_ms)
        except ExchangeError as error:
            result, whose = error.code, error.whose.value
            raise
        finally:
            duration_s = clock.monotonic_s() - started_s
            if self._not_paid is None:
                self._line.observer.record(RequestAnswered(self._endpoint.value, result, duration_s, whose))
        return Response(body, headers, timedelta(seconds=duration_s))

    def _ask_once(self, parameters: Mapping[str, object]) -> Mapping[str, Any]:
        line = self._line
        if self.requests:
            self._pay()
        try:
            return line.pybit.get(self._endpoint, self, self._credentials, line.server_now_ms, parameters)
        except ExchangeError as error:
            failure = error
        except Exception as error:
            if error is self._not_paid:
                raise error.with_traceback(None) from None
            # The port promises ExchangeError alone, and what pybit raises quotes the request.
            logger.error("pybit failed with %s at %s", type(error).__name__, self._endpoint.value)
            failure = ExchangeUnavailable("The request could not be made.", endpoint=self._endpoint.value)
        # Raised anew and alone: the frames below hold signed headers, which no report of a failure needs.
        failure.__cause__ = failure.__context__ = None
        raise failure.with_traceback(None)

    def _exchange(self, request: Any, sent_ms: int) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        line = self._line
        left_s = self._deadline_s - line.clock.monotonic_s()
        if left_s <= 0:
            raise ExchangeUnavailable(
                "The time for this request was used up.", code="exchange_timeout", endpoint=self._endpoint.value
            )
        self.requests += 1
        wanted_s = line.clock.monotonic_s()
        raw = line.transport.get(
            self._endpoint,
            request.url,
            request.headers,
            min(left_s, line.request_timeout_s),
            lambda is_repetition: self._before_sending(wanted_s, is_repetition),
        )
        self.last_headers = raw.headers
        try:
            envelope = envelope_of(self._endpoint, raw, line.server_now_ms())
        except ClockSkew:
            self._resynchronise(raw, sent_ms)
            raise
        except AddressBanned:
            # The exchange asks for it: sessions that stay open keep a ban alive.
            line.transport.close()
            raise
        self._check_time(envelope, sent_ms)
        return envelope, raw.headers

    def _before_sending(self, wanted_s: float, is_repetition: bool) -> None:
        """What was paid for was paid for a moment, and once: the exchange counts when and how often it arrives."""
        if not is_repetition and self._line.clock.monotonic_s() - wanted_s <= LATE_S:
            return
        self.requests += is_repetition
        try:
            self._pay()
        except Exception as error:
            # Not the exchange's failure: it leaves through pybit as it is.
            self._not_paid = error
            raise

    def _check_time(self, envelope: Mapping[str, Any], sent_ms: int) -> None:
        stamp_ms, now_ms, offset = time_of(envelope), self._line.clock.wall_ms(), self._line.offset
        if stamp_ms is None:
            return
        if self._endpoint is Endpoint.SERVER_TIME:
            # Whatever it says: it is our clock that may have jumped, and this is what puts it right.
            offset.correct(sent_ms, now_ms, stamp_ms)
        elif stamp_ms > now_ms + offset.offset_ms + MOST_AHEAD_MS:
            raise self.malformed("it is stamped ahead of our time", AHEAD.code)
        else:
            offset.learn(sent_ms, now_ms, stamp_ms)
        self._tell_offset()

    def _resynchronise(self, raw: RawAnswer, sent_ms: int) -> None:
        """A refusal for the time tells the time; one that does not costs a question."""
        line = self._line
        stamp_ms = time_of(orjson.loads(raw.body)) if raw.status == 200 else None
        if stamp_ms is not None:
            line.offset.correct(sent_ms, line.clock.wall_ms(), stamp_ms)
        else:
            self._must_ask_the_time = True
        self._tell_offset()

    def _ask_the_time(self) -> None:
        asking = Conversation(self._line, Endpoint.SERVER_TIME, None, self._deadline_s)
        self._pay()
        try:
            asking.ask()
        finally:
            self.requests += asking.requests

    def _tell_offset(self) -> None:
        offset = self._line.offset
        offset_ms = offset.news()
        if offset_ms is None:
            return
        self._line.observer.record(ExchangeClockMeasured(offset_ms / 1000))
        if offset.is_alarming():
            logger.warning("this machine's clock is %+d ms off the exchange's", -offset_ms)
