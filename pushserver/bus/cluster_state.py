"""What the listeners of a cluster's nodes report, as one state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pushserver.bus.topology import Node
from pushserver.clock import Clock
from pushserver.observers import BusStateChanged, Observer, Record


class SharedState:
    """Tells the observer of one state for all nodes: lost with the first that is, connected when all are again."""

    def __init__(self, observer: Observer, clock: Clock, on_lost: Callable[[], None]) -> None:
        self._observer = observer
        self._clock = clock
        self._on_lost = on_lost
        self._lost: set[Node] = set()
        self._whole = False
        self._lost_at_s: float | None = None

    def observer_of(self, node: Node) -> Observer:
        """The observer of a node's new listener; until it reports, the node counts as lost."""
        self._lost.add(node)
        return _NodeObserver(partial(self._changed, node), self._observer)

    def forget(self, nodes: Iterable[Node]) -> None:
        """These are not listened to any more."""
        self._lost.difference_update(nodes)
        self._tell_if_whole()

    def _changed(self, node: Node, state: str) -> None:
        if state == "connected":
            self._lost.discard(node)
            self._tell_if_whole()
            return
        self._lost.add(node)
        if self._lost_at_s is None:
            self._lost_at_s = self._clock.monotonic_s()
            self._whole = False
            self._observer.record(BusStateChanged(state))
        self._on_lost()

    def _tell_if_whole(self) -> None:
        if not self._lost and not self._whole:
            outage_s = 0.0 if self._lost_at_s is None else self._clock.monotonic_s() - self._lost_at_s
            self._whole, self._lost_at_s = True, None
            self._observer.record(BusStateChanged("connected", outage_s))


class _NodeObserver(Observer):
    def __init__(self, on_state: Callable[[str], None], observer: Observer) -> None:
        self._on_state = on_state
        self._observer = observer

    def record(self, record: Record) -> None:
        if isinstance(record, BusStateChanged):
            self._on_state(record.state)
        else:
            self._observer.record(record)
