"""The ears at one node of a Redis Cluster."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pushserver.bus.keys import new_canary_channel
from pushserver.bus.listener import BATCH, Listener
from pushserver.bus.topology import slot_of
from pushserver.clock import Clock
from pushserver.observers import Observer


class NodeListener(Listener):
    """Hears the sharded channels of one node's slots, its own canary among them.

    ``on_stray(channel)`` is called when the node has put a channel out because its slot went elsewhere,
    ``on_refused(error)`` when it refuses to subscribe one (``MOVED …``), before the connection is given up.
    """

    def __init__(
        self,
        connection: Any,
        publisher: Any,
        clock: Clock,
        observer: Observer,
        on_message: Callable[[bytes, bytes], None],
        on_restored: Callable[[], None],
        on_stray: Callable[[bytes], None],
        on_refused: Callable[[str], None],
        owns: Callable[[int], bool],
    ) -> None:
        canary_channel = _canary_channel(owns)
        super().__init__(connection, publisher, clock, observer, on_message, on_restored, (), canary_channel)
        self.canary_slot = slot_of(canary_channel)
        self._on_stray = on_stray
        self._on_refused = on_refused
        self._leaving: Counter[bytes] = Counter()

    @property
    def connected(self) -> bool:
        return self._connected

    def adopt(self, channels: Sequence[bytes]) -> None:
        """Want channels that another node had until now; ``on_restored`` follows when they are confirmed."""
        self._late.update(channels)
        self._want(channels)

    def release(self, channels: Iterable[bytes]) -> None:
        """Want them no more. Nothing is sent: the node has put them out by itself, or does when it gives the slot."""
        self._forget(channels)

    def hear_plain(self, channels: Sequence[str]) -> None:
        """Hear these too from now on: at one node of the cluster, what is published at any is heard."""
        self._plain_channels = channels
        if channels and self._connected:
            self._send("SUBSCRIBE", [channel.encode() for channel in channels])

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        channels = list(channels)
        if self._connected:
            self._leaving.update(self._wanted.intersection(channels))
        super().unsubscribe(channels)

    def _open(self) -> None:
        self._leaving.clear()
        super()._open()

    def _left(self, channel: bytes) -> None:
        if self._leaving[channel] > 0:
            self._leaving[channel] -= 1
        elif channel in self._wanted or channel == self._canary.channel:
            self._confirmed.discard(channel)
            self._on_stray(channel)
        if not self._leaving[channel]:
            del self._leaving[channel]

    def _refused(self, error: str) -> None:
        self._on_refused(error)

    def _batches(self, channels: list[bytes]) -> Iterable[list[bytes]]:
        """Channels named in one command must lie in one slot; plain ones lie in none, and are few."""
        by_slot: dict[int, list[bytes]] = defaultdict(list)
        for channel in channels:
            by_slot[slot_of(channel)].append(channel)
        if self._canary.channel in channels:
            # Its confirmation means that all the others are confirmed, so its slot goes last.
            by_slot[self.canary_slot] = by_slot.pop(self.canary_slot)
        return (batch[at : at + BATCH] for batch in by_slot.values() for at in range(0, len(batch), BATCH))


def _canary_channel(owns: Callable[[int], bool]) -> bytes:
    while True:
        channel = new_canary_channel()
        if owns(slot_of(channel)):
            return channel
