"""The ears in a Redis Cluster: a sharded channel is heard only at the node that owns its slot.

So there is one listener per owner, each with all its guarantees (a canary of its own through the real path, silence
counts as deafness). What is added here: who listens where, kept right while slots move and nodes die.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import gevent
from gevent.event import Event

from pushserver.bus import keys
from pushserver.bus.cluster_client import ClusterClient
from pushserver.bus.cluster_state import SharedState
from pushserver.bus.connection import REDIS_FAILURES, connection_beside
from pushserver.bus.node_listener import NodeListener
from pushserver.bus.topology import Node, slot_of
from pushserver.clock import Clock
from pushserver.observers import Observer

logger = logging.getLogger(__name__)

#: How often the cluster is asked who owns what: while all is well, and while something is not.
LOOK_S = 3.0
LOOK_AGAIN_S = 0.5
#: Nodes that are heard again within so many seconds are caught up with together.
CATCH_UP_S = 0.1


class ClusterListener:
    """As Listener promises, over the nodes of a cluster. ``plain_channels`` are heard at one of the nodes."""

    def __init__(
        self,
        client: ClusterClient,
        clock: Clock,
        observer: Observer,
        on_message: Callable[[bytes, bytes], None],
        on_restored: Callable[[], None],
        plain_channels: Sequence[str] = (keys.EMITTER_CHANNEL, keys.SIGNALS_CHANNEL),
    ) -> None:
        self._client = client
        self._topology = client.topology
        self._clock = clock
        self._on_message = on_message
        self._on_restored = on_restored
        self._plain_channels = plain_channels
        self._plain_node: Node | None = None
        self._links: dict[Node, NodeListener] = {}
        #: Where each wanted channel is heard; None while nobody owns its slot.
        self._homes: dict[bytes, Node | None] = {}
        self._strays: set[bytes] = set()
        self._state = SharedState(observer, clock, self.look)
        self._arranged_version = -1
        self._catching_up = False
        self._look = Event()
        self._known = Event()
        self._watcher: gevent.Greenlet | None = None

    def start(self) -> None:
        """Begin connecting; returns at once."""
        self._watcher = gevent.spawn(self._watch)

    def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.kill()
        for link in self._links.values():
            link.stop()

    @property
    def hears(self) -> bool:
        """True when every node that owns a slot is heard: what is published now really arrives here."""
        return bool(self._links) and not self._strays and all(link.hears for link in self._links.values())

    @property
    def canary_age_s(self) -> float | None:
        """Seconds since the canary was last heard at the node where that is longest ago; None before the first time."""
        ages = [link.canary_age_s for link in self._links.values()]
        return None if not ages or None in ages else max(age for age in ages if age is not None)

    def subscribe(self, channels: Iterable[bytes], timeout_s: float) -> bool:
        """Want these sharded channels, and wait until the nodes have confirmed them all.

        False when that took longer: they stay wanted, and ``on_restored`` follows when they are there.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        wanted = list(channels)
        for channel in wanted:
            self._homes.setdefault(channel, None)
        self._known.wait(timeout_s)
        homes: dict[Node, list[bytes]] = defaultdict(list)
        for channel in wanted:
            home = self._settle(channel)
            if home is not None:
                homes[home].append(channel)
        confirmed = sum(len(group) for group in homes.values()) == len(wanted)
        for node, group in homes.items():
            link = self._link_of(node)
            left_s = max(0.0, deadline_s - self._clock.monotonic_s())
            confirmed = link is not None and link.subscribe(group, left_s) and confirmed
        if not confirmed:
            self.look()
        return confirmed

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        for channel in channels:
            link = self._link_of(self._homes.pop(channel, None))
            self._strays.discard(channel)
            if link is not None:
                link.unsubscribe([channel])

    def look(self) -> None:
        """Ask soon who owns what: something was lost or moved."""
        self._look.set()

    def _link_of(self, node: Node | None) -> NodeListener | None:
        return None if node is None else self._links.get(node)

    def _settle(self, channel: bytes) -> Node | None:
        """Where the channel is heard, if that is known by now."""
        home = self._homes.get(channel)
        if home is None and channel in self._homes:
            owner = self._topology.owner(slot_of(channel))
            if owner in self._links:
                home = self._homes[channel] = owner
        return home

    def _watch(self) -> None:
        while True:
            try:
                self._topology.refresh()
                self._arrange()
            except REDIS_FAILURES as error:
                logger.debug("the cluster did not say who owns what (%s)", type(error).__name__)
            except Exception:
                # Without this greenlet no move of a slot would ever be followed again.
                logger.exception("arranging the cluster's listeners met something unforeseen")
            self._look.wait(LOOK_S if self.hears else LOOK_AGAIN_S)
            self._look.clear()
            self._place_plain()

    def _arrange(self) -> None:
        """Hear every wanted channel where its slot is now."""
        version = self._topology.version
        unsettled = self._strays or None in self._homes.values()
        if version == self._arranged_version and not unsettled:
            return
        self._arrange_links()
        moves: dict[Node, list[bytes]] = defaultdict(list)
        for channel, home in self._homes.items():
            owner = self._topology.owner(slot_of(channel))
            if owner not in self._links:
                # It became one a moment ago, by MOVED; the next look gives it a link, and the channel a home.
                owner = None
            if owner != home or channel in self._strays:
                link = self._link_of(home)
                if link is not None:
                    link.release([channel])
                self._homes[channel] = owner
                if owner is not None:
                    moves[owner].append(channel)
        self._strays.clear()
        for node, channels in moves.items():
            self._links[node].adopt(channels)
        self._arranged_version = version
        self._place_plain()
        self._known.set()

    def _arrange_links(self) -> None:
        """One listener per owner. One whose canary's slot went elsewhere starts anew, with another canary."""
        owners = self._topology.owners()
        useless = {
            node
            for node, link in self._links.items()
            if node not in owners or self._topology.owner(link.canary_slot) != node
        }
        stopped = [self._links.pop(node) for node in useless]
        for channel, home in self._homes.items():
            if home in useless:
                self._homes[channel] = None
        for node in owners.difference(self._links):
            self._links[node] = self._new_link(node)
            self._links[node].start()
        self._state.forget(useless - owners)
        for link in stopped:
            link.stop()

    def _new_link(self, node: Node) -> NodeListener:
        return NodeListener(
            connection_beside(self._topology.client(node)),
            self._client,
            self._clock,
            self._state.observer_of(node),
            self._on_message,
            self._restored,
            self._stray,
            self._refused,
            partial(self._owns, node),
        )

    def _owns(self, node: Node, slot: int) -> bool:
        return self._topology.owner(slot) == node

    def _place_plain(self) -> None:
        """The plain channels are heard at one node only, or each message would come several times."""
        link = self._link_of(self._plain_node)
        if link is not None:
            if link.connected:
                return
            link.hear_plain(())
        connected = [node for node, link in self._links.items() if link.connected]
        self._plain_node = next(iter([*connected, *self._links]), None)
        link = self._link_of(self._plain_node)
        if link is not None:
            link.hear_plain(self._plain_channels)

    def _stray(self, channel: bytes) -> None:
        self._strays.add(channel)
        self.look()

    def _refused(self, error: str) -> None:
        """``MOVED slot host:port``, or that the cluster is down."""
        words = error.split()
        if words[:1] == ["MOVED"] and len(words) == 3:
            host, _, port = words[2].rpartition(":")
            if host:
                self._topology.moved(int(words[1]), Node(host, int(port)))
        self.look()

    def _restored(self) -> None:
        if not self._catching_up:
            self._catching_up = True
            gevent.spawn_later(CATCH_UP_S, self._catch_up)

    def _catch_up(self) -> None:
        self._catching_up = False
        self._on_restored()
