"""Makes the pictures of docs/dashboards.md: breaks a real deployment twice while a real Prometheus looks on.

    python -m grafana.incident docs/images

Takes four minutes. First all is well; then one web worker turns deaf, though its connections stand; later the
exchange bans the address. The pictures are taken while both last. Needs what the system tests need.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil

from grafana.build import FOLDER
from grafana.render import View, render
from pushserver.exchange_sim.client import SimControl
from tests.system.harness import Process, Stack, wait_until
from tests.system.phones import TYPES, PythonPhone
from tests.system.prometheus_server import PrometheusServer
from tests.system.proxy import Proxy

SCALED = Path(__file__).resolve().parents[1] / "tests/system/blackbox/scaled"
USERS, PHONES = 12, 24
#: Seconds: how long all is well; one worker is deaf and nothing else is wrong; both last.
WELL_S, DEAF_S, BANNED_S = 70, 75, 35
SCRAPE_S = 1.0
#: Rates over a shorter time would draw single pushes.
RATE_INTERVAL_S = 14.0


@contextmanager
def deployment(folder: Path) -> Iterator[tuple[Stack, Proxy, PrometheusServer]]:
    """Half of the users are followed by streams, the others polled; Redis is reached through the proxy."""
    stack = Stack(
        folder, users=USERS, streams=True, ticker=True, frozen=False,
        intervals="balance=10,positions=5,pnl=5,orders=5",
        environ={
            "PYTHONPATH": str(SCALED), "PUSHSERVER_BAN_S": str(2 * BANNED_S),
            "MAX_STREAMS_PER_WORKER": str(USERS // 4),
        },
    )  # fmt: skip
    with ExitStack() as undone:
        proxy = undone.enter_context(Proxy(stack.valkey.port))
        stack.environ["REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
        undone.callback(stack.stop)
        stack.start()
        targets = {
            "pushserver-web": [f"127.0.0.1:{stack.web_metrics_port}"],
            "pushserver-worker": [metrics_address(worker) for worker in stack.push_workers],
        }
        prometheus = PrometheusServer(folder, targets, SCRAPE_S)
        undone.callback(prometheus.stop)
        prometheus.start()
        for number in range(PHONES):
            phone = undone.enter_context(closing(PythonPhone(stack.url, stack.token(number % USERS + 1))))
            phone.call("subscribe_trading", {"types": list(TYPES)})
        yield stack, proxy, prometheus


def metrics_address(worker: Process) -> str:
    told = wait_until(lambda: re.search(r"metrics on port (\d+)", worker.log()), 20, "the worker's metrics")
    return f"127.0.0.1:{told[1]}"


def turn_deaf(stack: Stack, proxy: Proxy) -> None:
    """Swallow what Redis tells one of the web workers, on this connection and on those it opens instead."""
    child = psutil.Process(stack.web.pid).children()[0]
    ports = {connection.laddr.port for connection in child.net_connections()}
    others = {link for link in proxy.links if link.client.getpeername()[1] not in ports}
    proxy.affects = lambda link: b"SUBSCRIBE" in link.first_bytes and link not in others
    proxy.timeout()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m grafana.incident", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    pictures = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as name, deployment(Path(name)) as (stack, proxy, prometheus):
        # The first seconds are those of a start, which is not the story.
        time.sleep(RATE_INTERVAL_S)
        start_s = time.time()
        time.sleep(WELL_S)
        turn_deaf(stack, proxy)
        time.sleep(DEAF_S)
        SimControl(stack.exchange_url).ban(2 * BANNED_S)
        time.sleep(BANNED_S)
        view = View(prometheus.url, start_s, time.time(), RATE_INTERVAL_S)
        for path in render(view, [path.stem for path in sorted(FOLDER.glob("*.json"))], pictures):
            print(path, path.stat().st_size)  # noqa: T201 - its output


if __name__ == "__main__":
    main()
