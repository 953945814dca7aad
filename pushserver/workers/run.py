"""The push worker put together: reads top to bottom what it is made of, runs it, and ends it in order."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial

import gevent

from pushserver import logs
from pushserver.accounts.store import AccountStore
from pushserver.bus import keys, signals
from pushserver.bus.bases import Bases
from pushserver.bus.budgets import ADDRESS_WINDOW_S, Budget
from pushserver.bus.connection import connect
from pushserver.bus.ears import open_ears
from pushserver.bus.homes import Homes
from pushserver.bus.memos import Memos
from pushserver.bus.pauses import Pauses
from pushserver.bus.schedule import HINT_HEAD_START_S, NEW_WATCHER_HEAD_START_S, Schedule, SchedulePort
from pushserver.bus.states import States
from pushserver.clock import Clock, SystemClock
from pushserver.errors import SettingsError, StoreUnavailable
from pushserver.exchange.bybit import BybitExchange
from pushserver.exchange.egress import Egress, egress_of, egresses_of
from pushserver.exchange.ticker_stream import TickerFeed
from pushserver.exchange.tunnels import open_socket
from pushserver.loop_lag import LoopLagProbe
from pushserver.metrics import PrometheusObserver, serve_worker_metrics
from pushserver.observers import LifecycleReported, Observer, Observers
from pushserver.process_probe import ProcessProbe
from pushserver.schema_upgrade import start_upgrade
from pushserver.settings import Settings
from pushserver.workers.asking import Asking, open_desk
from pushserver.workers.credentials import CredentialsCache
from pushserver.workers.figures import Figures
from pushserver.workers.guardian import start_guardian
from pushserver.workers.hints import CATCH_UP
from pushserver.workers.holder import holder_name
from pushserver.workers.homes.door import StreamDoor
from pushserver.workers.homes.keeper import Keeper
from pushserver.workers.marks import Marks
from pushserver.workers.memo import Resource
from pushserver.workers.paying import Cashier
from pushserver.workers.pool import WorkerPool
from pushserver.workers.round_state import Tools
from pushserver.workers.statuses import Statuses
from pushserver.workers.timing import Timing

logger = logging.getLogger(__name__)

EXIT_STOPPED = 0
EXIT_SETTINGS_WRONG = 2
EXIT_FORCED = 130
#: How long the start waits for the database, so that its first connection is open before anybody is in a hurry.
OPEN_DATABASE_S = 2.0
#: How long rounds under way may take once the worker is told to stop.
DRAIN_S = 10.0
CLOSE_S = 2.0
#: New streams are counted over five minutes, private and public ones together.
STREAM_WINDOW_S = 300.0
#: How often keys that nobody can use any more leave the memory.
FORGET_EVERY_S = 60.0


def main() -> int:
    """Run one push worker until it is told to stop; the exit code."""
    try:
        return run(Settings.from_env())
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)  # noqa: T201 - as a person reads it, logging or not
        return EXIT_SETTINGS_WRONG


def run(settings: Settings) -> int:
    clock = SystemClock()
    rng = random.Random()  # noqa: S311 - spreads load, guards nothing
    logs.configure(settings.log_format, settings.log_level)
    metrics = PrometheusObserver(side="worker")
    observer = Observers([logs.LoggingObserver("worker"), metrics])

    for warning in settings.warnings():
        logger.warning("%s", warning)
    redis_client = connect(settings.redis_url, max_connections=settings.worker_concurrency + 50)
    schedule = Schedule(redis_client)
    states = States(redis_client, clock)
    accounts = AccountStore.open(settings.database_url, settings.credentials_keys, clock)
    credentials = CredentialsCache(accounts, clock)
    egresses = egresses_of(settings.egress_id, settings.egress_proxies)
    exchanges = [open_exchange(settings, egress, clock, observer) for egress in egresses]
    desks = [
        open_desk(
            exchange,
            Pauses(redis_client, egress.name),
            Cashier(budget_of(settings, redis_client, egress, clock), clock, observer, rng),
            clock,
            observer,
        )
        for egress, exchange in zip(egresses, exchanges, strict=True)
    ]
    tools = Tools(
        asking=Asking(desks, clock, partial(egress_of, egresses=egresses)),
        states=states,
        credentials=credentials,
        figures=Figures(settings.bybit_markets),
        timing=Timing(settings.push_intervals, settings.reconcile_s),
        statuses=Statuses(states, observer),
        observer=observer,
        clock=clock,
        rng=rng,
        has_marks=bool(settings.bybit_ticker_url),
    )
    holder = holder_name(socket.gethostname(), os.getpid(), rng)
    keeper = open_keeper(settings, redis_client, schedule, tools, egresses, exchanges, holder)
    pool = WorkerPool(schedule, Memos(redis_client), tools, settings.worker_concurrency, holder, keeper.met)
    marks = open_marks(settings, redis_client, schedule, keeper, tools, egresses)
    signalled = on_signal(credentials, schedule, keeper)
    listener = open_ears(
        settings.redis_url,
        redis_client,
        clock,
        observer,
        both(signalled, marks.on_message) if marks else signalled,
        marks.on_restored if marks else lambda: None,
        plain_channels=(keys.SIGNALS_CHANNEL,),
    )
    port = serve_worker_metrics(settings.worker_metrics_bind, metrics.registry)

    stop_on_signals(pool)
    # A database that is away is no reason not to start.
    start_upgrade(accounts.upgrade, "push worker", clock, observer).join(OPEN_DATABASE_S)
    listener.start()
    gevent.spawn(forget_old_keys, credentials)
    keeper.start()
    if marks:
        marks.listener = listener
        marks.start()
    guardian = start_guardian(tools, redis_client)
    LoopLagProbe("worker", clock, observer).start()
    ProcessProbe(observer).start()
    observer.record(LifecycleReported("push worker", "started", f"{holder}, metrics on port {port}"))
    pool.run()

    observer.record(LifecycleReported("push worker", "stopping", f"{pool.busy} rounds under way"))
    guardian.kill(block=False)
    if marks:
        marks.stop()
    keeper.stop()
    given_back = pool.drain(DRAIN_S)
    listener.stop()
    with gevent.Timeout(CLOSE_S, False):
        # A database thread that hangs must not keep the process.
        accounts.close()
    observer.record(LifecycleReported("push worker", "stopped", f"{given_back} rounds given back"))
    return EXIT_STOPPED


def stop_on_signals(pool: WorkerPool) -> None:
    """The first TERM or INT ends the worker in order, the second at once."""
    received: list[int] = []

    def handle() -> None:
        received.append(1)
        if len(received) > 1:
            os._exit(EXIT_FORCED)
        pool.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, handle)


def open_exchange(settings: Settings, egress: Egress, clock: Clock, observer: Observer) -> BybitExchange:
    return BybitExchange(
        settings.bybit_rest_url,
        settings.bybit_markets,
        clock,
        observer,
        # A round asks for all its resources at once: with fewer, users whose answers hang would leave others none.
        concurrency=settings.worker_concurrency * len(Resource),
        proxy=egress.proxy,
    )


def budget_of(settings: Settings, redis_client: object, egress: Egress, clock: Clock) -> Budget:
    return Budget(redis_client, egress.name, settings.bybit_ip_requests_per_5s, ADDRESS_WINDOW_S, clock=clock)


def open_keeper(
    settings: Settings,
    redis_client: object,
    schedule: SchedulePort,
    tools: Tools,
    egresses: Sequence[Egress],
    exchanges: Sequence[BybitExchange],
    holder: str,
) -> Keeper:
    """Without streams and mark prices there is nothing that a home could do: then it takes no user."""
    doors = [
        StreamDoor(
            settings.bybit_stream_url,
            partial(open_socket, proxy=egress.proxy),
            Budget(
                redis_client,
                egress.name,
                settings.bybit_stream_connects_per_5min,
                STREAM_WINDOW_S,
                kind="streams",
                # Too many connections are only refused: no reason to do without streams for five minutes at a start.
                unknown_pause_s=0.0,
                clock=tools.clock,
            ),
            exchange.server_now_ms,
            tools.clock,
            tools.observer,
        )
        for egress, exchange in zip(egresses, exchanges, strict=True)
        if settings.bybit_stream_url
    ]
    limit = settings.max_streams_per_worker if settings.bybit_stream_url or settings.bybit_ticker_url else 0
    return Keeper(
        Homes(redis_client),
        schedule,
        tools.credentials,
        doors,
        holder,
        limit,
        tools.clock,
        tools.observer,
        tools.rng,
        partial(egress_of, egresses=egresses),
    )


def on_signal(credentials: CredentialsCache, schedule: SchedulePort, keeper: Keeper) -> Callable[[bytes, bytes], None]:
    """What the bus listener calls: a changed key is forgotten, and its user served at once."""

    def wake(user_id: int) -> None:
        try:
            schedule.wake([user_id], head_start_s=NEW_WATCHER_HEAD_START_S)
        except StoreUnavailable:
            # The signal only makes things quick: a stopped user's key is looked at every few seconds anyway.
            return

    def on_message(channel: bytes, payload: bytes) -> None:
        if channel != keys.SIGNALS_CHANNEL.encode():
            return
        told = signals.parse(payload)
        if told is not None and told.kind in (
            signals.SignalKind.KEY_CHANGED,
            signals.SignalKind.USER_DISABLED,
            signals.SignalKind.USER_ENABLED,
        ):
            credentials.forget(told.user_id)
            keeper.key_changed(told.user_id)
            gevent.spawn(wake, told.user_id)

    return on_message


def open_marks(
    settings: Settings,
    redis_client: object,
    schedule: SchedulePort,
    keeper: Keeper,
    tools: Tools,
    egresses: Sequence[Egress],
) -> Marks | None:
    """None where mark prices are off."""
    if not settings.bybit_ticker_url:
        return None
    prices = TickerFeed(
        settings.bybit_ticker_url, partial(open_socket, proxy=egresses[0].proxy), tools.clock, tools.observer
    )
    look_at = partial(schedule.wake, head_start_s=HINT_HEAD_START_S, hints=CATCH_UP)
    return Marks(prices, keeper, tools.states, Bases(redis_client), look_at, tools.clock, tools.observer)


def both(
    first: Callable[[bytes, bytes], None], second: Callable[[bytes, bytes], None]
) -> Callable[[bytes, bytes], None]:
    """Two that hear the same bus; each passes over what is not meant for it."""

    def on_message(channel: bytes, payload: bytes) -> None:
        first(channel, payload)
        second(channel, payload)

    return on_message


def forget_old_keys(credentials: CredentialsCache) -> None:
    while True:
        gevent.sleep(FORGET_EVERY_S)
        credentials.forget_old()
