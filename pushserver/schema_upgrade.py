"""Brings the database's schema up to date behind the start of a process, whenever the database is there for it.

So an empty database serves as soon as any process has met it, and one that is away stops nobody from starting.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent

from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.observers import LifecycleReported, Observer

#: Between attempts; the last one repeats.
RETRY_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)


def start_upgrade(upgrade: Callable[[], None], component: str, clock: Clock, observer: Observer) -> gevent.Greenlet:
    """Call ``upgrade`` in a greenlet until it worked once; the greenlet ends then.

    ``upgrade`` blocks its own greenlet only and raises StoreUnavailable. Each different reason is reported once.
    """
    return gevent.spawn(_upgrade, upgrade, component, clock, observer)


def _upgrade(upgrade: Callable[[], None], component: str, clock: Clock, observer: Observer) -> None:
    told = ""
    attempt = 0
    while True:
        try:
            upgrade()
        except StoreUnavailable as error:
            if error.message != told:
                told = error.message
                observer.record(LifecycleReported(component, "database unavailable", told))
        else:
            break
        clock.sleep(RETRY_PAUSES_S[min(attempt, len(RETRY_PAUSES_S) - 1)])
        attempt += 1
    if told:
        observer.record(LifecycleReported(component, "database found"))
