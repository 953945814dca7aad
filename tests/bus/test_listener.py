"""The listener notices every loss: killed connections, silence, a Redis that was away."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

#: The listener lives in gevent-patched processes; pytest's own is not one, so each case runs in a child.
PRELUDE = """
from gevent import monkey; monkey.patch_all()
import os, sys, gevent
from pushserver.bus.connection import connect, listening_connection
from pushserver.bus.listener import Listener
from pushserver.clock import SystemClock
from pushserver.model import Secret
from pushserver.observers import BusStateChanged, RecordingObserver
import pushserver.bus.listener as module

url = Secret(os.environ["TEST_REDIS_URL"])
client = connect(url)
observer, heard, restored = RecordingObserver(), [], []
listener = Listener(listening_connection(url), client, SystemClock(), observer,
                    lambda channel, payload: heard.append((channel, payload)), lambda: restored.append(1))

def wait(condition, seconds=10):
    with gevent.Timeout(seconds):
        while not condition():
            gevent.sleep(0.01)

def states():
    return [record.state for record in observer.records if isinstance(record, BusStateChanged)]
"""


def run(redis_url: str, body: str) -> None:
    script = PRELUDE + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TEST_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_confirmed_channel_delivers_and_a_left_one_does_not(redis_url):
    run(
        redis_url,
        """
        listener.start()
        wait(lambda: listener.hears)
        assert listener.subscribe([b"push:{4}:pnl"], 2)
        client.execute_command("SPUBLISH", "push:{4}:pnl", "one")
        wait(lambda: heard)
        assert heard == [(b"push:{4}:pnl", b"one")]
        listener.unsubscribe([b"push:{4}:pnl"])
        wait(lambda: client.execute_command("PUBSUB", "SHARDNUMSUB", "push:{4}:pnl")[1] == 0)
        """,
    )


def test_plain_channels_of_emitters_and_signals_are_heard(redis_url):
    run(
        redis_url,
        """
        listener.start()
        wait(lambda: listener.hears)
        client.publish("pushserver", "emit")
        client.publish("push:signals", "signal")
        wait(lambda: len(heard) == 2)
        assert heard == [(b"pushserver", b"emit"), (b"push:signals", b"signal")]
        """,
    )


def test_G05_a_killed_connection_is_seen_and_everything_is_read_again(redis_url):
    run(
        redis_url,
        """
        listener.start()
        assert listener.subscribe([b"a", b"b"], 5)
        wait(lambda: len(restored) == 1)
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        wait(lambda: len(restored) == 2, 5)
        assert states() == ["connected", "lost", "connected"], states()
        client.execute_command("SPUBLISH", "a", "x")
        wait(lambda: heard == [(b"a", b"x")])
        """,
    )


def test_G05_a_silent_connection_counts_as_deaf_and_is_replaced(redis_url):
    run(
        redis_url,
        """
        module.CANARY_INTERVAL_S, module.DEAF_AFTER_S = 0.1, 0.5
        listener.start()
        wait(lambda: listener.hears)
        listener._sing_once = lambda: None
        wait(lambda: not listener.hears, 3)
        wait(lambda: len(restored) >= 2, 5)
        assert states()[:3] == ["connected", "deaf", "connected"], states()
        """,
    )


def test_a_subscription_made_while_redis_is_away_holds_when_it_is_back(redis_url):
    run(
        redis_url,
        """
        assert not listener.subscribe([b"early"], 0.1)
        listener.start()
        wait(lambda: restored)
        client.execute_command("SPUBLISH", "early", "x")
        wait(lambda: heard == [(b"early", b"x")])
        """,
    )


def test_a_surprise_in_a_handler_does_not_deafen_the_worker(redis_url):
    run(
        redis_url,
        """
        def broken(channel, payload):
            if payload == b"bad":
                raise RuntimeError("surprise")
            heard.append((channel, payload))
        listener._on_message = broken
        listener.start()
        assert listener.subscribe([b"a"], 5)
        client.execute_command("SPUBLISH", "a", "bad")
        wait(lambda: len(restored) == 2)
        client.execute_command("SPUBLISH", "a", "good")
        wait(lambda: heard == [(b"a", b"good")])
        """,
    )


def test_20000_channels_are_subscribed_within_two_seconds(redis_url):
    run(
        redis_url,
        """
        import time
        listener.start()
        wait(lambda: listener.hears)
        start = time.monotonic()
        assert listener.subscribe([b"c%d" % number for number in range(20_000)], 10)
        assert time.monotonic() - start < 5
        """,
    )


@pytest.mark.parametrize("times", [5])
def test_leaving_and_joining_in_turn_ends_subscribed(redis_url, times):
    run(
        redis_url,
        f"""
        listener.start()
        wait(lambda: listener.hears)
        for _ in range({times}):
            assert listener.subscribe([b"a"], 2)
            listener.unsubscribe([b"a"])
        assert listener.subscribe([b"a"], 2)
        client.execute_command("SPUBLISH", "a", "x")
        wait(lambda: heard == [(b"a", b"x")])
        """,
    )


def test_a_channel_confirmed_after_its_subscriber_gave_up_is_read_again(redis_url):
    run(
        redis_url,
        """
        listener.start()
        wait(lambda: listener.hears and restored)
        send = listener._send
        held = []
        listener._send = lambda command, channels: held.append((command, channels))
        assert not listener.subscribe([b"slow"], 0.1)
        before = len(restored)
        listener._send = send
        for command, channels in held:
            send(command, channels)
        wait(lambda: len(restored) == before + 1)
        assert listener.subscribe([b"slow"], 1)
        """,
    )


def test_a_connection_on_which_subscribing_is_refused_is_retried_with_pauses(redis_url):
    run(
        redis_url,
        """
        client.execute_command("ACL", "SETUSER", "default", "resetchannels")
        try:
            before = client.info("stats")["total_connections_received"]
            listener.start()
            gevent.sleep(0.9)
            assert not listener.hears
            tried = client.info("stats")["total_connections_received"] - before
            assert tried <= 8, tried
        finally:
            client.execute_command("ACL", "SETUSER", "default", "allchannels")
        wait(lambda: listener.hears, 5)
        """,
    )


def test_only_the_plain_channels_asked_for_are_heard(redis_url):
    run(
        redis_url,
        """
        only = Listener(listening_connection(url), client, SystemClock(), observer,
                        lambda channel, payload: heard.append(channel), lambda: None, plain_channels=("push:signals",))
        only.start()
        wait(lambda: only.hears)
        client.publish("pushserver", "emit")
        client.publish("push:signals", "signal")
        wait(lambda: heard)
        assert heard == [b"push:signals"]
        """,
    )
