"""One delivery run: server CPU per push, latency and memory per connection of one target on fresh processes."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from bench.processes import BenchmarkFailed, Process, answers, connections, cpu_s, free_port, pss_bytes, running
from bench.targets import Target
from bench.valkey import valkey, valkey_cpu_s

START_TIMEOUT_S = 60.0
#: Clients per worker that connect before memory is measured: the first ones pay for what is loaded once.
FIRST_CLIENTS = 40
#: How long the servers are watched doing nothing, with all clients connected.
IDLE_S = 1.0
#: Memory counts once it changed by less than this share so many times in a row, looked at so often, so many times.
STEADY_SHARE = 0.002
STEADY_LOOKS = 3
LOOK_INTERVAL_S = 0.5
MOST_LOOKS = 16
#: Publishing goes on for so long after the measuring window, so that the window ends under full load.
TAIL_S = 0.3
#: Updates that do not come for so long are lost.
PATIENCE_S = 10.0
#: The queue of a server that could not keep pace is waited for, but not for ever.
COLLECT_TIMEOUT_S = 600.0
#: An update that takes longer than this had a queue before it: its server is saturated.
SATURATED_AFTER_MS = 500.0
#: So is one that delivered a smaller part of the rate than this.
SATURATED_BELOW = 0.95

#: What else is to be done with the web workers during the measuring window: a profile, say.
Watch = Callable[[Sequence[int]], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Load:
    """``clients`` users with ``devices`` connections each, in rooms of their own.

    ``rate`` states a second, all users together, for ``warm_up_s`` seconds that do not count and ``seconds`` that do.
    """

    clients: int
    devices: int
    rate: float
    seconds: float
    warm_up_s: float = 2.0

    @property
    def published_s(self) -> float:
        return self.warm_up_s + self.seconds + TAIL_S

    @property
    def published(self) -> int:
        return round(self.rate * self.published_s)


@dataclass(slots=True)
class Run:
    """What one run showed. ``problems`` make it invalid.

    All but ``pushes``, ``expected``, ``published_rate`` and memory is of the measuring window. ``…_cores`` are CPU
    seconds a second; ``machine_busy`` is a share of all cores, other programs included.
    """

    target: str
    workers: int
    clients: int = 0
    pushes: int = 0
    expected: int = 0
    cpu_us_per_push: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    connection_pss_kb: float = 0.0
    connection_pss_with_first_kb: float = 0.0
    connections_per_worker: list[int] = field(default_factory=list)
    idle_cores: float = 0.0
    server_cores: float = 0.0
    clients_cores: float = 0.0
    publisher_cores: float = 0.0
    valkey_cores: float = 0.0
    machine_busy: float = 0.0
    published_rate: float = 0.0
    delivered_rate: float = 0.0
    saturated: bool = False
    problems: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        figures = (
            f"{self.cpu_us_per_push:.1f} µs a push, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms,"
            f" {self.connection_pss_kb:.1f} KB a connection, {self.delivered_rate:.0f} pushes/s"
        )
        remarks = (", saturated" if self.saturated else "") + "".join(f", INVALID: {each}" for each in self.problems)
        return f"{self.target}, {self.workers} workers, {self.clients} clients: {figures}{remarks}"


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds of everybody who takes part, at one moment."""

    at_s: float
    server: float
    clients: float
    publisher: float
    valkey: float


class Crowd:
    """The load clients in their own process."""

    def __init__(self, ports: Sequence[int], folder: Path) -> None:
        addresses = [word for port in ports for word in ("--address", f"127.0.0.1:{port}")]
        self.process = Process("clients", ["-m", "bench.clients", *addresses], {}, folder, dialogue=True)

    def ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send one command; its answer."""
        streams = self.process.popen
        assert streams.stdin and streams.stdout
        try:
            streams.stdin.write(json.dumps(command) + "\n")
            streams.stdin.flush()
        except BrokenPipeError:
            raise BenchmarkFailed(f"the clients ended\n{self.process.log_end()}") from None
        ready, _, _ = select.select([streams.stdout], [], [], timeout_s)
        line = streams.stdout.readline() if ready else ""
        if not line:
            raise BenchmarkFailed(f"the clients did not answer {list(command)}\n{self.process.log_end()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def connect(self, target: Target, users: Sequence[int]) -> int:
        """Open one connection for each of these; how many there are now."""
        each = [[user_id, *target.packets(user_id)] for user_id in users]
        return int(self.ask({"connect": each, "answer": "subscribed"}, START_TIMEOUT_S + len(each) / 20)["connected"])

    def watch(self, seconds: float) -> dict[str, Any]:
        """What the clients see in so many seconds."""
        return self.ask({"watch_s": seconds}, seconds + 60)

    def collect(self, updates: int) -> dict[str, Any]:
        """Wait until so many updates have come since the start, or none for PATIENCE_S; what the clients saw."""
        return self.ask({"collect": updates, "patience_s": PATIENCE_S}, COLLECT_TIMEOUT_S)


def measure(target: Target, workers: int, load: Load, watch: Watch = nullcontext) -> Run:
    """One run on fresh processes. Raises BenchmarkFailed when it could not be made at all."""
    ports = [free_port() for _ in range(target.port_count(workers))]
    with TemporaryDirectory(prefix="bench-") as name, valkey() as redis_url:
        folder = Path(name)
        with running(target.start(redis_url, ports, workers, folder)) as web:
            web.wait_for(lambda: len(web.children()) == workers, START_TIMEOUT_S, f"{workers} workers")
            for port in ports * 3 * workers:  # whoever accepts it: as good as every worker has to be there
                web.wait_for(lambda port=port: answers(target.ready_url(port)), START_TIMEOUT_S, "readiness")
            crowd = Crowd(ports, folder)
            with running(crowd.process):
                run = Run(target.name, workers, load.clients)
                pids = web.children()
                _connect(run, crowd, target, pids, load, ports)
                _publish(run, crowd, target, pids, load, redis_url, folder, watch)
            if web.children() != pids:
                run.problems.append("a worker was replaced")
    return run


def _connect(run: Run, crowd: Crowd, target: Target, pids: list[int], load: Load, ports: Sequence[int]) -> None:
    users = [number % load.clients + 1 for number in range(load.clients * load.devices)]
    first_users = min(FIRST_CLIENTS * len(pids), len(users) // 2)
    pss_empty = _settled_pss(pids)
    first = crowd.connect(target, users[:first_users])
    pss_first = _settled_pss(pids)
    connected = crowd.connect(target, users[first_users:])
    if connected != len(users):
        run.problems.append(f"{connected} of {len(users)} clients connected")
    run.idle_cores = _idle_cores(pids)
    pss_all = _settled_pss(pids)
    run.connection_pss_kb = (pss_all - pss_first) / max(1, connected - first) / 1024
    run.connection_pss_with_first_kb = (pss_all - pss_empty) / max(1, connected) / 1024
    run.connections_per_worker = [connections(pid, ports) for pid in pids]


def _settled_pss(pids: list[int]) -> int:
    """PSS once it no longer moves: what starting and connecting needed for a moment is given back some time later."""
    last, steady = pss_bytes(pids), 0
    for _ in range(MOST_LOOKS):
        time.sleep(LOOK_INTERVAL_S)
        now = pss_bytes(pids)
        steady = steady + 1 if abs(now - last) <= last * STEADY_SHARE else 0
        last = now
        if steady == STEADY_LOOKS:
            break
    return last


def _idle_cores(pids: list[int]) -> float:
    cpu_before_s, start_s = cpu_s(pids), time.monotonic()
    time.sleep(IDLE_S)
    return (cpu_s(pids) - cpu_before_s) / (time.monotonic() - start_s)


def _publish(
    run: Run, crowd: Crowd, target: Target, pids: list[int], load: Load, redis_url: str, folder: Path, watch: Watch
) -> None:
    """Publish, and measure a window of it; for a saturated server the window ends when its queue is empty.

    What such a server has worked for by the end of the publishing, and what it has sent by then, are far apart.
    """
    with running(target.publisher(redis_url, load.clients, load.rate, load.published_s, folder)) as publisher:

        def usage() -> Usage:
            publisher_s = cpu_s([publisher.pid]) if publisher.alive else 0.0
            return Usage(
                time.monotonic(), cpu_s(pids), cpu_s([crowd.process.pid]), publisher_s, valkey_cpu_s(redis_url)
            )

        crowd.collect(1)
        warmed = crowd.watch(load.warm_up_s)
        with watch(pids):
            psutil.cpu_percent()
            before = usage()
            seen = crowd.watch(load.seconds)
            after = usage()
            run.machine_busy = psutil.cpu_percent() / 100
        _take(run, seen["received"] - warmed["received"], before, after)
        run.p50_ms, run.p99_ms, run.max_ms = seen["p50_ms"], seen["p99_ms"], seen["max_ms"]
        publisher.popen.wait(load.published_s * 5 + 30)
        counts = _counts(publisher.log_path.read_text(errors="replace"))
    run.published_rate = counts["published"] / (counts["elapsed_ms"] / 1000)
    run.expected = counts["published"] * load.devices
    total = crowd.collect(run.expected)
    run.pushes = total["received"]
    run.saturated = run.p99_ms > SATURATED_AFTER_MS or run.delivered_rate < load.rate * load.devices * SATURATED_BELOW
    if run.saturated:
        _take(run, run.pushes - warmed["received"], before, replace(usage(), publisher=after.publisher))
    run.problems += _problems(total, counts, load)


def _take(run: Run, pushes: int, before: Usage, after: Usage) -> None:
    elapsed_s = after.at_s - before.at_s
    run.cpu_us_per_push = (after.server - before.server) / max(1, pushes) * 1e6
    run.delivered_rate = pushes / elapsed_s
    run.server_cores = (after.server - before.server) / elapsed_s
    run.clients_cores = (after.clients - before.clients) / elapsed_s
    run.publisher_cores = (after.publisher - before.publisher) / elapsed_s
    run.valkey_cores = (after.valkey - before.valkey) / elapsed_s


def _problems(seen: dict[str, Any], counts: dict[str, int], load: Load) -> list[str]:
    problems = []
    wanted = counts["published"] * load.devices
    if seen["received"] != wanted:
        problems.append(f"{seen['received']} of {wanted} updates arrived")
    if counts["failed"] or counts["published"] != load.published:
        problems.append(f"{counts['published']} of {load.published} states were published")
    if seen["most"] - seen["fewest"] > 1:
        problems.append(f"some clients got {seen['fewest']}, others {seen['most']} updates")
    if seen["misdirected"]:
        problems.append(f"{seen['misdirected']} updates of another user arrived")
    if seen["closed"]:
        problems.append(f"{seen['closed']} connections were closed")
    return problems


def _counts(output: str) -> dict[str, int]:
    """``published=10000 … elapsed_ms=5000``, the publisher's last line."""
    words = [word.split("=", 1) for word in output.strip().rpartition("\n")[2].split()]
    counts = {word[0]: int(word[1]) for word in words if len(word) == 2 and word[1].isdigit()}
    if "published" not in counts:
        raise BenchmarkFailed(f"the publisher failed\n{output[-2000:]}")
    return counts
