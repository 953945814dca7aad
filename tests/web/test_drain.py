"""How a leaving worker closes its transports."""

from __future__ import annotations

from pushserver.clock import ManualClock
from pushserver.web.drain import CLOSED_PER_S_WHEN_ALONE, Drain


class Transport:
    def __init__(self, doors: Doors, name: str) -> None:
        self.doors, self.name = doors, name

    def close(self, *, reason: str) -> None:
        assert reason == "server restart"
        del self.doors.connections[self.name]
        self.doors.closed.append((self.name, self.doors.clock.monotonic_s()))


class Doors:
    def __init__(self, crowd: int, clock: ManualClock) -> None:
        self.clock = clock
        self.accepting = True
        self.connections = {str(number): Transport(self, str(number)) for number in range(crowd)}
        self.closed: list[tuple[str, float]] = []


def drained(crowd: int, spread_s: float, others_take_over: bool = True, each_step=None) -> Doors:
    clock = ManualClock(0)
    doors = Doors(crowd, clock)
    started_s = clock.monotonic_s()

    def sleep(seconds: float) -> None:
        clock.advance(seconds)
        if each_step:
            each_step(doors)

    Drain(doors, spread_s, clock, sleep).run(lambda: others_take_over, lambda: bool(doors.connections))
    doors.closed = [(name, at_s - started_s) for name, at_s in doors.closed]
    return doors


def test_P7_no_more_than_a_tenth_of_the_crowd_is_closed_in_any_second_and_the_last_in_time():
    closed_at_s = [at_s for _, at_s in drained(crowd=1000, spread_s=10).closed]
    assert len(closed_at_s) == 1000
    for start_s in closed_at_s[::50]:
        assert sum(start_s <= at_s < start_s + 1 for at_s in closed_at_s) <= 105
    assert 9.9 < closed_at_s[-1] <= 10.05


def test_the_oldest_transport_is_closed_first():
    assert [name for name, _ in drained(crowd=30, spread_s=1).closed] == [str(number) for number in range(30)]


def test_who_comes_while_others_take_over_is_let_in_and_closed_with_the_others():
    let_in = []

    def each_step(doors):
        let_in.append(doors.accepting)
        if len(let_in) == 3:
            doors.connections["late"] = Transport(doors, "late")

    doors = drained(crowd=10, spread_s=2, each_step=each_step)
    assert all(let_in)
    assert doors.closed[-1][0] == "late" and not doors.connections
    assert not doors.accepting


def test_nobody_is_let_in_when_no_worker_takes_over():
    let_in = []
    drained(crowd=10, spread_s=2, others_take_over=False, each_step=lambda doors: let_in.append(doors.accepting))
    assert let_in and not any(let_in)


def test_alone_a_small_crowd_is_closed_fast_and_a_large_one_in_the_time_given():
    crowd = CLOSED_PER_S_WHEN_ALONE // 2
    assert 0.4 < drained(crowd, spread_s=10, others_take_over=False).closed[-1][1] < 0.6
    assert drained(CLOSED_PER_S_WHEN_ALONE * 50, spread_s=2, others_take_over=False).closed[-1][1] < 2.1


def test_an_empty_worker_leaves_at_once_and_takes_nobody_more():
    steps = []
    assert not drained(0, spread_s=10, each_step=lambda _: steps.append(1)).accepting
    assert not steps


def test_without_a_time_to_spread_over_all_are_closed_at_once():
    assert {at_s for _, at_s in drained(crowd=50, spread_s=0).closed} == {0}


def test_alone_a_request_under_way_is_not_waited_for_here():
    clock = ManualClock()
    doors = Doors(0, clock)
    Drain(doors, 10, clock, clock.sleep).run(lambda: False, lambda: True)
    assert clock.monotonic_s() == ManualClock().monotonic_s()
    assert not doors.accepting
