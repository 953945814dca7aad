"""The listener in a Redis Cluster hears every channel where its slot is, whatever moves or dies."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: The listener lives in gevent-patched processes; pytest's own is not one, so each case runs in a child, with a cluster
#: of its own to break.
PRELUDE = """
from gevent import monkey; monkey.patch_all()
import sys, gevent, redis
from pathlib import Path
from pushserver.bus.connection import connect
from pushserver.bus.ears import open_ears
from pushserver.bus.topology import slot_of
from pushserver.clock import SystemClock
from pushserver.model import Secret
from pushserver.observers import BusStateChanged, RecordingObserver
from tests.bus.test_cluster import move_slot
from tests.system.redis_servers import Cluster, valkey_binary
import pushserver.bus.listener as module

CHANNELS = [b"push:{%d}:pnl" % user for user in range(1, 31)]

def wait(condition, seconds=10):
    with gevent.Timeout(seconds):
        while not condition():
            gevent.sleep(0.01)

def states():
    return [record.state for record in observer.records if isinstance(record, BusStateChanged)]

def published(tag):
    '''How many of the channels are heard; those whose slot is nobody's at the moment are not.'''
    heard.clear()
    for channel in CHANNELS:
        try:
            client.execute_command("SPUBLISH", channel, tag)
        except redis.RedisError:
            pass
    gevent.sleep(0.05)
    return len({channel for channel, payload in heard if payload == tag})

cluster = Cluster(Path(sys.argv[1]), valkey_binary()).start()
try:
    client = connect(Secret(cluster.url))
    observer, heard, restored = RecordingObserver(), [], []
    ears = open_ears(Secret(cluster.url), client, SystemClock(), observer,
                     lambda channel, payload: heard.append((channel, payload)), lambda: restored.append(1))
    ears.start()
    assert ears.subscribe(CHANNELS, 5)
    wait(lambda: ears.hears and restored)
    assert published(b"first") == len(CHANNELS)
"""


def run(folder: Path, body: str) -> None:
    script = PRELUDE + textwrap.indent(textwrap.dedent(body), "    ") + "\nfinally:\n    cluster.stop()\n"
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_dead_owner_is_replaced_and_everything_is_read_again(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        before = len(restored)
        cluster.owner(CHANNELS[3].decode()).kill()
        wait(lambda: not ears.hears, 9)
        wait(lambda: published(b"again") == len(CHANNELS), 15)
        wait(lambda: ears.hears and len(restored) > before, 5)
        assert states() == ["connected", "lost", "connected"], states()
        """,
    )


def test_plain_channels_are_heard_exactly_once_whichever_node_dies(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        def plain():
            heard.clear()
            told = [node for node in cluster.nodes if node.answers()]
            for node in told:
                node.client.publish("pushserver", str(node.port))
            # From node to node it takes a moment; one more is left for what must not come a second time.
            with gevent.Timeout(0.5, False):
                while len(heard) < len(told):
                    gevent.sleep(0.01)
            gevent.sleep(0.1)
            return sorted(int(payload) for channel, payload in heard if channel == b"pushserver")

        def all_ports():
            return sorted(node.port for node in cluster.nodes if node.answers())

        # A young cluster whose nodes still connect to each other may lose one; none may ever come twice.
        wait(lambda: plain() == all_ports(), 5)
        next(node for node in cluster.nodes if node.port == ears._plain_node.port).kill()
        wait(lambda: plain() == all_ports(), 4)
        wait(lambda: ears.hears, 15)
        wait(lambda: plain() == all_ports(), 5)
        """,
    )


def test_slots_that_move_are_followed_and_leave_no_listener_behind(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        before = len(restored)
        old = cluster.owner(CHANNELS[6].decode())
        new = move_slot(cluster, CHANNELS[6].decode())
        # Sooner than the next look at who owns what: the node itself says that it gave the slot away.
        wait(lambda: published(b"moved") == len(CHANNELS), 2)
        wait(lambda: len(restored) > before, 5)
        assert states() == ["connected"], states()
        assert ears.subscribe([CHANNELS[6]], 1)
        ears.unsubscribe(CHANNELS)
        wait(lambda: all(node.client.execute_command("PUBSUB", "SHARDNUMSUB", channel)[1] == 0
                         for node in (old, new) for channel in CHANNELS), 5)
        assert ears.hears
        """,
    )


def test_a_planned_failover_moves_the_listeners_to_the_new_owner(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        promoted = cluster.replicas[0]
        promoted.client.execute_command("CLUSTER", "FAILOVER")
        wait(lambda: promoted.client.info("replication")["role"] == "master", 10)
        mine = [channel for channel in CHANNELS if cluster.owner(channel.decode()) is promoted]
        assert mine
        wait(lambda: all(promoted.client.execute_command("PUBSUB", "SHARDNUMSUB", channel)[1] == 1
                         for channel in mine), 8)
        wait(lambda: published(b"planned") == len(CHANNELS) and ears.hears, 5)
        """,
    )


def test_a_node_that_is_silent_is_deaf_to_us_and_connected_to_anew(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        module.CANARY_INTERVAL_S, module.DEAF_AFTER_S = 0.1, 0.5
        link = next(iter(ears._links.values()))
        link._sing_once = lambda: None
        wait(lambda: not ears.hears, 5)
        wait(lambda: "deaf" in states(), 5)
        del link._sing_once
        wait(lambda: ears.hears and states()[-1] == "connected", 5)
        assert published(b"again") == len(CHANNELS)
        """,
    )


def test_a_subscription_made_before_the_cluster_is_known_holds_when_it_is(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        late = open_ears(Secret(cluster.url), client, SystemClock(), observer,
                         lambda channel, payload: heard.append((channel, payload)), lambda: restored.append(2))
        assert not late.subscribe([b"push:{99}:pnl"], 0.1)
        assert not late.hears
        assert late.canary_age_s is None
        late.start()
        wait(lambda: late.hears and 2 in restored)
        client.execute_command("SPUBLISH", "push:{99}:pnl", "x")
        wait(lambda: (b"push:{99}:pnl", b"x") in heard)
        late.stop()
        """,
    )
