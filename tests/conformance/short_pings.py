"""The web side with the heartbeat of the official test suites: a ping every 300 ms, to be answered within 200 ms."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

from pushserver.web import engine  # noqa: E402 - nothing may be imported before the patching

engine.PING_INTERVAL_S = 0.3  # type: ignore[assignment]
engine.PING_TIMEOUT_S = 0.2  # type: ignore[assignment]

from pushserver.web import ticker  # noqa: E402 - it copies the two

ticker.TICK_S = 0.02

from pushserver.web.app import create_app_from_environment  # noqa: E402

app = create_app_from_environment()
