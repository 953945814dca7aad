"""The life of a gunicorn worker from its first connection to its last: serve, and when told to stop, leave in order.

Takes the place of gunicorn's own loop, which looks once a second whether it is to stop, lets WebSockets hear nothing
of it and cuts them all at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import VERSION

from pushserver.clock import Clock, SystemClock
from pushserver.web.accepting import AcceptingServer
from pushserver.web.request_handler import RequestHandler
from pushserver.web.taking_turns import Turns
from pushserver.web.worker_slots import State, WorkerSlots, slots_of_process

logger = logging.getLogger(__name__)

#: The arbiter kills a worker whose heartbeat it misses.
HEARTBEAT_S = 1.0
#: How long a worker that is replaced goes on serving while the new ones load.
SUCCESSORS_WITHIN_S = 10.0
#: The arbiter's patience must not end before ours.
MARGIN_S = 1.0
LOOK_EVERY_S = 0.05


def serve(worker: Any) -> None:
    """Run in the worker until it has been told to stop and has left.

    ``worker`` is gunicorn's: ``alive`` until told to stop, when ``told_to_stop`` is set; ``wsgi`` the application,
    in whose ``extensions``, if there, ``drain(others_take_over, anyone_left)`` closes its transports.
    """
    clock = SystemClock()
    slots, own = slots_of_process()
    turns = Turns(slots, own, clock)
    servers = [_server(worker, listener, turns, clock) for listener in worker.sockets]
    for server in servers:
        server.start()
    slots.publish_state(own, State.ACCEPTING)
    while worker.alive:
        worker.notify()
        worker.told_to_stop.wait(HEARTBEAT_S)
    _leave(worker, servers, slots, own, clock)


def _server(worker: Any, listener: Any, turns: Turns, clock: Clock) -> AcceptingServer:
    listener.setblocking(1)
    environ = base_environ(worker.cfg) | {"wsgi.multithread": True, "SERVER_SOFTWARE": VERSION}
    return AcceptingServer(
        listener, turns, clock, application=worker.wsgi, spawn=gevent.pool.Pool(worker.worker_connections),
        log=worker.log, handler_class=RequestHandler, environ=environ,
    )  # fmt: skip


def _leave(worker: Any, servers: list[AcceptingServer], slots: WorkerSlots, own: int, clock: Clock) -> None:
    def beat_until(condition: Callable[[], bool], deadline_s: float, every_s: float = LOOK_EVERY_S) -> None:
        while not condition() and clock.monotonic_s() < deadline_s:
            worker.notify()
            gevent.sleep(every_s)

    def others_take_over() -> bool:
        return bool(slots.others(own, State.ACCEPTING))

    def anyone_left() -> bool:
        return any(server.clients for server in servers)

    # On a reload we are told as soon as our successors are forked; until they have loaded, we are needed.
    beat_until(lambda: not _successors_load(slots, own), clock.monotonic_s() + SUCCESSORS_WITHIN_S)
    slots.publish_state(own, State.LEAVING)
    logger.info(
        "this worker takes no more clients and lets go of the %d it has", sum(server.clients for server in servers)
    )
    for server in servers:
        server.leave()
    leave_by_s = clock.monotonic_s() + worker.cfg.graceful_timeout - SUCCESSORS_WITHIN_S - MARGIN_S
    drain = getattr(worker.wsgi, "extensions", {}).get("drain")
    if drain is not None:
        draining = gevent.spawn(drain, others_take_over, anyone_left)
        beat_until(draining.ready, leave_by_s)
    beat_until(lambda: not anyone_left(), leave_by_s)
    for server in servers:
        if server.clients:
            logger.warning("leaving with %d connections still open", server.clients)
            server.pool.kill(block=False)


def _successors_load(slots: WorkerSlots, own: int) -> bool:
    return any(slots.age(slot) > slots.age(own) for slot in slots.others(own, State.STARTING))
