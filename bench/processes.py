"""Starts, measures and surely ends the processes of a benchmark; all of them listen on 127.0.0.1 only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
STOP_TIMEOUT_S = 15.0
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: What a measured process inherits of our environment: nothing that would change how it runs.
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


class BenchmarkFailed(Exception):
    """Something that had to happen did not; the text says what, with the end of the log concerned."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise BenchmarkFailed(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether ``url`` is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def base_environment(more: Mapping[str, str]) -> dict[str, str]:
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | {"PYTHONUNBUFFERED": "1", **more}


class Process:
    """A child in a session of its own (a Ctrl-C at the terminal reaches only us), its output in a file."""

    def __init__(
        self, name: str, arguments: Iterable[str], environment: Mapping[str, str], folder: Path,
        dialogue: bool = False, program: str = sys.executable,
    ) -> None:  # fmt: skip
        """Run ``PROGRAM ARGUMENTS``, Python unless told. With ``dialogue`` its stdin and stdout are line pipes."""
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._log = self.log_path.open("ab")
        pipe = subprocess.PIPE if dialogue else None
        self.popen = subprocess.Popen(
            [program, *arguments], cwd=ROOT, env=base_environment(environment), stdin=pipe or subprocess.DEVNULL,
            stdout=pipe or self._log, stderr=self._log, start_new_session=True, text=dialogue or None,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def log_end(self) -> str:
        return self.log_path.read_text(errors="replace")[-2000:]

    def children(self) -> list[int]:
        try:
            return sorted(child.pid for child in psutil.Process(self.pid).children())
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        """Wait for a condition that this process must bring about; its end, or its log, is told on failure."""
        try:
            wait_until(lambda: not self.alive or condition(), timeout_s, what)
        except BenchmarkFailed as failure:
            raise BenchmarkFailed(f"{failure}\n{self.log_end()}") from None
        if not self.alive:
            raise BenchmarkFailed(f"{self.name} ended before {what}\n{self.log_end()}")

    def stop(self) -> None:
        """TERM and wait; KILL whatever of its session is left after that."""
        if self.alive:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(STOP_TIMEOUT_S)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()
        self._log.close()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def running(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.stop()


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds these processes have used so far, all threads, user and system.

    The scheduler counts in nanoseconds, ``/proc/PID/stat`` shows it in ticks of 10 ms: the finer figure is taken
    where the kernel gives it.
    """
    return sum(_cpu_s(pid) for pid in pids)


def _cpu_s(pid: int) -> float:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: memory of these processes, shared pages divided among their users."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


def connections(pid: int, ports: Collection[int]) -> int:
    """How many clients of these local ports this process serves."""
    sockets = psutil.Process(pid).net_connections(kind="tcp")
    return sum(each.laddr.port in ports and each.status == psutil.CONN_ESTABLISHED for each in sockets)


def end_on_signals() -> None:
    """TERM and HUP end the benchmark as Ctrl-C does: through every ``finally``. Only the first signal counts.

    A second one, while processes are being ended, would leave some of them behind.
    """

    def leave(_number: int, _frame: object) -> None:
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in ENDING_SIGNALS:
        signal.signal(number, leave)
