"""What phones are sent, and when: the newest state once, never an older one, and again after whatever was lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import gevent
import orjson
import pytest

from pushserver.bus.schedule import Look
from pushserver.bus.states import NOTHING_STORED, StoredState
from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.model import DataType, Freshness
from pushserver.observers import BusMessageDropped, RecordingObserver
from pushserver.web import retrying
from pushserver.web.deliveries import Deliveries
from pushserver.web.phones import Phone
from pushserver.web.websocket import text_frame

PNL, ORDERS = DataType.PNL, DataType.ORDERS
INTERVALS_S = dict.fromkeys(DataType, 10.0)
CHANNEL = b"push:{4}:pnl"
UPDATE = b'42["pnl_update",{"user_id":4,"seq":1}]'


class Outbox:
    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.discarded: list[DataType] = []

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)

    def send_update(self, data_type: DataType, frame: bytes) -> bool:
        self.frames.append(frame)
        return False

    def discard_update(self, data_type: DataType) -> None:
        self.discarded.append(data_type)


class States:
    """``rows`` are what is stored; ``down`` makes every call fail; ``while_reading`` runs inside a read."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, DataType], StoredState] = {}
        self.down = False
        self.reads = 0
        self.floors: list[tuple[int, DataType, int]] = []
        self.while_reading: Callable[[], None] = lambda: None

    def read(self, wanted: Sequence[tuple[int, DataType]]) -> list[StoredState]:
        self.reads += 1
        if self.down:
            raise StoreUnavailable("down")
        rows = [self.rows.get(key, NOTHING_STORED) for key in wanted]
        self.while_reading()
        return rows

    def raise_floor(self, user_id: int, data_type: DataType, delivered_seq: int) -> bool:
        if self.down:
            raise StoreUnavailable("down")
        self.floors.append((user_id, data_type, delivered_seq))
        return self.rows.get((user_id, data_type), NOTHING_STORED).seq < delivered_seq


class Schedule:
    def __init__(self) -> None:
        self.woken: list[int] = []
        self.ensured: list[list[int]] = []
        self.was_emptied = self.down = False
        self.is_served = True

    def wake(self, user_ids: Sequence[int], *, head_start_s: float) -> None:
        self._answer()
        self.woken += user_ids

    def ensure(self, user_ids: Sequence[int]) -> int:
        self._answer()
        self.ensured.append(list(user_ids))
        return 0

    def look(self) -> Look:
        self._answer()
        return Look(self.was_emptied, self.is_served)

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("down")


class Ears:
    hears = True

    def __init__(self) -> None:
        self.channels: set[bytes] = set()
        self.while_subscribing: Callable[[], None] = lambda: None

    def subscribe(self, channels: Mapping[bytes, DataType], timeout_s: float) -> bool:
        self.channels |= set(channels)
        self.while_subscribing()
        return True

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        self.channels -= set(channels)


class World:
    def __init__(self) -> None:
        self.states, self.schedule, self.ears = States(), Schedule(), Ears()
        self.clock, self.heard = ManualClock(wall_ms=1_000_000), RecordingObserver()
        self.deliveries = Deliveries(  # type: ignore[arg-type]
            self.states, self.schedule, lambda users: {}, INTERVALS_S, self.clock, self.heard
        )
        self.deliveries.listener = self.ears  # type: ignore[assignment]

    def phone(self, user_id: int = 4, *types: DataType) -> Any:
        sent: list[bytes] = []
        outbox = Outbox()
        connection: Any = SimpleNamespace(outbox=outbox, closed=False, send_message=sent.append, look_again_s=0.0)
        claims: Any = SimpleNamespace(user_id=user_id)
        phone: Any = Phone(f"sid-{id(outbox)}", connection, claims, 0.0, None)  # type: ignore[arg-type]
        if types:
            self.deliveries.subscribe(phone, types)
        return phone

    def publish(self, seq: int, body: bytes = UPDATE, channel: bytes = CHANNEL) -> None:
        self.deliveries.on_message(channel, b"u %d %d\n%s" % (seq, self.clock.wall_ms(), body))

    def store(self, seq: int, body: bytes = b'42["stored"]', data_type: DataType = PNL, **more: Any) -> None:
        fields: dict[str, Any] = {"confirmed_ms": 1, "status": Freshness.LIVE, "reason": "", "status_frame": None}
        self.states.rows[4, data_type] = StoredState(seq=seq, as_of_ms=1, frame=body, **fields | more)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PAUSES_S", (0.001,))


def frames(phone: Phone) -> list[bytes]:
    outbox: Any = phone.connection.outbox
    return list(outbox.frames)


def framed(*bodies: bytes) -> list[bytes]:
    return [text_frame(body) for body in bodies]


def settle(condition: Callable[[], object]) -> None:
    with gevent.Timeout(5):
        while not condition():
            gevent.sleep(0.001)


def test_a_push_goes_once_to_each_phone_of_its_user_and_type_only(world: World) -> None:
    first, second, orders_only, stranger = (
        world.phone(4, PNL), world.phone(4, PNL), world.phone(4, ORDERS), world.phone(5, PNL)
    )  # fmt: skip
    world.publish(7)
    world.publish(7)
    assert [frames(phone) for phone in (first, second)] == [framed(UPDATE)] * 2
    assert frames(orders_only) == frames(stranger) == []


def test_nothing_follows_an_unsubscription_and_the_channel_is_left_with_its_last_phone(world: World) -> None:
    first, second = world.phone(4, PNL), world.phone(4, PNL)
    world.deliveries.unsubscribe(first, [PNL, ORDERS])
    world.publish(7)
    assert frames(first) == [] and len(frames(second)) == 1
    assert first.connection.outbox.discarded == [PNL]
    assert world.ears.channels == {CHANNEL}
    world.deliveries.unsubscribe(second, [PNL])
    assert world.ears.channels == set()
    world.publish(8)
    assert len(frames(second)) == 1


def test_a_phone_that_goes_while_its_channel_is_awaited_leaves_nothing_behind(world: World) -> None:
    phone = world.phone(4)

    def go() -> None:
        phone.connection.closed = True

    world.ears.while_subscribing = go
    world.deliveries.subscribe(phone, [PNL])
    assert phone.subscribed == set()
    assert world.ears.channels == set()
    assert world.schedule.woken == []


def test_subscribing_wakes_the_schedule_and_repeating_it_does_not(world: World) -> None:
    phone = world.phone(4, PNL)
    assert world.deliveries.subscribe(phone, [PNL]) == []
    assert world.schedule.woken == [4]


def test_the_stored_state_is_sent_unless_something_newer_came_while_it_was_read(world: World) -> None:
    phone = world.phone(4, PNL)
    world.store(5)
    world.deliveries.send_stored(phone, [PNL])
    assert frames(phone) == framed(b'42["stored"]')
    world.store(6, b'42["older"]')
    world.states.while_reading = lambda: world.publish(9)
    world.deliveries.send_stored(phone, [PNL])
    assert frames(phone) == framed(b'42["stored"]', UPDATE)


def test_a_type_left_while_its_state_was_read_is_not_sent(world: World) -> None:
    phone = world.phone(4, PNL)
    world.store(5)
    world.states.while_reading = lambda: world.deliveries.unsubscribe(phone, [PNL])
    world.deliveries.send_stored(phone, [PNL])
    assert frames(phone) == []


@pytest.mark.parametrize(("since", "sent"), [(4, 1), (5, 0), (99, 1)])
def test_a_resync_sends_what_is_not_what_the_phone_has(world: World, since: int, sent: int) -> None:
    phone = world.phone(4, PNL)
    world.store(5)
    world.deliveries.send_stored(phone, [PNL])
    world.deliveries.send_stored(phone, [PNL], {PNL: since}, again=True)
    assert len(frames(phone)) == 1 + sent


def test_states_that_cannot_be_read_are_owed_and_paid_when_redis_answers(world: World, impatient: None) -> None:
    phones = [world.phone(4, PNL) for _ in range(20)]
    world.store(5)
    world.states.down = True
    for phone in phones:
        world.deliveries.send_stored(phone, [PNL])
    reads = world.states.reads
    settle(lambda: world.states.reads >= reads + 5)
    gone = phones.pop()
    gone.connection.closed = True
    world.states.down = False
    settle(lambda: all(frames(phone) for phone in phones))
    assert frames(gone) == []
    assert all(len(frames(phone)) == 1 for phone in phones)
    # One attempt at a time for all of them, or a Redis that is just coming back would be trampled down.
    assert world.states.reads < reads + 20 + 200


def test_a_resync_that_cannot_be_read_is_owed_with_what_the_phone_has(world: World, impatient: None) -> None:
    current, behind = world.phone(4, PNL), world.phone(4, PNL)
    world.store(5)
    for phone in (current, behind):
        world.deliveries.send_stored(phone, [PNL])
    world.states.down = True
    world.deliveries.send_stored(current, [PNL], {PNL: 5}, again=True)
    world.deliveries.send_stored(behind, [PNL], {PNL: 3}, again=True)
    world.states.down = False
    settle(lambda: len(frames(behind)) == 2)
    gevent.sleep(0.01)
    assert len(frames(current)) == 1


def test_R4_after_the_bus_was_lost_phones_get_what_is_newer_and_the_schedule_its_users(world: World) -> None:
    behind, current = world.phone(4, PNL), world.phone(4, PNL)
    world.publish(5)
    behind.delivered[PNL] = 3
    world.store(5)
    world.deliveries.reread()
    assert frames(behind) == framed(UPDATE, b'42["stored"]')
    assert frames(current) == framed(UPDATE)
    assert world.schedule.ensured == [[4]]


def test_a_reread_that_redis_does_not_answer_is_repeated_until_it_does(world: World, impatient: None) -> None:
    phone = world.phone(4, PNL)
    world.store(5)
    world.states.down = True
    world.deliveries.reread()
    reads = world.states.reads
    settle(lambda: world.states.reads > reads + 2)
    assert world.schedule.ensured == []
    world.states.down = False
    settle(lambda: frames(phone))
    settle(lambda: world.schedule.ensured == [[4]])


def test_G07_a_reread_of_an_older_redis_raises_its_floor_and_sends_nothing(world: World) -> None:
    phone = world.phone(4, PNL)
    world.publish(50)
    world.store(8)
    world.deliveries.reread()
    settle(lambda: world.states.floors)
    assert world.states.floors == [(4, PNL, 50)]
    settle(lambda: world.schedule.woken == [4, 4])
    assert len(frames(phone)) == 1


def test_G07_a_message_older_than_what_was_delivered_raises_the_floor_once(world: World) -> None:
    phone = world.phone(4, PNL)
    world.publish(50)
    world.publish(7)
    world.publish(8)
    settle(lambda: world.states.floors)
    gevent.sleep(0.01)
    assert world.states.floors == [(4, PNL, 50)]
    assert len(frames(phone)) == 1
    world.publish(51)
    assert len(frames(phone)) == 2


def test_a_message_overtaken_by_the_snapshot_costs_no_fetch(world: World) -> None:
    phone = world.phone(4, PNL)
    world.store(50)
    world.deliveries.send_stored(phone, [PNL])
    world.publish(49)
    settle(lambda: world.states.floors)
    gevent.sleep(0.01)
    assert world.schedule.woken == [4]


def test_G02_a_seq_far_ahead_is_dropped_and_what_is_stored_is_asked(world: World) -> None:
    phone = world.phone(4, PNL)
    world.store(5)
    world.publish(world.clock.wall_ms() + 60_001)
    settle(lambda: frames(phone))
    assert frames(phone) == framed(b'42["stored"]')
    assert BusMessageDropped("seq_ahead") in world.heard.records
    world.publish(world.clock.wall_ms() + 60_000)
    assert len(frames(phone)) == 2


@pytest.mark.parametrize("payload", [b"7", b"[]", b"", b"u 1\n42[", b"u x y\n42[", b"u 1 2\n41", b"s odd x\n42["])
def test_G02_garbage_on_a_users_channel_reaches_nobody(world: World, payload: bytes) -> None:
    phone = world.phone(4, PNL)
    world.deliveries.on_message(CHANNEL, payload)
    assert frames(phone) == []
    assert [type(record) for record in world.heard.records].count(BusMessageDropped) == 1


@pytest.mark.parametrize(
    "frame",
    [
        b'42["balance_update",{"type":"balance_update","user_id":4,"seq":7,"as_of":7}]',
        b'42["pnl_update",{"type":"pnl_update","user_id":44,"seq":7,"as_of":7}]',
        b'42["pnl_update",{"data":{"user_id":4,"x":1},"user_id":5,"seq":1795389361110,"as_of":1795389361110}]',
    ],
)
def test_R12_an_update_of_another_user_or_type_reaches_nobody(world: World, frame: bytes) -> None:
    phone = world.phone(4, PNL)
    world.publish(7, frame)
    assert frames(phone) == []
    assert BusMessageDropped("misaddressed") in world.heard.records


def test_a_status_is_told_once_and_live_only_to_who_heard_otherwise(world: World) -> None:
    phone = world.phone(4, PNL)
    live = b's live \n42["status_update",{"type":"pnl",1}]'
    delayed = b's delayed exchange_timeout\n42["status_update",{"type":"pnl",2}]'
    for payload in (live, delayed, delayed, live, live):
        world.deliveries.on_message(CHANNEL, payload)
    assert frames(phone) == framed(delayed.partition(b"\n")[2], live.partition(b"\n")[2])


def test_a_stored_trouble_is_told_with_the_snapshot_and_stopped_also_as_an_error(world: World) -> None:
    phone = world.phone(4, PNL)
    world.store(5, status=Freshness.STOPPED, reason="key_invalid", status_frame=b'42["status_update",3]')
    errors: list[str] = []
    phone.connection.send_message = lambda message: errors.append(message.decode())
    world.deliveries.send_stored(phone, [PNL])
    assert frames(phone) == framed(b'42["stored"]', b'42["status_update",3]')
    assert len(errors) == 1 and '"key_invalid"' in errors[0]


def test_an_emptied_schedule_is_noticed_and_everything_read_again(world: World) -> None:
    phone = world.phone(4, PNL)
    world.store(5)
    world.schedule.was_emptied = True
    world.deliveries.scheduling.look_after()
    assert frames(phone) == framed(b'42["stored"]')
    assert world.schedule.ensured == [[4]]


def test_the_schedule_is_ensured_every_five_seconds_and_survives_a_lost_redis(world: World) -> None:
    world.phone(4, PNL), world.phone(4, ORDERS), world.phone(3, PNL)
    scheduling = world.deliveries.scheduling
    scheduling.look_after()
    assert world.schedule.ensured == []
    world.clock.advance(5)
    world.schedule.down = True
    scheduling.look_after()
    world.schedule.down = False
    scheduling.look_after()
    assert world.schedule.ensured == [[3, 4]]


def statuses(phone: Any) -> list[Any]:
    told = [orjson.loads(frame[frame.index(b"42") + 2 :]) for frame in frames(phone) if b"status_update" in frame]
    return [(payload["state"], payload["reason"]) for _, payload in told]


def test_R8_phones_are_told_that_redis_takes_nothing_and_that_it_does_again(world: World) -> None:
    phone, scheduling = world.phone(4, PNL), world.deliveries.scheduling
    world.schedule.down = True
    scheduling.look_after()
    assert statuses(phone) == []
    for _ in range(3):
        world.clock.advance(1)
        scheduling.look_after()
    newcomer = world.phone(4, PNL)
    scheduling.look_after()
    assert statuses(phone) == statuses(newcomer) == [("delayed", "store_unavailable")]
    world.schedule.down = False
    scheduling.look_after()
    scheduling.look_after()
    assert statuses(phone) == statuses(newcomer) == [("delayed", "store_unavailable"), ("live", "")]


def test_an_outage_hides_no_other_trouble_and_a_short_one_is_not_worth_a_word(world: World) -> None:
    troubled, happy = world.phone(4, PNL), world.phone(5, PNL)
    world.deliveries.on_message(
        CHANNEL, b's delayed exchange_timeout\n42["status_update",{"type":"pnl","state":"x","reason":"y"}]'
    )
    world.schedule.down = True
    world.deliveries.scheduling.look_after()
    world.clock.advance(1)
    world.deliveries.scheduling.look_after()
    world.schedule.down = False
    world.deliveries.scheduling.look_after()
    assert statuses(happy) == []
    world.schedule.down = True
    for _ in range(5):
        world.clock.advance(1)
        world.deliveries.scheduling.look_after()
    world.schedule.down = False
    world.deliveries.scheduling.look_after()
    assert statuses(troubled) == [("x", "y")]
    assert statuses(happy) == [("delayed", "store_unavailable"), ("live", "")]


def test_G7_phones_are_told_that_no_push_worker_serves_anybody_and_when_their_own_figures_are_fresh_again(
    world: World,
) -> None:
    phone, other, scheduling = world.phone(4, PNL), world.phone(5, PNL), world.deliveries.scheduling
    world.schedule.is_served = True
    scheduling.look_after()
    world.schedule.is_served = False
    for _ in range(10):
        world.clock.advance(1)
        scheduling.look_after()
    assert statuses(phone) == statuses(other) == []
    world.clock.advance(1)
    scheduling.look_after()
    scheduling.look_after()
    assert statuses(phone) == statuses(other) == [("delayed", "server_busy")]
    world.schedule.is_served = True
    scheduling.look_after()
    world.store(7, confirmed_ms=world.clock.wall_ms() + 1)
    scheduling.look_after()
    assert statuses(phone) == [("delayed", "server_busy"), ("live", "")]
    assert statuses(other) == [("delayed", "server_busy")], "nothing was confirmed of this user yet"


def test_G6_a_returning_phone_is_not_sent_again_what_came_while_its_state_was_read(world: World) -> None:
    phone = world.phone(4, PNL)
    world.store(7)
    world.states.while_reading = lambda: world.publish(7)
    world.deliveries.send_stored(phone, [PNL], {PNL: 3})
    assert frames(phone) == framed(UPDATE)


@pytest.mark.parametrize(
    "payload",
    [
        b's delayed x\n42["pnl_update",{"user_id":5,"seq":1}]',
        b's delayed x\n42["status_update",{"type":"orders","state":"delayed"}]',
        b'u 7 1\n42["pnl_update",{"user_id":5,' + 100 * b" " + b'"seq":1}]',
        b'u 7 1\n42["pnl_update",{"user_id":44,"seq":1}]',
        b'u 7 1\n42["orders_update",{"user_id":4,"seq":1}]',
    ],
)
def test_G02_R12_what_is_meant_for_others_reaches_nobody(world: World, payload: bytes) -> None:
    phone = world.phone(4, PNL)
    world.deliveries.on_message(CHANNEL, payload)
    assert frames(phone) == []
    assert BusMessageDropped("misaddressed") in world.heard.records
