"""What web workers hold and use, seen from outside: descriptors, greenlets, rooms, memory, time, Redis.

stack = ProbedStack(folder, users=0, push_workers=0, ping=(3, 2)).start()
before = footprint(stack)
...
wait_until_back(stack, before, within_s=30)
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from tests.system.harness import Stack, wait_until

#: Objects of these classes belong to one client each.
OF_CLIENTS = ("Connection", "Phone", "Outbox", "Watch", "SocketInput", "Attachments")
#: Timers and requests under way that have nothing to do with clients come and go.
GREENLETS_THAT_COME_AND_GO = 6


class ProbedStack(Stack):
    """A stack whose web workers can be asked what they hold; ``ping``: interval and timeout in whole seconds."""

    def __init__(self, folder: Path, *, ping: tuple[int, int] | None = None, **options: Any) -> None:
        environ = {**(options.pop("environ", None) or {}), "TEST_PROBE_FOLDER": str(folder)}
        if ping is not None:
            environ["TEST_PING"] = f"{ping[0]},{ping[1]}"
        super().__init__(folder, environ=environ, **options)

    def start_web(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "-k", "geventwebsocket", "-w", str(self._web_workers)]
        self.web = self._spawn("web", [*command, "-b", f"127.0.0.1:{self.web_port}", "tests.system.probed_app:app"])

    def wait_ready(self) -> None:
        super().wait_ready()
        wait_until(lambda: all(_can_be_asked(pid) for pid in self.workers()), 30, "every web worker")

    def workers(self) -> list[int]:
        pids = self.web.children()
        return pids if len(pids) == self._web_workers else []

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url, decode_responses=True)


@dataclass(frozen=True)
class Footprint:
    """Of all web workers together. ``descriptors``: without connections to Redis, whose pool keeps what a crowd
    needed once; ``objects``: of the classes in OF_CLIENTS."""

    descriptors: int
    greenlets: int
    objects: int
    connections: int
    subscriptions: int
    channels: int

    def is_back_at(self, before: Footprint) -> bool:
        now, then = asdict(self), asdict(before)
        then["greenlets"] += GREENLETS_THAT_COME_AND_GO
        return all(now[name] <= then[name] for name in now)


def footprint(stack: ProbedStack) -> Footprint:
    inside = [held(stack, pid) for pid in stack.workers()]
    with stack.redis() as client:
        # One channel of each worker's is its own canary.
        channels = len(client.execute_command("PUBSUB", "SHARDCHANNELS"))
    return Footprint(
        descriptors=sum(descriptors(pid) - connections_to(pid, stack.valkey.port) for pid in stack.workers()),
        greenlets=sum(counts.get("greenlets", 0) for counts in inside),
        objects=sum(counts.get(name, 0) for counts in inside for name in OF_CLIENTS),
        connections=int(metric(stack, "push_connections_open")),
        subscriptions=int(metric(stack, "push_subscriptions_open")),
        channels=channels,
    )


def wait_until_back(stack: ProbedStack, before: Footprint, within_s: float) -> None:
    """Raises AssertionError with both footprints when something stays behind."""
    latest = footprint(stack)

    def back() -> bool:
        nonlocal latest
        latest = footprint(stack)
        return latest.is_back_at(before)

    try:
        wait_until(back, within_s)
    except AssertionError:
        raise AssertionError(f"after {within_s:g} s\n{latest}\ninstead of\n{before}\n{inside_text(stack)}") from None


def inside_text(stack: ProbedStack) -> str:
    return "\n".join(f"{pid}: {held(stack, pid)}" for pid in stack.workers())


def held(stack: ProbedStack, pid: int) -> dict[str, int]:
    """Living greenlets, and objects of each class of the program, in that worker."""
    answer = stack.folder / f"{pid}.json"
    answer.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    wait_until(answer.exists, 20, f"worker {pid} to count")
    counts: dict[str, int] = json.loads(answer.read_text())
    return counts


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def connections_to(pid: int, port: int) -> int:
    return sum(bool(end.raddr) and end.raddr.port == port for end in psutil.Process(pid).net_connections("tcp"))


def metric(stack: Stack, name: str, **labels: str) -> float:
    """The sum of the series of that name that have these labels."""
    return _series(_metrics_page(stack), name, labels)


def stalls(stack: Stack, longer_than_s: float) -> int:
    """How often an event loop was later than that since the start; a bucket bound of the histogram."""
    page = _metrics_page(stack)
    within = _series(page, "push_loop_lag_seconds_bucket", {"le": str(float(longer_than_s))})
    return int(_series(page, "push_loop_lag_seconds_count", {}) - within)


def _metrics_page(stack: Stack) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.web_metrics_port}/metrics", timeout=10) as answer:
        page: str = answer.read().decode()
    return page


def _series(page: str, name: str, labels: dict[str, str]) -> float:
    total = 0.0
    for found in re.finditer(rf"^{name}(?:{{(.*)}})? (\S+)$", page, re.MULTILINE):
        if all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
            total += float(found[2])
    return total


def rss_bytes(pid: int) -> int:
    return _rollup(pid, "Rss")


def pss_bytes(pid: int) -> int:
    return _rollup(pid, "Pss")


def cpu_s(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def commands_processed(stack: ProbedStack) -> int:
    """By Redis, since it started."""
    with stack.redis() as client:
        return int(client.info("stats")["total_commands_processed"])


def _rollup(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def _can_be_asked(pid: int) -> bool:
    """Whether the worker catches SIGUSR2 by now; before, it would die of it."""
    found = re.search(r"^SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) & 1 << (signal.SIGUSR2 - 1))
