"""Brings every user's newest states from the bus to the phones that subscribed to them.

The order that leaves no gap: first the channel is subscribed and confirmed, then the stored state is read and
sent, and anything not newer than what the phone has is dropped. The same reading is done again for all local
phones whenever the bus was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import gevent

from pushserver.bus import keys
from pushserver.bus.ears import Ears
from pushserver.bus.states import States, StoredState
from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.model import DataType
from pushserver.observers import BusMessageDropped, Observer, SubscriptionChanged, UpdateEmitted, UpdatesConflated
from pushserver.web.absence import Absence
from pushserver.web.bus_messages import SEQ_AHEAD, MessageRefused, StatusMessage, UpdateMessage, parse_message
from pushserver.web.outages import Outages
from pushserver.web.phones import Phone
from pushserver.web.push_totals import PushTotals
from pushserver.web.retrying import Retry
from pushserver.web.scheduling import Schedule, Scheduling
from pushserver.web.statuses import Statuses
from pushserver.web.watches import Watch
from pushserver.web.websocket import text_frame

logger = logging.getLogger(__name__)

#: How long a subscriber waits for its channels; later they still come, through the re-read.
SUBSCRIBE_TIMEOUT_S = 2.0
REREAD_BATCH = 500
MISADDRESSED = "misaddressed"


class Deliveries:
    """``listener`` is set once by the composition root: each of the two needs the other."""

    listener: Ears

    def __init__(
        self,
        states: States,
        schedule: Schedule,
        live_bits: Callable[[Iterable[int]], Mapping[int, int]],
        intervals_s: Mapping[DataType, float],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._states = states
        self._clock = clock
        self._observer = observer
        self._watches: dict[bytes, Watch] = {}
        self._statuses = Statuses(observer)
        outages = Outages(self._watches.values, self._statuses.send, clock)
        absence = Absence(self._watches.values, self._statuses.send, states.read, live_bits, intervals_s, clock)
        self.scheduling = Scheduling(
            schedule,
            lambda: (watch.user_id for watch in self._watches.values()),
            self.reread,
            outages,
            absence,
            lambda: self.listener.hears,
            clock,
        )
        #: What could not be read when a phone wanted it, and the ``seq`` it said it has, and whether it asked again.
        self._owed: dict[Phone, dict[DataType, tuple[int | None, bool]]] = {}
        self._pay = Retry(self._pay_owed)
        self._reread_again = Retry(self._try_reread)
        self.totals = PushTotals(observer)

    def subscribe(self, phone: Phone, data_types: Iterable[DataType]) -> list[DataType]:
        """Make the types live for the phone; the ones that are new. Their stored states are sent by ``send_stored``."""
        new = [data_type for data_type in data_types if data_type not in phone.subscribed]
        watches = {_channel(phone.user_id, data_type): data_type for data_type in new}
        now_s = self._clock.monotonic_s()
        for channel, data_type in watches.items():
            self._watches.setdefault(channel, Watch(phone.user_id, data_type, now_s)).joining += 1
        try:
            self.listener.subscribe(watches, SUBSCRIBE_TIMEOUT_S)
            if new and not phone.gone:
                self.scheduling.wake(phone.user_id)
        finally:
            # From here to the caller's answer nothing waits, so no update can overtake it.
            for channel, data_type in watches.items():
                watch = self._watches[channel]
                watch.joining -= 1
                if not phone.gone:
                    self._join(phone, watch, data_type)
                self._release(channel, watch)
        return new

    @property
    def watches(self) -> Collection[Watch]:
        """What this worker's phones watch."""
        return self._watches.values()

    def unsubscribe(self, phone: Phone, data_types: Iterable[DataType]) -> None:
        """Nothing of these types follows."""
        for data_type in data_types:
            if data_type not in phone.subscribed:
                continue
            phone.subscribed.discard(data_type)
            phone.delivered.pop(data_type, None)
            phone.connection.outbox.discard_update(data_type)
            channel = _channel(phone.user_id, data_type)
            watch = self._watches[channel]
            watch.phones.discard(phone)
            self._release(channel, watch)
            self._observer.record(SubscriptionChanged(data_type, -1))

    def send_stored(
        self,
        phone: Phone,
        data_types: Sequence[DataType],
        since: Mapping[DataType, int] | None = None,
        again: bool = False,
    ) -> None:
        """Send the newest known state of each type, unless it is what the phone has, by ``since``.

        ``again``: it is asked for, so it is sent even if this connection was sent it before. While Redis does not
        answer, it is tried again in the background until it does.
        """
        since = since or {}
        if not self._try_send_stored(phone, data_types, since, again):
            self._owed.setdefault(phone, {}).update({each: (since.get(each), again) for each in data_types})
            self._pay.ask()

    def _pay_owed(self) -> bool:
        while self._owed:
            phone = next(iter(self._owed))
            owed = dict(self._owed[phone])
            for again in (False, True):
                since = {each: seq for each, (seq, _) in owed.items() if seq is not None}
                wanted = [each for each, (_, asked_again) in owed.items() if asked_again is again]
                if not self._try_send_stored(phone, wanted, since, again):
                    return False
            if self._owed[phone] == owed:  # else more was wanted while this was read
                del self._owed[phone]
        return True

    def _try_send_stored(
        self, phone: Phone, data_types: Sequence[DataType], since: Mapping[DataType, int], again: bool
    ) -> bool:
        data_types = [data_type for data_type in data_types if data_type in phone.subscribed]
        if not data_types or phone.gone:
            return True
        try:
            stored = self._states.read([(phone.user_id, data_type) for data_type in data_types])
        except StoreUnavailable:
            return False
        for data_type, state in zip(data_types, stored, strict=True):
            if data_type not in phone.subscribed:
                continue
            if since.get(data_type) == state.seq:
                phone.delivered[data_type] = max(phone.delivered[data_type], state.seq)
            elif again and state.seq >= phone.delivered[data_type]:
                phone.delivered[data_type] = state.seq - 1
            self._send_state([phone], data_type, state, "resync" if again else "snapshot")
        return True

    def on_message(self, channel: bytes, payload: bytes) -> None:
        """A message from the bus; garbage is counted and dropped."""
        watch = self._watches.get(channel)
        if watch is None:
            return
        now_ms = self._clock.wall_ms()
        try:
            message = parse_message(payload, now_ms)
        except MessageRefused as refusal:
            self._observer.record(BusMessageDropped(refusal.reason))
            if refusal.reason == SEQ_AHEAD:
                # Forged, or Redis's clock is far ahead of ours: what is stored tells which.
                self._check(watch)
            return
        if type(message) is UpdateMessage and watch.is_addressee(message.frame):
            self._push(watch, message, now_ms)
        elif type(message) is StatusMessage and message.frame.startswith(watch.status_opening):
            self._statuses.send(watch.phones, watch.data_type, message.state, message.reason, message.frame)
        else:
            self._observer.record(BusMessageDropped(MISADDRESSED))

    def _push(self, watch: Watch, message: UpdateMessage, now_ms: int) -> None:
        """The path that every push takes; everything else here may cost ten times as much."""
        seq, committed_ms, body = message
        data_type = watch.data_type
        frame = text_frame(body)
        sent = conflated = 0
        redis_is_behind = False
        for phone in watch.phones:
            delivered = phone.delivered[data_type]
            if delivered < seq:
                phone.delivered[data_type] = seq
                conflated += phone.connection.outbox.send_update(data_type, frame)
                sent += 1
            elif delivered > seq:
                redis_is_behind = True
        if sent:
            written_ms = self._clock.wall_ms()
            latency_ms, writing_ms = written_ms - committed_ms, written_ms - now_ms
            self.totals.count(data_type, watch.user_id, sent, len(frame), latency_ms, writing_ms)
        if conflated:
            self._observer.record(UpdatesConflated(data_type, conflated))
        if redis_is_behind:
            self._repair(watch)

    def reread(self) -> None:
        """After the bus was lost: bring every local phone up to what is stored, and the schedule up to us."""
        if not self._try_reread():
            # The bus is up but commands are not: what was lost meanwhile must still be caught up with.
            self._reread_again.ask()

    def _try_reread(self) -> bool:
        watches = list(self._watches.values())
        for start in range(0, len(watches), REREAD_BATCH):
            batch = watches[start : start + REREAD_BATCH]
            try:
                stored = self._states.read([(watch.user_id, watch.data_type) for watch in batch])
            except StoreUnavailable:
                return False
            for watch, state in zip(batch, stored, strict=True):
                if any(phone.delivered[watch.data_type] > state.seq for phone in watch.phones):
                    self._repair(watch)
                else:
                    self._send_state(watch.phones, watch.data_type, state, "reread")
        self.scheduling.ensure()
        return True

    def _join(self, phone: Phone, watch: Watch, data_type: DataType) -> None:
        if data_type in phone.subscribed:
            return
        phone.subscribed.add(data_type)
        phone.delivered[data_type] = 0
        phone.told.pop(data_type, None)
        watch.phones.add(phone)
        self._observer.record(SubscriptionChanged(data_type, +1))

    def _release(self, channel: bytes, watch: Watch) -> None:
        if not watch.phones and not watch.joining and self._watches.pop(channel, None) is not None:
            self.listener.unsubscribe([channel])

    def _send_state(self, phones: Iterable[Phone], data_type: DataType, state: StoredState, kind: str) -> None:
        if state.frame is not None:
            self._send_update(phones, data_type, state.seq, state.frame, kind)
        if state.status_frame is not None:
            self._statuses.send(phones, data_type, state.status, state.reason, state.status_frame)

    def _send_update(self, phones: Iterable[Phone], data_type: DataType, seq: int, message: bytes, kind: str) -> None:
        frame = text_frame(message)
        sent = conflated = user_id = 0
        for phone in phones:
            if phone.delivered[data_type] < seq:
                phone.delivered[data_type] = seq
                conflated += phone.connection.outbox.send_update(data_type, frame)
                sent += 1
                user_id = phone.user_id
        if sent:
            self._observer.record(UpdateEmitted(data_type, kind, user_id, sent, len(frame)))
        if conflated:
            self._observer.record(UpdatesConflated(data_type, conflated))

    def _check(self, watch: Watch) -> None:
        """Read what is stored, at most once at a time, and send it if it is newer."""
        if not watch.repairing:
            watch.repairing = True
            gevent.spawn(self._send_checked, watch)

    def _send_checked(self, watch: Watch) -> None:
        try:
            [state] = self._states.read([(watch.user_id, watch.data_type)])
            self._send_state(watch.phones, watch.data_type, state, "reread")
        except StoreUnavailable:
            logger.debug("user %d could not be read; the next message tries again", watch.user_id)
        finally:
            watch.repairing = False

    def _repair(self, watch: Watch) -> None:
        """Redis came back empty or older: phones are ahead of it and would drop all that follows."""
        if not watch.repairing:
            watch.repairing = True
            gevent.spawn(self._raise_floor, watch)

    def _raise_floor(self, watch: Watch) -> None:
        try:
            delivered = max((phone.delivered[watch.data_type] for phone in watch.phones), default=0)
            if self._states.raise_floor(watch.user_id, watch.data_type, delivered):
                self.scheduling.wake(watch.user_id)
        except StoreUnavailable:
            logger.debug("the floor of user %d could not be raised; the next message tries again", watch.user_id)
        finally:
            watch.repairing = False


def _channel(user_id: int, data_type: DataType) -> bytes:
    return keys.update_channel(user_id, data_type).encode()
