"""How gunicorn runs the web side; found by ``gunicorn wsgi:app`` in the working directory.

It runs in the master, which must stay small and unpatched: the program is imported after the fork only, in the
workers. What the master needs of it (settings, logs, metrics of all workers) is imported inside functions, and a
worker imports it anew, so that a reload (HUP) brings new code whole.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import Any

from gunicorn.workers import SUPPORTED_WORKERS

#: So that ``-k geventwebsocket`` works on the command line.
SUPPORTED_WORKERS["geventwebsocket"] = "pushserver.web.gunicorn_worker.PushServerWorker"


def _checked_settings() -> Any:
    """The settings; a wrong environment ends the process here, before anything listens or is forked."""
    from pushserver.errors import SettingsError
    from pushserver.settings import Settings

    try:
        return Settings.from_env(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)  # noqa: T201 - there is no log format yet, the setting may be the problem
        raise SystemExit(2) from None


def _configure_logs() -> None:
    from pushserver import logs

    logs.configure(settings.log_format, settings.log_level)


def _usable(directory: str) -> str | None:
    return directory if os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK) else None  # noqa: PTH112


#: Workers beyond twice the number that was asked for: added by signal, or dying while a reload goes on.
SPARE_SLOTS = 8
#: File descriptors per process, as far as the system lets us have them; many shells start programs with 1,024.
DESCRIPTORS = 65_536

settings = _checked_settings()
_configure_logs()

proc_name = "pushserver-web"
bind = str(settings.bind)
workers = settings.web_concurrency
worker_class = "geventwebsocket"
# Connections per worker, phones included; a full pool stops accepting, health checks too.
worker_connections = settings.limits.worker_connections
# A worker whose event loop stands still for this long is killed and replaced.
timeout = 30
# A worker that is replaced waits for its successors to load, then closes its connections, then lets requests end.
graceful_timeout = settings.drain_s + 15
# The heartbeat file must not wait for a slow disk.
worker_tmp_dir = _usable("/dev/shm")  # noqa: S108 - gunicorn unlinks the file as soon as it is open
reuse_port = False
# Nobody is to steer the master through a socket in the home directory.
control_socket_disable = True
logger_class = "pushserver.web.gunicorn_worker.GunicornLogger"
loglevel = settings.log_level
accesslog = None


def on_starting(server: Any) -> None:
    """Once per master: the memory that its workers share. A reload has old and new workers at the same time."""
    from pushserver.web.worker_slots import SALT_BYTES, WorkerSlots

    if server.cfg.is_ssl:
        # Serving plain text where somebody asked for TLS would be worse than not serving.
        print("gunicorn's TLS options are not supported: let a proxy end TLS (see deploy/nginx)", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))
    server.worker_slots = WorkerSlots.create(2 * server.cfg.workers + SPARE_SLOTS, os.urandom(SALT_BYTES))
    _exit_at_once_when_told_twice(server)


def _exit_at_once_when_told_twice(server: Any) -> None:
    """gunicorn would wait for its workers however often it got SIGTERM."""
    stop = server.handle_term

    def handle_term() -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: server.SIG_QUEUE.put_nowait(signal.SIGQUIT))
        stop()

    server.handle_term = handle_term


def when_ready(server: Any) -> None:
    """Once per master, before the first worker: a fresh metrics directory and the endpoint that reads it.

    The client library decides on its multi-process mode when it is imported, by this environment variable; workers
    inherit both. The endpoint is a thread of the master: then it is there exactly once, as long as the master and
    no longer, however the master ends, and needs no supervision of its own. Forking beside it is safe because it
    shares no lock with the workers: they never call it, the locks of the logging and import systems are renewed in
    a forked child, and the thread logs nothing while it serves.
    """
    import logging

    from pushserver.metrics_endpoint import MetricsEndpoint, SharedDirectory

    for warning in settings.warnings():
        logging.getLogger("pushserver.web").warning("%s", warning)
    server.metrics_directory = SharedDirectory()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(server.metrics_directory.path)
    from pushserver.metrics import SharedMetrics

    server.shared_metrics = SharedMetrics(server.metrics_directory.path)
    server.metrics_endpoint = MetricsEndpoint(server.shared_metrics.exposition)
    server.metrics_endpoint.serve_when_free(settings.web_metrics_bind)


def pre_fork(server: Any, worker: Any) -> None:
    """In the master: the new worker's place in the shared memory."""
    worker.slot = server.worker_slots.take(worker.age)


def post_fork(server: Any, worker: Any) -> None:
    """In the new worker: let go of what is the master's, and forget its imports of the program."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        # Until the worker has handlers of its own it has the master's, which would swallow the order to stop.
        signal.signal(number, signal.SIG_DFL)
    server.metrics_endpoint.close_inherited()
    for name in [name for name in sys.modules if name.split(".")[0] == "pushserver"]:
        del sys.modules[name]
    if worker.slot is not None:
        from pushserver.web.worker_slots import inherit

        inherit(server.worker_slots.memory, worker.slot)


def child_exit(server: Any, worker: Any) -> None:
    """A worker is gone, whichever way: its connections no longer count, what it did still does."""
    server.shared_metrics.forget(worker.pid)
    if worker.slot is not None:
        server.worker_slots.free(worker.slot)


def on_exit(server: Any) -> None:
    """The master leaves."""
    server.metrics_endpoint.close()
    server.metrics_directory.remove()
