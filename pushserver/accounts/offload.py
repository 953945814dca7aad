"""Runs blocking work (database, password hashing) on real threads, so that the event loop never waits for it.

Works in patched and in unpatched processes; one instance serves all greenlets of a process.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from gevent.threadpool import ThreadPool

from pushserver.errors import OverCapacity, StoreUnavailable

T = TypeVar("T")


class Offload:
    """``threads`` calls at a time, at most ``queue_size`` waiting, each answered within ``limit_s`` seconds.

    The threads start with the first call, never before a fork. ``niceness`` makes them yield to the event loop where
    threads have a priority of their own (Linux): for work that computes.
    """

    def __init__(self, name: str, *, threads: int, queue_size: int, limit_s: float, niceness: int = 0) -> None:
        self._name = name
        self._threads = threads
        self._queue_size = queue_size
        self._limit_s = limit_s
        self._niceness = niceness if sys.platform == "linux" else 0
        self._pool: Any = None
        self._pending = 0

    def run(self, work: Callable[[], T], *, limit_s: float | None = None) -> T:
        """What ``work`` returns or raises.

        A call that was given up goes on in its thread until it ends by itself: give it timeouts of its own.

        Raises:
            StoreUnavailable: no answer within the limit.
            OverCapacity: too many calls are waiting already.
        """
        if self._pending >= self._threads + self._queue_size:
            raise OverCapacity(f"too many {self._name} calls are waiting")
        if self._pool is None:
            self._pool = ThreadPool(self._threads)
        limit = self._limit_s if limit_s is None else limit_s
        self._pending += 1
        try:
            with gevent.Timeout(limit, _GaveUp):
                outcome, error = self._pool.spawn(_outcome, work, self._niceness).get()
        except _GaveUp:
            raise StoreUnavailable(f"the {self._name} did not answer within {limit:g} s") from None
        finally:
            self._pending -= 1
        if error is not None:
            raise error
        result: T = outcome
        return result

    def close(self) -> None:
        """Let the threads end; a later call starts new ones."""
        if self._pool is not None:
            self._pool.kill()
            self._pool = None


class _GaveUp(BaseException):
    """Ours alone, so that a timeout of the caller's own is not mistaken for this one."""


def _outcome(work: Callable[[], T], niceness: int) -> tuple[T | None, Exception | None]:
    if niceness:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
    # The error travels as a value: gevent would print the traceback of one raised in a thread.
    try:
        return work(), None
    except Exception as error:  # whatever it is, it is raised again in the caller
        return None, error
