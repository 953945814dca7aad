"""What SREs see, proven: a real Prometheus watches a deployment under load, and things break one after the other.

Every expression of every panel and rule is executed; in each incident the right alert's expression turns true, the
others stay false, and it turns false again. How long an alert must last before anybody is called is promtool's part
(``deploy/prometheus/tests``); here it is about what the expressions see.
"""

from __future__ import annotations

import json
import math
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from pushserver.exchange_sim.client import SimControl
from pushserver.exchange_sim.credentials import demo_credentials
from tests.system.harness import Process, Stack, wait_until
from tests.system.phones import TYPES, PythonPhone
from tests.system.prometheus_server import PrometheusServer
from tests.system.proxy import Link, Proxy

pytestmark = pytest.mark.system

SCALED = Path(__file__).parent / "blackbox" / "scaled"
DASHBOARDS = sorted((Path(__file__).resolve().parents[2] / "grafana/dashboards").glob("*.json"))
USERS = 6
STEP_S = 0.5
#: How long the product believes that the exchange wants silence: long enough to be looked at, short enough to end.
BAN_S = 8.0
#: What Grafana would put in, at this scrape interval and with a minute on the screen.
VARIABLES = {"$__rate_interval": "3s", "$__range": "1m", "$job": ".+", "$instance": ".+"}
#: Panels that are empty while all is well: they show alerts, or averages over what did not happen.
EMPTY_IN_HEALTH = {"overview: Alerts"}


#: A refused key is told for five minutes.
DEAD_KEY = frozenset({"PushKeysRefused"})


class Watched:
    """A deployment under load with a Prometheus beside it; Redis is reached through a proxy."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(
            folder, users=USERS, streams=True, ticker=True, frozen=False,
            intervals="balance=10,positions=5,pnl=5,orders=5",
            environ={"PYTHONPATH": str(SCALED), "PUSHSERVER_BAN_S": str(BAN_S)},
        )  # fmt: skip
        self.proxy = Proxy(self.stack.valkey.port)
        self.stack.environ["REDIS_URL"] = f"redis://127.0.0.1:{self.proxy.port}/0"
        self.stack.start()
        self.exchange = SimControl(self.stack.exchange_url)
        workers = [metrics_port(worker) for worker in self.stack.push_workers]
        targets = {
            "pushserver-web": [f"127.0.0.1:{self.stack.web_metrics_port}"],
            "pushserver-worker": [f"127.0.0.1:{port}" for port in workers],
        }
        self.prometheus = PrometheusServer(folder, targets, STEP_S).start()
        self.started_s = time.time()
        # Only what rises between two scrapes can be seen to rise.
        wait_until(lambda: len(self.prometheus.query("up == 1")) == 3, 15, "the first scrapes")
        self.phones = [PythonPhone(self.stack.url, self.stack.token(user)) for user in range(1, USERS + 1)]
        for phone in self.phones:
            phone.call("subscribe_trading", {"types": list(TYPES)})

    def close(self) -> None:
        for phone in self.phones:
            phone.close()
        self.prometheus.stop()
        self.stack.stop()
        self.proxy.close()

    def true_alerts(self) -> set[str]:
        return self.prometheus.true_alerts()

    def reasons_told(self) -> set[str]:
        """Why phones were told that what they see is late."""
        return {told["reason"] for phone in self.phones for told in phone.events("status_update")}

    def ever_showed(self, expression: str) -> bool:
        """Whether a panel with it has anything to draw."""
        now_s = time.time()
        rows = self.prometheus.query_range(expression, self.started_s, now_s, STEP_S)
        return any(not math.isnan(value) for _, values in rows for _, value in values)

    def shows(self, alert: str, within_s: float, lasting: frozenset[str] = frozenset()) -> None:
        """The alert's expression becomes true, and no other but those that last from before."""
        wait_until(lambda: alert in self.true_alerts(), within_s, alert)
        assert self.true_alerts() == {alert} | lasting

    def is_over(self, alert: str, within_s: float) -> None:
        wait_until(lambda: alert not in self.true_alerts(), within_s, f"the end of {alert}")

    def web_workers_ear(self) -> Link:
        """The bus connection of one of the web workers."""
        ports = {
            connection.laddr.port
            for child in psutil.Process(self.stack.web.pid).children()[:1]
            for connection in child.net_connections()
        }
        [ear] = [
            link
            for link in self.proxy.links
            if b"SUBSCRIBE" in link.first_bytes and link.client.getpeername()[1] in ports
        ]
        return ear


def metrics_port(worker: Process) -> int:
    told = wait_until(lambda: re.search(r"metrics on port (\d+)", worker.log()), 20, "the worker's metrics")
    return int(told[1])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with closing(Watched(tmp_path_factory.mktemp("prometheus"))) as watched:
        yield watched


def panels() -> Iterator[tuple[str, list[str]]]:
    """Name and expressions of every panel, as Grafana would send them."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            yield f"{path.stem}: {panel['title']}", [filled_in(each["expr"]) for each in panel.get("targets") or []]


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def log_in(stack: Stack) -> None:
    body = json.dumps({"username": "user1", "password": "password-1"}).encode()
    request = urllib.request.Request(f"{stack.url}/api/auth/login", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def test_no_rule_fails_and_no_alert_is_true_while_all_is_well(watched: Watched) -> None:
    rules = watched.prometheus.rules()
    assert len(rules) >= 40
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
    for rule in rules:
        watched.prometheus.query(rule["query"])
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    wait_until(lambda: all(map(watched.prometheus.query, recorded)), 20, "a value of every recorded ratio")
    assert watched.true_alerts() == set()


def test_a_ban_is_seen(watched: Watched) -> None:
    watched.exchange.ban(BAN_S)
    # A stream that is only a hint needs no request: something must be asked for before the ban is met.
    watched.shows("PushAddressBanned", within_s=BAN_S + 5)
    watched.is_over("PushAddressBanned", within_s=BAN_S + 15)


def test_a_dead_key_is_seen(watched: Watched) -> None:
    watched.exchange.revoke_key(demo_credentials(USERS)[0])
    watched.shows("PushKeysRefused", within_s=20)


def test_a_stopped_push_worker_is_seen(watched: Watched) -> None:
    worker = watched.stack.push_workers[1].popen
    worker.send_signal(signal.SIGSTOP)
    try:
        watched.shows("PushTargetDown", within_s=10, lasting=DEAD_KEY)
    finally:
        worker.send_signal(signal.SIGCONT)
    watched.is_over("PushTargetDown", within_s=10)


def test_a_deaf_web_worker_is_seen(watched: Watched) -> None:
    ear = watched.web_workers_ear()
    others = watched.proxy.links - {ear}
    # Whatever it connects anew is deaf, too.
    watched.proxy.affects = lambda link: link is ear or (b"SUBSCRIBE" in link.first_bytes and link not in others)
    watched.proxy.timeout()
    watched.shows("PushDeafListener", within_s=20, lasting=DEAD_KEY)
    # Its phones are not left in the belief that they see the newest.
    wait_until(lambda: "store_unavailable" in watched.reasons_told(), 10, "a word to the phones")
    watched.proxy.passes()
    # What its users are shown may have become late meanwhile: nobody else listens for them, so nobody fetches.
    watched.is_over("PushDeafListener", within_s=25)


def test_every_panel_has_data_and_no_expression_fails(watched: Watched) -> None:
    # A phone that comes and goes and a login are what was still missing.
    visitor = PythonPhone(watched.stack.url, watched.stack.token(1))
    visitor.wait_kind("connect")
    visitor.close()
    log_in(watched.stack)
    assert sum(len(expressions) for _, expressions in panels()) > 100
    for path in DASHBOARDS:
        for annotation in json.loads(path.read_text(encoding="utf-8"))["annotations"]["list"]:
            watched.prometheus.query(filled_in(annotation["expr"]))
    waiting = {name: expressions for name, expressions in panels() if expressions and name not in EMPTY_IN_HEALTH}

    def all_have_data() -> bool:
        for name in [name for name, expressions in waiting.items() if any(map(watched.ever_showed, expressions))]:
            del waiting[name]
        return not waiting

    try:
        wait_until(all_have_data, 30)
    finally:
        assert set(waiting) == set()
