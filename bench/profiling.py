"""Where a web worker spends its time while it delivers: py-spy beside the measuring window.

The samples slow the worker down a little, so a run with a profile is no figure. py-spy must be allowed to look into
another process: on Linux as root, or with ``kernel.yama.ptrace_scope`` 0.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.processes import BenchmarkFailed

SAMPLES_PER_S = 500
SHOWN = 30
#: gevent's waiting threads look busy to py-spy; what they do for us (hashing, the database) is not delivery anyway.
THREADS = "_WorkerGreenlet.run (gevent/threadpool.py"
STOP_TIMEOUT_S = 30.0


class Profiler:
    """Writes ``NUMBER.collapsed`` for each run, which speedscope and flame graph tools read, and tells the top."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._number = 0

    @contextmanager
    def watch(self, pids: Sequence[int]) -> Iterator[None]:
        """Sample the first of these processes until the end of the block."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        path = self._folder / f"{self._number}.collapsed"
        arguments = ["record", "--pid", str(pids[0]), "--rate", str(SAMPLES_PER_S), "--format", "raw"]
        recorder = subprocess.Popen(
            [Path(sys.executable).with_name("py-spy"), *arguments, "--output", str(path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield
            recorder.send_signal(signal.SIGINT)
            _, errors = recorder.communicate(timeout=STOP_TIMEOUT_S)
        finally:
            recorder.kill()
            recorder.wait()
        if not path.exists():
            raise BenchmarkFailed(f"py-spy wrote nothing: {errors}")
        self._tell(f"profile of one of {len(pids)} workers, {path}:\n{top(path.read_text())}")


def top(collapsed: str) -> str:
    """The functions most often seen at work, and most often seen at work or waiting for one they called."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        if THREADS in stack:
            continue
        frames = stack.split(";")
        samples += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            total[frame] += int(count)
    lines = [f"{samples} samples"]
    for title, counter in (("own", own), ("with callees", total)):
        lines += [f"{count / samples:7.1%} {title}  {frame}" for frame, count in counter.most_common(SHOWN)]
    return "\n".join(lines)
