"""What the person at the terminal sees: progress, the login, then a line per push."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pushserver.clock import SystemClock

#: The web workers' log line of a push, in their text format.
PUSH_LINE = re.compile(r'^\S+T(\d\d:\d\d:\d\d)\S* INFO web (emitting event "\w+" to \w+)')
TROUBLE_LINE = re.compile(r"^\S+ (WARNING|ERROR|CRITICAL) ")


class Screen:
    """Prints whole lines from any thread. On a terminal a running step shows its seconds.

    ``on_lost`` is called once when nobody reads any more: the terminal was closed, or the other end of a pipe.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._quiet = threading.Event()
        self._is_terminal = sys.stdout.isatty()

    def say(self, text: str = "") -> None:
        self._write(f"{text}\n")

    def be_quiet(self) -> None:
        """From now on lines of the children are not shown: they are being stopped."""
        self._quiet.set()

    def on_child_line(self, name: str, line: str) -> None:
        """Show pushes and troubles; everything is in the log files."""
        if self._quiet.is_set():
            return
        push = PUSH_LINE.match(line)
        if push:
            self.say(f"{push[1]} {push[2]}")
        elif TROUBLE_LINE.match(line):
            self.say(f"[{name}] {line}")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """``starting Valkey ........ ready in 0.3 s``"""
        started = self._clock.monotonic_s()
        head = f"{title} ".ljust(38, ".")
        done = threading.Event()
        if self._is_terminal:
            threading.Thread(target=self._count, args=(head, started, done), daemon=True).start()
        try:
            yield
        finally:
            done.set()
        clear = "\r" if self._is_terminal else ""
        self.say(f"{clear}{head} ready in {self._clock.monotonic_s() - started:.1f} s")

    def _count(self, head: str, started: float, done: threading.Event) -> None:
        while not done.wait(0.1):
            self._write(f"\r{head} {self._clock.monotonic_s() - started:.1f} s", unless=done)

    def _write(self, text: str, unless: threading.Event | None = None) -> None:
        with self._lock:
            if unless is not None and unless.is_set():
                return
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except OSError:
                # What is still buffered would fail once more when Python ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                self._on_lost()
