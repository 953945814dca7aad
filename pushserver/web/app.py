"""Composition root of a web worker: reads top to bottom like a table of contents."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import flask_socketio
from flask import Flask

from pushserver import logs
from pushserver.accounts.store import AccountStore
from pushserver.bus import keys, signals
from pushserver.bus.access import AccessList
from pushserver.bus.budgets import ADDRESS_WINDOW_S, Budget
from pushserver.bus.connection import connect
from pushserver.bus.ears import Ears, open_ears
from pushserver.bus.health import HealthStore
from pushserver.bus.homes import Homes
from pushserver.bus.login_limits import LoginLimits
from pushserver.bus.pauses import Pauses
from pushserver.bus.schedule import Schedule
from pushserver.bus.states import States
from pushserver.clock import Clock, SystemClock
from pushserver.exchange.bybit import BybitExchange
from pushserver.exchange.egress import egress_of, egresses_of
from pushserver.loop_lag import LoopLagProbe
from pushserver.metrics import PrometheusObserver
from pushserver.observers import LifecycleReported, Observer, Observers
from pushserver.process_probe import ProcessProbe
from pushserver.schema_upgrade import start_upgrade
from pushserver.settings import Settings
from pushserver.tokens import tokens_from_settings
from pushserver.web.account_health import AccountHealthNews
from pushserver.web.admission import Admission
from pushserver.web.api.answers import register_error_handlers
from pushserver.web.api.blueprint import create_api
from pushserver.web.api.services import ApiServices
from pushserver.web.client_address import ForwardedHeaders
from pushserver.web.console.blueprint import create_console
from pushserver.web.deliveries import Deliveries
from pushserver.web.drain import Drain
from pushserver.web.engine import SocketServer
from pushserver.web.freshness_samples import FreshnessSamples, Patience
from pushserver.web.handlers import Handlers
from pushserver.web.health import create_health
from pushserver.web.kicks import Kicks
from pushserver.web.measuring import Measuring
from pushserver.web.rooms import RoomManager
from pushserver.web.sign_in import SignIn
from pushserver.web.sockets import Sockets
from pushserver.web.tally import tally_of_process
from pushserver.web.ticker import Ticker
from pushserver.web.verifying import Desk, PaidVerifier


class SocketIO(flask_socketio.SocketIO):
    """Flask-SocketIO around a server of our own; ``init_app`` would make one of the library's."""

    def mount(self, app: Flask, server: SocketServer) -> None:
        app.extensions["socketio"] = self
        self.server = server
        self.async_mode = server.async_mode
        self.sockio_mw = flask_socketio._SocketIOMiddleware(server, app, socketio_path="socket.io")
        app.wsgi_app = self.sockio_mw  # type: ignore[method-assign]


def create_app(settings: Settings, clock: Clock | None = None) -> Flask:
    """The web side of one process. Connects to nothing by itself: Redis and the database may come later."""
    clock = clock or SystemClock()
    logs.configure(settings.log_format, settings.log_level)
    observer = Observers([logs.LoggingObserver("web"), PrometheusObserver()])

    redis_client = connect(settings.redis_url)
    states = States(redis_client, clock)
    schedule = Schedule(redis_client)
    accounts = AccountStore.open(settings.database_url, settings.credentials_keys, clock)
    tokens = tokens_from_settings(settings, clock)
    access = AccessList(redis_client, clock)

    tally = tally_of_process()
    homes = Homes(redis_client)
    deliveries = Deliveries(states, schedule, homes.live_bits, settings.push_intervals, clock, observer)
    sign_in = SignIn(tokens, access, tally, deliveries, settings.limits, clock, observer)
    sockets = Sockets(sign_in, settings.limits, clock, observer)
    admission = Admission(settings.limits, tally, settings.trusted_proxies, clock, lambda: sockets.accepting)
    manager = RoomManager(redis_client, observer)
    server = SocketServer(sockets, clock, manager, settings.cors_origins, settings.limits)
    handlers = Handlers(deliveries, manager, tokens, access, states, schedule, settings.push_intervals, clock)
    sign_in.manager, sign_in.resume, sockets.handlers = manager, handlers.resume, handlers.by_name()
    kicks = Kicks(sockets, access, accounts.access_rules)
    health = HealthStore(redis_client)
    health_news = AccountHealthNews(health, lambda: sockets.by_user)
    sign_in.greet = health_news.greet

    def on_signal(payload: bytes) -> None:
        signal = signals.parse(payload)
        if signal is not None:
            kicks.on_signal(signal)
            health_news.on_signal(signal)

    plain = {keys.EMITTER_CHANNEL.encode(): manager.on_queue_message, keys.SIGNALS_CHANNEL.encode(): on_signal}

    def on_message(channel: bytes, payload: bytes) -> None:
        if channel in plain:
            plain[channel](payload)
        else:
            deliveries.on_message(channel, payload)

    def on_restored() -> None:
        deliveries.reread()
        health_news.reread()

    listener = open_ears(settings.redis_url, redis_client, clock, observer, on_message, on_restored)
    deliveries.listener = listener

    app = Flask("pushserver", static_folder=None)
    register_error_handlers(app)
    app.register_blueprint(create_health(redis_client, listener))
    limits = LoginLimits(redis_client)
    verifier = open_verifier(settings, redis_client, clock, observer)
    services = ApiServices(accounts, tokens, access, limits, verifier, states, health, redis_client, clock, observer)
    app.register_blueprint(create_api(services, settings.cors_origins))
    if settings.console:
        app.register_blueprint(create_console())
    SocketIO().mount(app, server)
    app.wsgi_app = ForwardedHeaders(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]
    # What the request handler and the hooks of gunicorn, which import nothing of the program, reach it by.
    drain = Drain(sockets, settings.drain_s, clock).run
    app.extensions.update(observer=observer, clock=clock, limits=settings.limits, admission=admission)
    app.extensions.update(drain=drain, transports=sockets.connections)

    listener.start()
    kicks.start(after=start_upgrade(accounts.upgrade, "web", clock, observer))
    Ticker(sockets, deliveries.scheduling.look_after, deliveries.totals.report, clock, settings.limits).start()
    patience = Patience(settings.push_intervals, settings.reconcile_s)
    FreshnessSamples(lambda: deliveries.watches, states, homes, patience, observer, clock).start()
    start_measuring(sockets, listener, deliveries, observer, clock)
    observer.record(LifecycleReported("web", "started"))
    return app


def create_app_from_environment() -> Any:
    """For the door: ``gunicorn.conf.py`` has already refused a wrong environment."""
    return create_app(Settings.from_env())


def start_measuring(sockets: Sockets, listener: Ears, deliveries: Deliveries, observer: Observer, clock: Clock) -> None:
    """What the metrics tell of this process that no request does."""
    redis_is_up = lambda: deliveries.scheduling.redis_is_up  # noqa: E731
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    Measuring(sockets.connections.values, listener, redis_is_up, observer, clock, directory).start()
    LoopLagProbe("web", clock, observer).start()
    ProcessProbe(observer).start()


def open_verifier(settings: Settings, redis_client: object, clock: Clock, observer: Observer) -> PaidVerifier:
    """Asks about keys as the push workers ask about accounts: by the same addresses, out of the same budgets."""
    egresses = egresses_of(settings.egress_id, settings.egress_proxies)
    desks = [
        Desk(
            BybitExchange(settings.bybit_rest_url, settings.bybit_markets, clock, observer, proxy=egress.proxy),
            Budget(redis_client, egress.name, settings.bybit_ip_requests_per_5s, ADDRESS_WINDOW_S, clock=clock),
            Pauses(redis_client, egress.name),
        )
        for egress in egresses
    ]
    return PaidVerifier(desks, partial(egress_of, egresses=egresses), clock, observer)
