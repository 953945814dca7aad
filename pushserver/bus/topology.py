"""Which node of a Redis Cluster owns which slot, as the nodes themselves say."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from pushserver.clock import Clock

logger = logging.getLogger(__name__)

#: Everybody who notices the same loss asks at once: one answer within so long serves them all.
FRESH_S = 0.2


class Node(NamedTuple):
    host: str
    port: int


def slot_of(name: str | bytes) -> int:
    """The slot of a key or sharded channel."""
    return int(key_slot(name.encode() if isinstance(name, str) else name))


class Topology:
    """The owners of the slots, and one command client per node.

    ``new_client(node)`` makes such a client; it connects to nothing by itself. Knows nothing before the first
    ``refresh``.
    """

    def __init__(
        self, seeds: Sequence[Node], new_client: Callable[[Node], Any], clock: Clock, rng: random.Random
    ) -> None:
        self._seeds = list(seeds)
        self._new_client = new_client
        self._clock = clock
        self._rng = rng
        self._clients: dict[Node, Any] = {}
        self._owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._refreshing = threading.Lock()
        self._refreshed_at_s: float | None = None
        #: Grows whenever an owner changes.
        self.version = 0

    @property
    def known(self) -> bool:
        return self._refreshed_at_s is not None

    def owner(self, slot: int) -> Node | None:
        """None while no node is known to own the slot."""
        return self._owners[slot]

    def owners(self) -> frozenset[Node]:
        """Every node that owns a slot."""
        return frozenset(node for node in self._owners if node is not None)

    def client(self, node: Node) -> Any:
        """The command client of one node."""
        client = self._clients.get(node)
        if client is None:
            client = self._clients[node] = self._new_client(node)
        return client

    def moved(self, slot: int, node: Node) -> None:
        """A node answered that the slot is ``node``'s now."""
        if self._owners[slot] != node:
            self._owners[slot] = node
            self.version += 1

    def refresh(self, avoid: Node | None = None) -> None:
        """Ask one node after another, ``avoid`` last, until one says who owns what.

        Raises:
            redis.ConnectionError: none did.
        """
        asked_at_s = self._clock.monotonic_s()
        with self._refreshing:
            if self._refreshed_at_s is not None and self._refreshed_at_s > asked_at_s - FRESH_S:
                return
            for node in self._to_ask(avoid):
                try:
                    answer = self.client(node).execute_command("CLUSTER", "SLOTS")
                    owners = _owners(answer, node)
                except (RedisError, OSError, ValueError, TypeError, IndexError) as error:
                    logger.debug("a node did not say who owns what (%s)", type(error).__name__)
                    continue
                if any(owners):
                    self.version += owners != self._owners
                    self._owners = owners
                    self._refreshed_at_s = self._clock.monotonic_s()
                    self._forget_clients()
                    return
            raise RedisConnectionError("no node of the cluster says who owns what")

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _to_ask(self, avoid: Node | None) -> Iterable[Node]:
        nodes = list({*self._seeds, *self.owners()})
        # In a random order, so that one node that is behind the others does not keep us behind too.
        self._rng.shuffle(nodes)
        return sorted(nodes, key=lambda node: node == avoid)

    def _forget_clients(self) -> None:
        kept = {*self._seeds, *self.owners()}
        for node in [node for node in self._clients if node not in kept]:
            self._clients.pop(node).close()


def _owners(answer: Sequence[Any], asked: Node) -> list[Node | None]:
    """From ``CLUSTER SLOTS``: ``[[first, last, [host, port, …], replica, …], …]``."""
    owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, owner, *_ in answer:
        # A node that does not know its own address says so with an empty one: it is where we asked.
        node = Node((owner[0] or b"").decode() or asked.host, int(owner[1]))
        owners[int(first) : int(last) + 1] = [node] * (int(last) - int(first) + 1)
    return owners
